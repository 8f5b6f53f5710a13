"""What the pack costs when ComfyUI starts, by ComfyUI's own "Import times for custom nodes".

    python -m comfyui_calibri.benchmarks.startup

Starts ComfyUI (COMFYUI_PATH, or comfy-cli's default) a few times with this pack as its only one,
and lets it end at once. Prints one JSON line: the seconds that ComfyUI printed for the pack (to a
tenth, as it rounds), and the pack's share of the whole start, which is the baseline.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..nodes.headless import find_comfyui

PACK = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    imports: list[float] = []
    starts: list[float] = []
    with tempfile.TemporaryDirectory() as base:
        nodes = Path(base) / "custom_nodes"
        nodes.mkdir()
        (nodes / "comfyui-calibri").symlink_to(PACK, target_is_directory=True)
        # The first start compiles bytecode, as only the first after an installation does.
        for _ in range(options.repeats + 1):
            started = time.perf_counter()
            log = subprocess.run(
                [
                    *(sys.executable, "main.py", "--cpu", "--quick-test-for-ci"),
                    *("--base-directory", base, "--database-url", f"sqlite:///{base}/comfyui.db"),
                ],
                cwd=find_comfyui(),
                capture_output=True,
                text=True,
                check=True,
            )
            starts.append(time.perf_counter() - started)
            found = re.search(r"([\d.]+) seconds: .*comfyui-calibri", log.stdout + log.stderr)
            if found is None:
                sys.exit(f"ComfyUI did not load the pack:\n{log.stderr[-2000:]}")
            imports.append(float(found.group(1)))
    print(
        json.dumps(
            {
                "benchmark": "start-up",
                "pack_seconds": imports[1:],
                "comfyui_seconds": round(statistics.median(starts[1:]), 1),
                "share": round(statistics.median(imports[1:]) / statistics.median(starts[1:]), 4),
            }
        )
    )


if __name__ == "__main__":
    main()
