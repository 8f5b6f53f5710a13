"""What the pack costs ComfyUI's page: its start, its size, and an update of the panel.

    python -m comfyui_calibri.benchmarks.page --url http://127.0.0.1:8188

Opens the page of a running ComfyUI in Chromium again and again, by turns with the pack's scripts
and with the same list of extensions without them; the page has started when its workflow is on the
canvas. Then the panel is given a run of 2,000 generations and 114 coefficients, which never was,
and a new generation again and again. Prints one JSON line. Times are in milliseconds: `cpu` is the
main thread's own time, which other processes disturb less than `wall`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import statistics
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Route, sync_playwright

from .long_run import LongRun, busy, clock

WEB = Path(__file__).resolve().parents[1] / "web"
OURS = "/extensions/comfyui-calibri/"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="of a running ComfyUI with this pack")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--pairs", type=int, default=8)
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        start = _start(browser, options.url, options.pairs)
        update = _update(browser, options.url)
        browser.close()
    print(json.dumps({"benchmark": "page", **start, **_sizes(), **update}))


def _start(browser: Browser, url: str, pairs: int) -> dict[str, Any]:
    added: dict[str, list[float]] = {"wall": [], "cpu": []}
    plain: dict[str, list[float]] = {"wall": [], "cpu": []}
    for pair in range(-1, pairs):  # the first fills the server's caches
        order = (True, False) if pair % 2 else (False, True)
        taken = {with_pack: _load(browser, url, with_pack) for with_pack in order}
        if pair < 0:
            continue
        for kind in added:
            added[kind].append(taken[True][kind] - taken[False][kind])
            plain[kind].append(taken[False][kind])
    return {
        f"start_{kind}": {
            "added": round(statistics.median(added[kind])),
            "interval": [round(end) for end in _median_interval(added[kind])],
            "without": round(statistics.median(plain[kind])),
        }
        for kind in added
    }


def _load(browser: Browser, url: str, with_pack: bool) -> dict[str, float]:
    context = _context(browser, url)
    page = context.new_page()
    page.set_default_timeout(180_000)
    if not with_pack:
        page.route("**/api/extensions", _without_ours)
    main_thread = clock(page)
    page.goto(url)
    wall = page.wait_for_function("window.app?.graph?.nodes?.length && performance.now()")
    taken = {"wall": float(wall.json_value()), "cpu": busy(main_thread)}
    context.close()
    return taken


def _update(browser: Browser, url: str) -> dict[str, Any]:
    """The main thread's time for each new generation, painting included; what the page does of
    itself is taken off by one measurement."""
    context = _context(browser, url)
    page = context.new_page()
    page.set_default_timeout(180_000)
    run = LongRun(page)
    page.goto(url)
    page.wait_for_function("window.app?.graph?.nodes?.length")
    page.evaluate("() => app.extensionManager.command.execute('Calibri.WatchRun')")
    run.wait_until_shown()
    page.evaluate(
        "() => { window.longTasks = []; new PerformanceObserver(list =>"
        " longTasks.push(...list.getEntries().map(entry => entry.duration)))"
        ".observe({ type: 'longtask' }); }"
    )
    idle, spent = run.idle(), run.updates()
    longest = page.evaluate("() => Math.max(0, ...longTasks)")
    context.close()
    return {
        "update_cpu": {
            "median": round(statistics.median(spent) - idle, 1),
            "most": round(max(spent) - idle, 1),
            "longest_task_over_50": round(longest),
        }
    }


def _context(browser: Browser, url: str) -> BrowserContext:
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, locale="en-US")
    context.request.post(f"{url}/api/settings/Comfy.TutorialCompleted", data="true")
    return context


def _without_ours(route: Route) -> None:
    listed = route.fetch().json()
    route.fulfill(json=[file for file in listed if not file.startswith(OURS)])


def _sizes() -> dict[str, int]:
    """Bytes of what a browser may load, compressed, and of what it loads first."""
    kinds = (".js", ".mjs", ".css")
    files = [file for file in WEB.rglob("*") if file.suffix in kinds]
    sizes = {file: len(gzip.compress(file.read_bytes(), 9)) for file in files}
    first = sum(size for file, size in sizes.items() if file.suffix == ".js")
    return {"bytes": sum(sizes.values()), "bytes_at_start": first}


def _median_interval(values: list[float]) -> tuple[float, float]:
    """A 95 % interval of the median, by the order statistics of the sign test; all for few."""
    ordered, count = sorted(values), len(values)
    chance, below = 0.0, 0
    while below < count // 2:
        chance += math.comb(count, below) / 2**count
        if 2 * chance > 0.05:
            break
        below += 1
    below = max(0, below - 1)
    return ordered[below], ordered[count - 1 - below]


if __name__ == "__main__":
    main()
