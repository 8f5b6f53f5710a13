"""The gallery of presets as a person uses it, and files as they are dropped."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Locator, Page, expect


def open_gallery(page: Page) -> Locator:
    page.get_by_role("button", name="Presets: look, compare, use").click()
    gallery = page.get_by_role("region", name="Calibri presets")
    expect(gallery.get_by_role("status")).to_contain_text("presets")
    return gallery


def card(gallery: Locator, title: str) -> Locator:
    heading = gallery.page.get_by_role("heading", name=title, exact=True)
    return gallery.get_by_role("listitem").filter(has=heading)


def toast(page: Page, words: str) -> Locator:
    return page.get_by_role("alert").filter(has_text=words)


def drop(page: Page, name: str, data: bytes, target: str = "#graph-canvas", kind: str = "") -> None:
    """Drop a file in the middle of what the selector finds."""
    page.evaluate(
        """([selector, name, data, type]) => {
            const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, { type }));
            const element = document.querySelector(selector);
            const { left, top, width, height } = element.getBoundingClientRect();
            const place = { clientX: left + width / 2, clientY: top + height / 2 };
            const options = { bubbles: true, cancelable: true, dataTransfer, ...place };
            element.dispatchEvent(new DragEvent("drop", options));
        }""",
        [target, name, base64.b64encode(data).decode(), kind],
    )


def drawn_with(workflow: dict[str, Any]) -> bytes:
    """A picture as Save Image leaves it."""
    told, data = PngInfo(), BytesIO()
    told.add_text("workflow", json.dumps(workflow))
    Image.new("RGB", (8, 8)).save(data, format="png", pnginfo=told)
    return data.getvalue()
