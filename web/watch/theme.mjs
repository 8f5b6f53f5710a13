/** The page's colours, for what is drawn rather than styled. */

/** Chosen to be told apart on light and dark, by people who see colours otherwise too. */
export const TRAINING = "#3b82f6";
export const VALIDATION = "#d97706";

/** A CSS variable's value, the fallback where there is none. */
export function colour(variable, fallback) {
  return getComputedStyle(document.body).getPropertyValue(variable).trim() || fallback;
}

/** Call `draw` when the page has changed from light to dark, or back. */
export function onThemeChange(draw) {
  new MutationObserver(() => requestAnimationFrame(draw)).observe(document.documentElement, {
    attributes: true,
    attributeFilter: ["class", "style"],
  });
}
