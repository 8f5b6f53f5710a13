"""ComfyUI's page in a real browser without a window: what a person sees and clicks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

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
PAGE_SECONDS = 120
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
    context = browser.new_context(viewport={"width": 1600, "height": 1000}, locale="en-US")
    # A new user is met by the template browser; ours has seen it.
    context.request.post(f"{server.url}/api/settings/Comfy.TutorialCompleted", data="true")
    opened = context.new_page()
    opened.set_default_timeout(PAGE_SECONDS * 1000)
    opened.goto(server.url)
    opened.wait_for_function("window.app?.extensionManager && window.app.graph && window.LiteGraph")
    yield opened
    context.close()
