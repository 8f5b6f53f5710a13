/**
 * Calibrations in ComfyUI's page: a sidebar tab, commands, toasts, the offer to resume what a restart
 * or a pause has left, and room for "Run (On Change)". What a run is, only the server knows; `runs/`
 * shows it.
 */

import { app } from "../../scripts/app.js";
import { COMMANDS, runCommand } from "./runs/commands.js";
import { watchForNews } from "./runs/news.js";
import { offerToResume } from "./runs/offer.js";
import { makeRoomForChanges } from "./runs/room.js";
import { runs } from "./runs/runs.js";
import { TAB } from "./runs/tab.js";
import { OFFER, SETTINGS } from "./settings.js";

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("./runs/runs.css", import.meta.url).href;
document.head.append(style);

app.registerExtension({
  name: "Calibri.Background",
  settings: [SETTINGS[OFFER]],
  commands: COMMANDS.map(({ id, label, icon }) => ({
    id,
    label,
    icon,
    function: () => runCommand(id),
  })),
  menuCommands: [{ path: ["Extensions", "Calibri"], commands: COMMANDS.map(({ id }) => id) }],
  // Not async: the page's start does not wait for the list of runs.
  setup() {
    app.extensionManager.registerSidebarTab(TAB);
    watchForNews(runs);
    offerToResume(runs);
    makeRoomForChanges(runs);
    runs.load();
  },
});
