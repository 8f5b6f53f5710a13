/** What the gallery says of a preset. */

import { t } from "../language.js";
import { count, decimals, number, signed } from "../numbers.js";
import { plain } from "./presets.mjs";

export function titleOf(preset) {
  return preset.title || plain(preset.name);
}

/** What it is for: "flux · gate · 114 coefficients". */
export function kindWords(preset) {
  const words = [preset.family, preset.granularity];
  words.push(t("library.coefficients", { count: count(preset.coefficients) }));
  if (preset.guidance !== null) words.push(t("library.guidance", { scale: number(preset.guidance, 1) }));
  else if (preset.members > 1) words.push(t("library.members", { count: count(preset.members) }));
  return words.join(" · ");
}

/** One reward: before → after, and the gain with its 95 % interval. */
export function rewardWords(change) {
  const places = decimals(change.low, change.high);
  const values = {
    name: change.name,
    before: number(change.before, places),
    after: number(change.after, places),
    gain: signed(change.after - change.before, places),
    low: signed(change.low, places),
    high: signed(change.high, places),
  };
  return t(change.searched ? "library.reward" : "library.judge", values);
}

/** The searched reward first; "" for a preset that was never measured. */
export function rewardsOf(preset) {
  const all = [...preset.rewards].sort((one, other) => other.searched - one.searched);
  return all.length > 0 ? all.map(rewardWords) : [t("library.unmeasured")];
}

/** The settings it was found with: "steps 15, cfg 1, euler". */
export function samplingWords(preset) {
  const named = Object.entries(preset.sampling).filter(([, value]) => value !== null && value !== "");
  return named.map(([name, value]) => `${name} ${value}`).join(", ");
}

/** Everything of a preset that somebody may search for, in small letters. */
export function searchable(preset) {
  const { name, title, family, granularity, base_model: base, licence, origin } = preset;
  const rewards = preset.rewards.map((change) => change.name);
  return [name, title, family, granularity, base, licence, origin, ...rewards].join(" ").toLowerCase();
}
