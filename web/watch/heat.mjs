/**
 * The coefficients as they move: a strip of colours, a row for each and a column for each
 * generation, the neutral colour where a coefficient is as the plain model has it.
 */

import { made, setText } from "../elements.js";
import { t } from "../language.js";
import { count, number, signed } from "../numbers.js";
import { colour, onThemeChange } from "./theme.mjs";

const BELOW = [59, 130, 246];
const ABOVE = [217, 119, 6];
const LEAST = 0.05; // a difference below it is no strong colour
const FURTHEST = 3; // coefficients named

export function makeHeat() {
  const element = made("figure", "calibri-chart calibri-heat");
  const canvas = made("canvas");
  canvas.setAttribute("role", "img");
  const pointed = made("p", "calibri-pointed");
  const furthest = made("p");
  element.append(made("figcaption", "", t("watch.coefficients")), canvas, pointed, furthest);

  let rows = [];
  let names = [];

  function draw() {
    if (rows.length === 0) return;
    const plain = rows[0].vector;
    const last = rows.at(-1).vector;
    const strongest = paint(canvas, rows, plain);
    const order = last.map((_, i) => i).sort((a, b) => off(b) - off(a));
    const named = order.slice(0, FURTHEST).map((i) => `${names[i]} ${number(last[i], 2)}`);
    const words = t("watch.furthest", { names: named.join(t("runs.and")) });
    setText(furthest, words);
    canvas.setAttribute("aria-label", words);
    if (!canvas.matches(":hover"))
      setText(pointed, t("watch.scale", { most: number(strongest, 2) }));

    function off(i) {
      return Math.abs(last[i] - plain[i]);
    }
  }

  canvas.addEventListener("mousemove", ({ offsetX, offsetY }) => {
    const row = rows[Math.floor((offsetX / canvas.clientWidth) * rows.length)];
    const i = Math.floor((offsetY / canvas.clientHeight) * names.length);
    if (!row || names[i] === undefined) return;
    const place = { name: names[i], number: count(row.generation) };
    const value = number(row.vector[i], 3);
    const change = signed(row.vector[i] - rows[0].vector[i], 3);
    setText(pointed, t("watch.pointed", { ...place, value, change }));
  });
  canvas.addEventListener("mouseleave", draw);
  onThemeChange(draw);

  return {
    element,
    show(all, coordinates) {
      rows = all.filter((row) => row.vector !== null);
      names = coordinates;
      draw();
    },
  };
}

/**
 * A pixel for each number; the style makes it as large as its place. How far the furthest is from the
 * plain model is given back. In loops: a long run has 30,000 numbers, and each generation would leave
 * as many to the garbage collector.
 */
function paint(canvas, rows, plain) {
  const [width, height] = [rows.length, plain.length];
  let strongest = LEAST;
  for (const { vector } of rows)
    for (let y = 0; y < height; y++) strongest = Math.max(strongest, Math.abs(vector[y] - plain[y]));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const neutral = channels(colour("--comfy-menu-bg", "#888"));
  for (let x = 0; x < width; x++) {
    const { vector } = rows[x];
    for (let y = 0; y < height; y++) {
      const difference = vector[y] - plain[y];
      const share = Math.abs(difference) / strongest;
      const strong = difference < 0 ? BELOW : ABOVE;
      const at = 4 * (y * width + x);
      for (let c = 0; c < 3; c++) image.data[at + c] = neutral[c] + share * (strong[c] - neutral[c]);
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return strongest;
}

const reader = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

/** A CSS colour as red, green and blue. */
function channels(value) {
  reader.clearRect(0, 0, 1, 1);
  reader.fillStyle = value;
  reader.fillRect(0, 0, 1, 1);
  return reader.getImageData(0, 0, 1, 1).data;
}
