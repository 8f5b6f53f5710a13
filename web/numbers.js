/** Numbers and lengths of time as words, in the page's language. */

import { language, t } from "./language.js";

const UNITS = [
  [86400, "unit.day"],
  [3600, "unit.hour"],
  [60, "unit.minute"],
  [1, "unit.second"],
];

/** A whole number with its thousands apart. */
export function count(value) {
  return Number(value ?? 0).toLocaleString(language);
}

/** With so many decimals. */
export function number(value, places) {
  return value.toFixed(places).replace("-", "−");
}

/** A reward: four digits are more than it is known to. */
export function short(value) {
  const size = Math.abs(value);
  return number(value, size >= 100 ? 1 : size >= 1 || size === 0 ? 2 : size >= 0.1 ? 3 : 4);
}

/** As `number`, with its sign. */
export function signed(value, places) {
  return `${value < 0 ? "" : "+"}${number(value, places)}`;
}

/** How many decimals show two digits of the larger of two numbers. */
export function decimals(low, high) {
  const order = Math.floor(Math.log10(Math.max(Math.abs(low), Math.abs(high))));
  return Math.min(8, Math.max(0, 1 - order));
}

/** A length of time in its two largest units. */
export function duration(seconds) {
  const whole = Math.round(seconds);
  const first = UNITS.findIndex(([size]) => whole >= size);
  if (first === -1) return t("unit.second", { count: 0 });
  let left = whole;
  const parts = [];
  for (const [size, unit] of UNITS.slice(first, first + 2)) {
    const amount = Math.floor(left / size);
    left -= amount * size;
    if (amount > 0) parts.push(t(unit, { count: amount }));
  }
  return parts.join(" ");
}
