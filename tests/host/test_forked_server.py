"""The forked server is a real ComfyUI that dies and starts again quickly."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from .background_client import cached_nodes
from .background_fixtures import StartServer
from .background_graph import SEED_DECIDES, TINY, picture

pytestmark = pytest.mark.oldest


def test_it_draws_is_killed_and_draws_the_same_again(start_server: StartServer) -> None:
    server, client = start_server()
    pictures = []
    for _ in range(2):
        result = client.run(picture(TINY, seed=1))
        (shown,) = result.outputs["29"]["images"]
        pictures.append(Image.open(io.BytesIO(client.image(shown))).convert("RGB").tobytes())
        again = client.run(picture(TINY, seed=2))
        entry = client.get_json(f"/history/{again.prompt_id}")[again.prompt_id]
        assert cached_nodes(entry) == picture(TINY, 1).keys() - SEED_DECIDES
        server.kill()
        server.start()
        assert client.get_json("/history") == {}
    assert pictures[0] == pictures[1]
