"""The tiers of scripts/test: which there are, what each needs, and what to say of one that did not
run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from comfyui_location import (
    OLDEST_SUPPORTED,
    NotInstalledError,
    find_oldest_comfyui,
    find_or_install_comfyui,
    oldest_default,
)
from progress import say, step
from project_folders import ROOT, RUN, environment_variables, link_folder
from python_environment import project_environment
from setup_error import SetupError

RESULTS = RUN / "test-results"
# Most tests compute in one thread: two files at a time on two cores. A file's tests stay together,
# because they share what is dear to make; files in the order of tests/conftest.py, because sorted
# by their number of tests the few long ones would come last.
SIDE_BY_SIDE = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]


@dataclass(frozen=True)
class Outcome:
    """How a tier ended: `state` is "passed", "failed" or "not run"; `words` say how much or how to
    get it."""

    state: str
    words: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Machine:
    """What this machine has for the tests."""

    python: Path
    comfyui: Path | None
    pytest_options: Sequence[str]
    no_comfyui: str  # why there is no ComfyUI, and how to get one


def run_tiers(tiers: Sequence[str], pytest_options: Sequence[str]) -> int:
    """Set up, run `tiers` in order, print a summary; the exit code."""
    ci = os.environ.get("CI", "").lower() in ("1", "true")
    RESULTS.mkdir(parents=True, exist_ok=True)
    machine = _set_up(pytest_options)
    outcomes = {}
    for name in tiers:
        started = time.monotonic()
        with step(f"Tests: {name}"):
            try:
                state, words = TIERS[name](machine)
            except SetupError as error:
                state, words = "not run", str(error)
            outcomes[name] = Outcome(state, words, time.monotonic() - started)
    say(f"\nReports: {RESULTS}")
    for name, outcome in outcomes.items():
        say(f"  {name:8} {outcome.state:8} {outcome.seconds:5.0f} s  {outcome.words}")
    states = {outcome.state for outcome in outcomes.values()}
    if ci and "not run" in states:
        say("CI=true: a tier that did not run is a failure.")
        return 1
    return 1 if "failed" in states else 0


def _set_up(pytest_options: Sequence[str]) -> Machine:
    comfyui, no_comfyui = None, ""
    try:
        comfyui = find_or_install_comfyui()
    except NotInstalledError as error:
        no_comfyui = str(error)
        say(f"    {error}")
    with step(f"Python environment: {ROOT / '.venv'}"):
        extras = ["test", "browser", "lint", "diffusers", "ray", "train"]
        python = project_environment(ROOT / ".venv", comfyui, extras)
    return Machine(python, comfyui, pytest_options, no_comfyui)


def _lint(machine: Machine) -> tuple[str, str]:
    # mypy follows the files themselves, so it needs a folder with the package's name.
    link_folder(RUN / "packages" / "comfyui_calibri", ROOT)
    failed = [
        " ".join(command)
        for command in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy", "-n", "2"])
        if subprocess.run([machine.python, "-m", *command], cwd=ROOT).returncode != 0
    ]
    return ("failed", ", ".join(failed)) if failed else ("passed", "ruff, mypy")


def _unit(machine: Machine) -> tuple[str, str]:
    arguments = ["tests/unit", *SIDE_BY_SIDE, *machine.pytest_options]
    return _pytest("unit", machine.python, arguments)


def _host(machine: Machine) -> tuple[str, str]:
    if machine.comfyui is None:
        return "not run", machine.no_comfyui
    where = {"COMFYUI_PATH": str(machine.comfyui)}
    arguments = ["tests/host", *SIDE_BY_SIDE, *machine.pytest_options]
    return _pytest("host", machine.python, arguments, where)


def _oldest(machine: Machine) -> tuple[str, str]:
    """The smoke test on the oldest supported ComfyUI, in the environment that this version
    needs."""
    comfyui = find_oldest_comfyui()
    if comfyui is None:
        return "not run", (
            f"ComfyUI {OLDEST_SUPPORTED} is not there: git clone --depth 1 --branch "
            f"v{OLDEST_SUPPORTED} https://github.com/comfyanonymous/ComfyUI {oldest_default()}"
        )
    # It uses requests and had it from transformers 4.
    folder = ROOT / f".venv-{OLDEST_SUPPORTED}"
    python = project_environment(folder, comfyui, ["test", "diffusers"], also=["requests"])
    where = {"COMFYUI_PATH": str(comfyui)}
    arguments = ["tests/host", "-m", "oldest", *SIDE_BY_SIDE, *machine.pytest_options]
    return _pytest("oldest", python, arguments, where)


def _browser(machine: Machine) -> tuple[str, str]:
    if machine.comfyui is None:
        return "not run", machine.no_comfyui
    chromium = _find_chromium()
    if chromium is None:
        return "not run", (
            "there is no Chromium or Chrome: apt install chromium, or set CHROMIUM_PATH to one."
        )
    where = {"COMFYUI_PATH": str(machine.comfyui), "CHROMIUM_PATH": chromium}
    return _pytest("browser", machine.python, ["tests/browser", *machine.pytest_options], where)


TIERS: dict[str, Callable[[Machine], tuple[str, str]]] = {
    "lint": _lint,
    "unit": _unit,
    "host": _host,
    "oldest": _oldest,
    "browser": _browser,
}


def _pytest(
    tier: str, python: Path, arguments: Sequence[str], environment: dict[str, str] | None = None
) -> tuple[str, str]:
    """Run pytest and read from its report whether any test really ran."""
    report = RESULTS / f"{tier}.xml"
    report.unlink(missing_ok=True)
    own = [f"--junitxml={report}", f"--basetemp={RUN / 'tests' / tier}", "--durations=5"]
    (RUN / "tests").mkdir(exist_ok=True)
    command = [str(python), "-m", "pytest", *arguments, *own]
    variables = environment_variables(**(environment or {}))
    code = subprocess.run(command, cwd=ROOT, env=variables).returncode
    if code not in (0, 5) or not report.exists():
        return "failed", f"pytest ended with code {code}"
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    counts = [(int(suite.get("tests", 0)), int(suite.get("skipped", 0))) for suite in suites]
    skipped = sum(count[1] for count in counts)
    ran = sum(count[0] for count in counts) - skipped
    if ran == 0:
        return "not run", f"no test ran, {skipped} were skipped: see their reasons above."
    return "passed", f"{ran} tests" + (f", {skipped} skipped" if skipped else "")


def _find_chromium() -> str | None:
    """The browser to test with; on a Debian CI machine it is installed first."""
    named = os.environ.get("CHROMIUM_PATH")
    if named:
        if not Path(named).is_file():
            raise SetupError(
                f"CHROMIUM_PATH is {named!r}, which is no file: "
                "set it to a Chromium's program, or unset it."
            )
        return named
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    may_install = sys.platform == "linux" and os.environ.get("CI") and os.geteuid() == 0
    if found is None and may_install and shutil.which("apt-get"):
        quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "check": False}
        subprocess.run(["apt-get", "update", "-qq"], **quiet)
        subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], **quiet)
        found = shutil.which("chromium")
    return found
