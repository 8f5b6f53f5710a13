"""What the pack costs ComfyUI's page: its start, its size, and an update of the panel.

    python -m comfyui_calibri.benchmarks.page --url http://127.0.0.1:8188

Opens the page of a running ComfyUI in Chromium again and again, by turns with the pack's scripts
and with the same list of extensions without them; the page has started when its workflow is on the
canvas. Then the panel is given a run of 2,000 generations and 114 coefficients, which never was,
and a new generation again and again. Prints one JSON line. Times are in milliseconds: `cpu` is the
main thread's own time, which other processes disturb less than `wall`; `scripts` is what of it the
pack's functions take, by sampled stacks, without painting and without the page's own work.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import statistics
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, Route, sync_playwright

WEB = Path(__file__).resolve().parents[1] / "web"
OURS = "/extensions/comfyui-calibri/"
GENERATIONS = 2000
COEFFICIENTS = 114
COLUMNS = 250  # generations of such a run that have a vector
UPDATES = 10
BETWEEN = 1400  # ms; the panel asks once a second
RUN = "benchmark"


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
    clock = _clock(page)
    page.goto(url)
    wall = page.wait_for_function("window.app?.graph?.nodes?.length && performance.now()")
    taken = {"wall": float(wall.json_value()), "cpu": _busy(clock)}
    context.close()
    return taken


def _update(browser: Browser, url: str) -> dict[str, Any]:
    """The main thread's time for each new generation, painting included."""
    context = _context(browser, url)
    page = context.new_page()
    page.set_default_timeout(180_000)
    course = [_row(number) for number in range(GENERATIONS + 1)]
    page.route("**/calibri/runs", lambda route: route.fulfill(json=_listed(len(course) - 1)))

    def tell(route: Route) -> None:
        since = int(route.request.url.rpartition("since=")[2])
        names = [f"double.{n // 4}.branch.{n % 4}" for n in range(COEFFICIENTS)]
        answer = {"course": course[since:], "coordinates": names, "picture": None}
        route.fulfill(json=answer)

    page.route("**/calibri/runs/*since=*", tell)
    page.route("**/calibri/runs/*/follow", lambda route: route.fulfill(json={}))
    page.goto(url)
    page.wait_for_function("window.app?.graph?.nodes?.length")
    page.evaluate("() => app.extensionManager.command.execute('Calibri.WatchRun')")
    page.wait_for_selector(".calibri-watch [role=img][aria-label*='2,000']")
    page.wait_for_timeout(3000)
    page.evaluate(
        "() => { window.longTasks = []; new PerformanceObserver(list =>"
        " longTasks.push(...list.getEntries().map(entry => entry.duration)))"
        ".observe({ type: 'longtask' }); }"
    )
    clock = _clock(page)
    clock.send("Profiler.enable")
    idle, _ = _spent(page, clock, lambda: None)
    spent = []
    for _ in range(UPDATES):
        course.append(_row(len(course)))
        run = _listed(len(course) - 1)["runs"][0]
        spent.append(
            _spent(
                page,
                clock,
                lambda run=run: page.evaluate(
                    "run => app.api.dispatchEvent(new CustomEvent('calibri.run', { detail: run }))",
                    run,
                ),
            )
        )
    longest = page.evaluate("() => Math.max(0, ...longTasks)")
    context.close()
    return {
        "update_cpu": {
            "median": round(statistics.median(total for total, _ in spent) - idle, 1),
            "most": round(max(total for total, _ in spent) - idle, 1),
            "longest_task_over_50": round(longest),
        },
        "update_scripts": {
            "median": round(statistics.median(ours for _, ours in spent), 1),
            "most": round(max(ours for _, ours in spent), 1),
        },
    }


def _spent(page: Page, clock: CDPSession, act: Any) -> tuple[float, float]:
    """Of the main thread, all told, and what the pack's functions and what they call have of it."""
    clock.send("Profiler.start")
    before = _busy(clock)
    act()
    page.wait_for_timeout(BETWEEN)
    spent = _busy(clock) - before
    return spent, _ours(clock.send("Profiler.stop")["profile"])


def _ours(profile: dict[str, Any]) -> float:
    """The time of sampled stacks that a function of the pack's is in, by the clock."""
    nodes = {node["id"]: node for node in profile["nodes"]}
    callers = {child: n["id"] for n in profile["nodes"] for child in n.get("children", [])}

    def is_ours(node: int | None) -> bool:
        while node is not None:
            if OURS in nodes[node]["callFrame"]["url"]:
                return True
            node = callers.get(node)
        return False

    ours = {number for number in nodes if is_ours(number)}
    taken = zip(profile["samples"], profile["timeDeltas"], strict=True)
    return float(sum(delta for sample, delta in taken if sample in ours)) / 1000


def _clock(page: Page) -> CDPSession:
    clock = page.context.new_cdp_session(page)
    clock.send("Performance.enable", {"timeDomain": "threadTicks"})
    return clock


def _busy(clock: CDPSession) -> float:
    metrics = clock.send("Performance.getMetrics")["metrics"]
    return next(each["value"] for each in metrics if each["name"] == "TaskDuration") * 1000


def _context(browser: Browser, url: str) -> BrowserContext:
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, locale="en-US")
    context.request.post(f"{url}/api/settings/Comfy.TutorialCompleted", data="true")
    return context


def _without_ours(route: Route) -> None:
    listed = route.fetch().json()
    route.fulfill(json=[file for file in listed if not file.startswith(OURS)])


def _listed(generation: int) -> dict[str, Any]:
    run = {
        "id": RUN,
        "revision": 2**50 + generation,
        "title": RUN,
        "created": 0.0,
        "where": "background",
        "reason": "",
        "state": "running",
        "generation": generation,
        "generations": 4000,
        "images": 16 * generation,
        "total": 64_000,
        "phase": "generation",
        "plain": -1.0,
        "reward": -0.5,
        "best": 1,
        "gain": {"mean": 0.5, "low": 0.4, "high": 0.6},
        "seconds": 100.0,
        "seconds_left": 100.0,
        "longest_wait": 0.0,
    }
    return {"revision": 2**50 + generation, "runs": [run]}


def _row(number: int) -> dict[str, Any]:
    mean = -1 / (1 + number / 200) + 0.1 * math.sin(number)
    is_known = number % (GENERATIONS // COLUMNS) == 0 or number >= GENERATIONS
    vector = [round(math.sin(n + number / 500), 4) for n in range(COEFFICIENTS)]
    gain = {"mean": mean + 1, "low": mean + 0.9, "high": mean + 1.1}
    return {
        "generation": number,
        "mean": mean,
        "best": mean + 0.3,
        "worst": mean - 0.4,
        "step": 0.25,
        "sigma": 0.25,
        "images": 16,
        "seconds": 2.0,
        "validation": mean,
        "gain": gain if number else None,
        "vector": vector if is_known else None,
    }


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
