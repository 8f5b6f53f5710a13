/** Commands for the palette, the menu and key bindings; each acts on the one run that it fits. */

import { app } from "../../../scripts/app.js";
import { commandLabel, t } from "../language.js";
import { runs } from "./runs.js";
import { TAB, tabIsOpen } from "./tab.js";
import { ACTIONS, byState, fits } from "./words.js";

const TOAST_MS = 5000;

const IDS = {
  pause: "Calibri.PauseRun",
  resume: "Calibri.ResumeRun",
  finish: "Calibri.FinishRun",
  stop: "Calibri.StopRun",
};

export const COMMANDS = Object.entries(ACTIONS).map(([action, { icon }]) => ({
  id: IDS[action],
  label: commandLabel(IDS[action]),
  icon,
  action,
}));

/** Do it where there is one run to do it to; else say so, with the list open if there are several. */
export async function runCommand(id) {
  const { action } = COMMANDS.find((command) => command.id === id);
  await runs.load();
  const fitting = runs.all.filter((run) => fits(action, run)).sort(byState);
  const [run, another] = fitting.filter((other) => byState(other, fitting[0]) === 0);
  if (run && !another) return runs.act(run.id, action);
  if (another && !tabIsOpen())
    await app.extensionManager.command.execute(`Workspace.ToggleSidebarTab.${TAB.id}`);
  app.extensionManager.toast.add({
    severity: "info",
    summary: t("runs.news.refused"),
    detail: t(`runs.none.${another ? "several" : action}`),
    life: TOAST_MS,
  });
}
