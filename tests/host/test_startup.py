"""What a person sees of the pack when ComfyUI has started, before anything runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from comfy_client import ComfyClient
    from comfy_server import ComfyServer

PACK = "comfyui-calibri"

pytestmark = pytest.mark.oldest


@pytest.fixture
def pack_nodes(client: ComfyClient) -> dict[str, Any]:
    """The pack's entries in /object_info."""
    everything = client.get_json("/object_info")
    return {k: v for k, v in everything.items() if v["python_module"] == f"custom_nodes.{PACK}"}


def test_start_loads_nothing_that_only_a_run_needs(root: Path, comfyui: Path) -> None:
    # benchmarks/startup.py measures the seconds.
    program = f"""
import asyncio, sys
sys.path.insert(0, {str(comfyui)!r})
from comfy.cli_args import args
args.cpu = True
import comfy_api.latest, comfy.samplers, comfy.sd, folder_paths
before = set(sys.modules)
import comfyui_calibri
asyncio.run(asyncio.run(comfyui_calibri.comfy_entrypoint()).get_node_list())
print(*sorted(set(sys.modules) - before))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=comfyui, capture_output=True, text=True, check=True
    )
    loaded = set(ran.stdout.split())
    assert "comfyui_calibri.nodes.calibrate" in loaded
    heavy = {"cma", "matplotlib", "sqlite3", "comfyui_calibri.calibri.calibration"}
    heavy |= {"comfyui_calibri.calibri.figure", "comfyui_calibri.demo.checker"}
    assert not loaded & heavy


def test_import_stays_far_from_a_second(server: ComfyServer) -> None:
    # A generous guard, for busy machines and a first start without bytecode.
    assert server.import_seconds() < 1.0


def test_start_prints_no_error_about_the_pack(server: ComfyServer) -> None:
    log = server.read_log()
    assert "IMPORT FAILED" not in log
    assert not [line for line in log.splitlines() if "calibri" in line.lower() and "rror" in line]


def test_nodes_are_listed_with_words_for_their_users(pack_nodes: dict[str, Any]) -> None:
    assert pack_nodes
    for name, node in pack_nodes.items():
        assert node["display_name"], name
        assert node["description"], name
        assert node["category"].lower().startswith("calibri"), name


def test_widgets_explain_themselves(pack_nodes: dict[str, Any]) -> None:
    unexplained = [
        f"{name}.{widget}"
        for name, node in pack_nodes.items()
        for group in ("required", "optional")
        for widget, spec in (node["input"].get(group) or {}).items()
        if not (len(spec) > 1 and spec[1].get("tooltip"))
    ]
    assert unexplained == []


def test_every_node_has_its_help_page(client: ComfyClient, pack_nodes: dict[str, Any]) -> None:
    for name in pack_nodes:
        page = client.get_bytes(f"/extensions/{PACK}/docs/{name}.md").decode()
        assert page.strip(), name


def test_templates_are_listed_and_served(client: ComfyClient, root: Path) -> None:
    files = sorted((root / "workflows").glob("*.json"))
    assert files
    listed = client.get_json("/workflow_templates")[PACK]
    assert sorted(listed) == sorted(file.stem for file in files)
    for file in files:
        thumbnail = file.with_suffix(".jpg").name
        for name in (file.name, thumbnail):
            address = f"/api/workflow_templates/{PACK}/{name.replace(' ', '%20')}"
            assert client.get_bytes(address) == (root / "workflows" / name).read_bytes()
