/** The looks of the gallery and its dialogs, loaded with the first of them. */

let isDressed = false;

export function dress() {
  if (isDressed) return;
  isDressed = true;
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = new URL("./library.css", import.meta.url).href;
  document.head.append(style);
}
