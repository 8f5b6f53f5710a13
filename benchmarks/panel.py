"""What an update of the panel costs by itself: no ComfyUI and no page around it.

    python -m comfyui_calibri.benchmarks.panel

Shows the panel alone in Chromium, on an empty page with stand-ins for the two modules of ComfyUI's
that it imports, gives it a run of 2,000 generations and 114 coefficients, which never was, and one
generation more again and again. Prints one JSON line: the main thread's own milliseconds for each,
painting included.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, Route, sync_playwright

from .long_run import LongRun

ROOT = Path(__file__).resolve().parents[1]
ORIGIN = "http://panel.test"
PACK = f"{ORIGIN}/extensions/comfyui-calibri/"
KINDS = {".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript"}
# No more of ComfyUI than the panel uses.
APP = """
import { api } from "./api.js";
export const app = window.app = {
  api, extensions: [], registerExtension(extension) { this.extensions.push(extension); },
  extensionManager: { setting: { get: () => undefined } },
};
"""
API = """
const events = new EventTarget();
export const api = {
  clientId: "panel", apiURL: (path) => path, fetchApi: (path, options) => fetch(path, options),
  addEventListener: (...event) => events.addEventListener(...event),
  dispatchEvent: (event) => events.dispatchEvent(event),
};
"""
PLACE = '<!doctype html><div id="place" style="height: 100vh"></div>'
SHOW = """async pack => {
    await import(pack + "watch.js");
    for (const extension of app.extensions) extension.setup?.();
    app.extensions[0].bottomPanelTabs[0].render(document.getElementById("place"));
}"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        _stand_in(page)
        run = LongRun(page)
        page.goto(ORIGIN)
        page.evaluate(SHOW, PACK)
        run.wait_until_shown()
        spent = run.updates()
        browser.close()
    found = {"median": round(statistics.median(spent), 1), "most": round(max(spent), 1)}
    print(json.dumps({"benchmark": "panel", "update_cpu": found}))


def _stand_in(page: Page) -> None:
    english = ROOT / "locales" / "en"
    main_, commands, settings = (
        json.loads((english / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("main", "commands", "settings")
    )
    words = {"en": {**main_, "commands": commands, "settings": settings}}

    def give(route: Route) -> None:
        file = ROOT / "web" / route.request.url.removeprefix(PACK)
        route.fulfill(body=file.read_bytes(), content_type=KINDS[file.suffix])

    page.route(ORIGIN + "/", _text(PLACE, "text/html"))
    page.route(f"{PACK}**", give)
    page.route(f"{ORIGIN}/scripts/app.js", _text(APP, KINDS[".js"]))
    page.route(f"{ORIGIN}/scripts/api.js", _text(API, KINDS[".js"]))
    page.route(f"{ORIGIN}/i18n", lambda route: route.fulfill(json=words))


def _text(body: str, kind: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(body=body, content_type=kind)


if __name__ == "__main__":
    main()
