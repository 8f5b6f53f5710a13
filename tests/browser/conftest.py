"""ComfyUI's page in a real browser without a window: what a person sees and clicks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from .canvas import PAGE_SECONDS, open_page

if TYPE_CHECKING:
    from comfy_server import ComfyServer

# Nothing that talks to the network, asks a question or needs a GPU.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A busy machine shows a thumbnail later than Playwright's five seconds.
expect.set_options(timeout=PAGE_SECONDS * 1000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium of CHROMIUM_PATH, or Debian's."""
    program = os.environ.get("CHROMIUM_PATH") or shutil.which("chromium")
    if program is None:
        pytest.skip("there is no Chromium: apt install chromium, or set CHROMIUM_PATH")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """ComfyUI's page, ready to be used, with an empty canvas."""
    with open_page(browser, server) as opened:
        yield opened
