/** Small makers of elements. */

/** `made("button", "calibri-small", "Save")`: its class and its text may be left out. */
export function made(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** Only where it differs: a screen reader need not hear it again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** An icon of ComfyUI's, which says nothing to a screen reader. */
export function icon(className) {
  const picture = made("i", className);
  picture.setAttribute("aria-hidden", "true");
  return picture;
}

/**
 * A button with an icon, words and a hint. While what it does lasts, it is inert but keeps the
 * focus, which `disabled` would lose.
 */
export function button({ label = "", hint = "", icon: picture = "" }, press) {
  const element = made("button");
  element.type = "button";
  if (hint) element.title = hint;
  if (picture) element.append(icon(picture));
  element.append(label);
  element.addEventListener("click", async () => {
    if (element.ariaDisabled === "true") return;
    element.ariaDisabled = "true";
    try {
      await press();
    } finally {
      element.ariaDisabled = "false";
    }
  });
  return element;
}
