/**
 * Rules such as `double.0-3.attention=0.8`, read and written as `calibri/compact_text.py` does.
 *
 * A base is `{ names, values }`: for each member the values in the order of the names.
 */

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
const RANGE = /^(\d{1,5})-(\d{1,5})$/;
const PART = /^(\*|\w+|\d+-\d+)$/;
const MEMBER = /^member(\d{1,3})$/;
const DIGITS = 9; // tell every float32 from its neighbours

/** The values after all rules; null where one cannot be read, which the server says better. */
export function applied(base, text) {
  const values = base.values.map((of) => [...of]);
  for (const { rules } of linesOf(text))
    for (const written of rules) {
      const rule = read(written);
      const met = rule && reached(rule, base);
      if (!met) return null;
      for (const [member, place] of met)
        values[member][place] = Math.fround(
          rule.multiplies ? values[member][place] * rule.value : rule.value,
        );
    }
  return values;
}

/**
 * The text after `changes`, each `{ pattern, value }`, which come last and so win. Rules that all
 * of it makes idle are left out; a change to what is there already needs no rule.
 */
export function changed(base, text, changes) {
  const made = changes.map(({ pattern, value }) => ({
    ...read(`${pattern}=${written(value)}`),
    text: `${pattern}=${written(value)}`,
  }));
  const covered = new Set(made.flatMap((rule) => keys(rule, base)));
  const lines = linesOf(text).map(({ rules, comment }) => {
    const kept = rules.filter((each) => !isIdle(read(each), base, covered));
    const all = kept.length === rules.length;
    return { kept, comment, isGone: !all && kept.length === 0 && comment === "" };
  });
  const rest = lines
    .filter(({ isGone }) => !isGone)
    .map(({ kept, comment }) => [kept.join(", "), comment].filter(Boolean).join("  "));
  while (rest.at(-1)?.trim() === "") rest.pop();
  const before = applied(base, rest.join("\n"));
  const needed = made.filter((rule) =>
    reached(rule, base).some(([member, place]) => before[member][place] !== Math.fround(rule.value)),
  );
  return [...rest, ...needed.map((rule) => rule.text)].join("\n");
}

/** The shortest decimal that is the same float32: 0.8, not 0.800000011920929. */
function written(value) {
  for (let digits = 1; digits < DIGITS; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return String(short);
  }
  return String(Number(value.toPrecision(DIGITS)));
}

function linesOf(text) {
  return text.split(/\r\n|\r|\n/).map((line) => {
    const at = line.indexOf("#");
    const code = at === -1 ? line : line.slice(0, at);
    const rules = code
      .split(",")
      .map((rule) => rule.trim())
      .filter(Boolean);
    return { rules, comment: at === -1 ? "" : line.slice(at) };
  });
}

/** A rule's pattern and what it does; null where it is none. */
function read(text) {
  const sides = text.split("=");
  if (sides.length !== 2 || !NUMBER.test(sides[1].trim())) return null;
  let left = sides[0].trimEnd();
  // In single.*=1.1 the star is the pattern's, in single*=1.1 it belongs to the equals sign.
  const multiplies = left.endsWith("*") && left !== "*" && !left.endsWith(".*");
  if (multiplies) left = left.slice(0, -1).trimEnd();
  const parts = left.split(".");
  if (!parts.every((part) => PART.test(part))) return null;
  const member = MEMBER.exec(parts[0]);
  return {
    member: member ? Number(member[1]) - 1 : null,
    parts: member ? (parts.length > 1 ? parts.slice(1) : ["*"]) : parts,
    value: Number(sides[1].trim()),
    multiplies,
  };
}

/** Which numbers a rule is about, as [member, place]; null where there are none, [] for weights. */
function reached(rule, base) {
  const { parts, member } = rule;
  if (parts.length === 1 && parts[0] === "weight") return [];
  const members = member === null ? base.values.map((_, m) => m) : [member];
  if (members.some((m) => m < 0 || m >= base.values.length)) return null;
  const places = base.names.flatMap((name, place) => (fits(parts, name) ? [place] : []));
  return places.length === 0 ? null : members.flatMap((m) => places.map((place) => [m, place]));
}

function keys(rule, base) {
  return (reached(rule, base) ?? []).map(([member, place]) => `${member} ${place}`);
}

/** Whether later rules, which set all of `covered`, leave nothing of a rule. */
function isIdle(rule, base, covered) {
  const met = rule ? keys(rule, base) : [];
  return met.length > 0 && met.every((key) => covered.has(key));
}

function fits(parts, name) {
  const ofName = name.split(".");
  return parts.length <= ofName.length && parts.every((part, i) => partFits(part, ofName[i]));
}

function partFits(part, ofName) {
  if (part === "*" || part === ofName) return true;
  const span = RANGE.exec(part);
  if (span === null || !/^\d+$/.test(ofName)) return false;
  return Number(span[1]) <= Number(ofName) && Number(ofName) <= Number(span[2]);
}
