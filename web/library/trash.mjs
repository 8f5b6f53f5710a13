/** What was deleted, with a button to take it back. */

import { button, made } from "../elements.js";
import { t } from "../language.js";
import { plain, presets, say } from "./presets.mjs";

/** When it was deleted, which its id begins with: 20261130-093112. */
function timeOf(id) {
  const [, year, month, day, hour, minute] = /^(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)/.exec(id);
  return `${year}-${month}-${day} ${hour}:${minute}`;
}

/** Draw the trash into an open `<details>`. */
export async function drawTrash(details) {
  const discarded = await presets.discarded();
  details.querySelector("ul, p")?.remove();
  if (discarded.length === 0) return details.append(made("p", "", t("library.trash.empty")));
  const list = made("ul");
  list.append(
    ...discarded.map((entry) => {
      const item = made("li");
      const back = button({ label: t("library.trash.restore") }, async () => {
        const preset = await presets.restore(entry.id);
        if (preset !== null) say("success", t("library.kept", { name: preset.name }));
        await drawTrash(details);
        details.querySelector("summary").focus();
      });
      // A name may have been deleted more than once.
      const words = made("span", "", plain(entry.name));
      words.append(made("small", "", t("library.trash.deleted", { time: timeOf(entry.id) })));
      back.setAttribute("aria-label", `${t("library.trash.restore")}: ${words.textContent}`);
      item.append(words, back);
      return item;
    }),
  );
  return details.append(list);
}
