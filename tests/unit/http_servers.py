"""Reward servers of the tests, and the reward that asks them."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import torch

from comfyui_calibri.rewards.declarations import ServerDeclaration
from comfyui_calibri.rewards.external_reward import ExternalReward, external_reward

GREYS = torch.tensor([0.0, 0.2, 1.0]).view(3, 1, 1, 1).expand(3, 4, 6, 3)
PROMPTS = ["a", "b", "c"]


def quiet(*_: object) -> None:
    """A report that never gives up."""


def reward_at(port: int, **settings: Any) -> ExternalReward:
    url = f"http://127.0.0.1:{port}/score"
    declared = {"kind": "http", "licence": "MIT", "url": url, "timeout": 5, "retries": 2}
    declaration = ServerDeclaration.model_validate({**declared, **settings})
    return external_reward("Far", declaration, Path(), quiet)


JSON = {"Content-Type": "application/json"}
GOOD = (200, JSON, b'{"scores": [0.5, 0.25, 1]}')


class Answering(BaseHTTPRequestHandler):
    """Answers what a test gives it, in turn; the last answer again and again."""

    answers: list[tuple[int, dict[str, str], bytes]]
    bodies: list[dict[str, Any]]
    seen: list[dict[str, str]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append(json.loads(body))
        self.seen.append(dict(self.headers))
        status, headers, body = self.answers[min(len(self.bodies), len(self.answers)) - 1]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""
