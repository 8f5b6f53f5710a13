/**
 * A preset as a picture: one bar for each coefficient, grouped by block, streams in colours, from the
 * ground line at 1, which is the plain model. Two presets are drawn side by side on one scale.
 */

import { made } from "../elements.js";
import { t } from "../language.js";
import { number } from "../numbers.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 56; // of one member's row, in units of the picture
const BAR = 3;
const GAP = { block: 1.5, kind: 8 };
const LEAST_REACH = 0.1; // from 1: what hardly moves does not look like much
const MOST_ROWS = 4; // members that are drawn

/** `name` as parts: double.3.attention.image. */
export function parts(name) {
  const [kind, block, branch = "", stream = ""] = name.split(".");
  return { kind, block: Number(block), branch, stream };
}

/** Names in the order of the picture: by kind as they come, then block, then branch. */
export function ordered(names) {
  const kinds = [...new Set(names.map((name) => parts(name).kind))];
  const place = new Map(names.map((name, index) => [name, index]));
  return [...names].sort((one, other) => {
    const [a, b] = [parts(one), parts(other)];
    return kinds.indexOf(a.kind) - kinds.indexOf(b.kind) || a.block - b.block || place.get(one) - place.get(other);
  });
}

/** The values of a whole preset's member by their names. */
export function member(whole, index = 0) {
  return new Map(whole.names.map((name, i) => [name, whole.values[index][i]]));
}

/** A row for each member of a preset. */
export function drawPreset(whole) {
  const shown = whole.values.slice(0, MOST_ROWS).map((_, index) => [member(whole, index)]);
  const box = made("div", "calibri-bars");
  const reach = reachOf(shown.flat());
  const names = ordered(whole.names);
  shown.forEach((row, index) => {
    const words = summary(row[0]);
    const label =
      whole.values.length > 1
        ? t("library.bars.member", { number: index + 1, weight: number(whole.weights[index], 2), words })
        : words;
    box.append(draw(names, row, reach, label));
  });
  const more = whole.values.length - shown.length;
  if (more > 0) box.append(made("p", "", t("library.bars.more", { count: more })));
  return box;
}

/** What the colours mean. */
export function drawLegend() {
  const box = made("p", "calibri-colours");
  for (const [stream, label] of Object.entries({
    image: t("library.legend.image"),
    text: t("library.legend.text"),
    joint: t("library.legend.joint"),
    whole: t("library.legend.whole"),
  })) {
    const mark = made("span", `calibri-mark calibri-${stream}`);
    mark.setAttribute("aria-hidden", "true");
    const words = made("span", "", label);
    words.prepend(mark);
    box.append(words);
  }
  return box;
}

/** Two maps of values on the names that either has. */
export function drawPair(one, other) {
  const names = ordered([...new Set([...one.keys(), ...other.keys()])]);
  const label = t("library.bars.pair", { one: summary(one), other: summary(other) });
  const box = made("div", "calibri-bars");
  box.append(draw(names, [one, other], reachOf([one, other]), label));
  return box;
}

function summary(values) {
  const all = [...values.values()];
  return t("library.bars.summary", {
    count: all.length,
    low: number(Math.min(...all), 2),
    high: number(Math.max(...all), 2),
  });
}

/** How far the picture goes from 1, up and down alike. */
function reachOf(maps) {
  const far = maps.flatMap((values) => [...values.values()].map((value) => Math.abs(value - 1)));
  return Math.max(LEAST_REACH, ...far);
}

function draw(names, maps, reach, label) {
  const picture = shape("svg", { role: "img", preserveAspectRatio: "none" });
  picture.setAttribute("aria-label", label);
  const middle = HEIGHT / 2;
  const width = BAR / maps.length;
  let [x, before] = [0, null];
  for (const name of names) {
    const now = parts(name);
    if (before !== null && before.kind !== now.kind) {
      picture.append(shape("line", { x1: x + GAP.kind / 2, x2: x + GAP.kind / 2, y1: 0, y2: HEIGHT, class: "calibri-kind" }));
      x += GAP.kind;
    } else if (before !== null && before.block !== now.block) x += GAP.block;
    maps.forEach((values, index) => {
      const value = values.get(name);
      if (value === undefined) return;
      const length = (Math.abs(value - 1) / reach) * middle;
      const bar = shape("rect", {
        x: x + index * width,
        y: value >= 1 ? middle - length : middle,
        width: width * 0.9,
        height: Math.max(length, 0.6), // 1 itself is seen too
        class: maps.length > 1 ? `calibri-of-${index}` : streamClass(now),
      });
      const hint = shape("title");
      hint.textContent = `${name} ${number(value, 3)}`;
      bar.append(hint);
      picture.append(bar);
    });
    x += BAR;
    before = now;
  }
  picture.append(shape("line", { x1: 0, x2: x, y1: middle, y2: middle, class: "calibri-ground" }));
  picture.setAttribute("viewBox", `0 0 ${x} ${HEIGHT}`);
  const figure = made("figure");
  const scale = made("figcaption", "", `${number(1 - reach, 2)} … ${number(1 + reach, 2)}`);
  scale.setAttribute("aria-hidden", "true");
  figure.append(picture, scale);
  return figure;
}

function streamClass({ branch, stream }) {
  if (stream.startsWith("image")) return "calibri-image";
  if (stream.startsWith("text")) return "calibri-text";
  return branch === "" ? "calibri-whole" : "calibri-joint";
}

function shape(tag, attributes = {}) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
