/** The same coefficients by block, by layer or by gate: each bar stands for one or several. */

const DECIMALS = 4; // of what is moved
const PARTS = { block: 2, layer: 3, gate: 4 };

/** The views that a preset's granularity has, its own last. */
export function viewsOf(granularity) {
  const all = Object.keys(PARTS);
  return all.slice(0, all.indexOf(granularity) + 1);
}

/** For each bar: its pattern, kind, block and stream, and the places of its coefficients. */
export function groups(names, view) {
  const found = new Map();
  names.forEach((name, place) => {
    const parts = name.split(".");
    const pattern = parts.slice(0, PARTS[view]).join(".");
    if (!found.has(pattern))
      found.set(pattern, { pattern, kind: parts[0], block: parts[1], streams: new Set(), places: [] });
    const group = found.get(pattern);
    group.places.push(place);
    group.streams.add(parts[3] ?? "whole");
  });
  return [...found.values()].map(({ streams, ...group }) => ({
    ...group,
    stream: streams.size === 1 ? [...streams][0] : "whole",
  }));
}

export function mean(values, places) {
  return places.reduce((sum, place) => sum + values[place], 0) / places.length;
}

/**
 * The changes that bring a bar to `value`: what is alike stays alike, what differs moves by the
 * same, as far as the bounds let it. `member` is a number of an ensemble's members or null.
 */
export function moved(group, values, names, value, member, [lowest, highest]) {
  const prefix = member === null ? "" : `member${member + 1}.`;
  const alike = group.places.every((place) => values[place] === values[group.places[0]]);
  if (alike) return [{ pattern: prefix + group.pattern, value }];
  const by = value - mean(values, group.places);
  return group.places.map((place) => ({
    pattern: prefix + names[place],
    value: Math.min(highest, Math.max(lowest, rounded(values[place] + by))),
  }));
}

function rounded(value) {
  return Number(value.toFixed(DECIMALS));
}
