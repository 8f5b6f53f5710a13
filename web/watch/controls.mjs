/** What can be asked of the run that is watched. */

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { button, icon, made } from "../elements.js";
import { t } from "../language.js";
import { runs } from "../runs/runs.js";
import { ACTIONS, buttonWords, fits, hintOf } from "../runs/words.js";

const SAVE = { label: t("watch.save"), hint: t("watch.saveHint"), icon: "pi pi-save" };
const TOAST_MS = 8000;

export function makeControls() {
  const element = made("div", "calibri-buttons");
  const buttons = new Map();
  let run = null;
  for (const [name, action] of Object.entries(ACTIONS))
    buttons.set(name, button(action, () => runs.act(run.id, name)));
  buttons.set("save", button(SAVE, () => save(run)));
  const report = made("a", "calibri-report");
  report.append(icon("pi pi-image"), t("watch.report"));
  report.target = "_blank";
  report.rel = "noopener";
  element.append(...buttons.values(), report);

  return {
    element,
    show(now) {
      run = now;
      const focused = [...buttons.values()].find((each) => each === document.activeElement);
      for (const [name, each] of buttons) {
        each.hidden = name === "save" ? !hasBest(run) : !fits(name, run);
        each.setAttribute("aria-label", buttonWords((ACTIONS[name] ?? SAVE).label, run));
        if (name in ACTIONS) each.title = hintOf(name, run);
      }
      // The button just pressed may be gone: the keyboard stays here.
      if (focused?.hidden) [...buttons.values()].find((each) => !each.hidden)?.focus();
      report.hidden = run.state !== "finished";
      const place = { filename: "report.png", subfolder: `calibri/${run.id}`, type: "output" };
      report.href = api.apiURL(`/view?${new URLSearchParams(place)}`);
    },
  };
}

/** Generation 0 is the plain model. */
function hasBest(run) {
  return run.best !== null && run.best !== 0;
}

async function save(run) {
  const summary = await runs.act(run.id, "save");
  if (!summary?.preset) return;
  // What loads presets lists it at once.
  await app.refreshComboInNodes();
  app.extensionManager.toast.add({
    severity: "success",
    summary: t("watch.saved", { title: run.title }),
    detail: t("runs.preset", { name: summary.preset }),
    life: TOAST_MS,
  });
}
