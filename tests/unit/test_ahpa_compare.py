"""The comparison's command at its smallest, and what it measures with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from comfyui_calibri.demo.render import render
from comfyui_calibri.demo.scenes import sample_pairs
from comfyui_calibri.experiments.ahpa_compare import SMALL, compare, table
from comfyui_calibri.experiments.ahpa_measures import frechet
from comfyui_calibri.experiments.ahpa_pictures import Encoder, draw_pictures, render_large


def test_it_runs_is_not_run_twice_and_needs_ahpas_router_for_the_controls(tmp_path: Path) -> None:
    said: list[str] = []
    results = compare(tmp_path, SMALL, ("none", "reversed", "ahpa"), range(1), said.append)
    # AHPA first, whatever the order: the reversed router is its own.
    assert [line.split(",")[0] for line in said] == ["ahpa", "none", "reversed"]
    for result in results:
        (point,) = result["measured"]
        assert point["step"] == SMALL.steps
        assert all(np.isfinite(point[name]) for name in ("loss", "frechet", "facts"))
    assert np.allclose(np.sum(results[0]["router"], axis=1), 1, atol=1e-3)
    lines = table(results).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| ahpa", "| none", "| reversed"]
    said.clear()
    assert compare(tmp_path, SMALL, ("none", "reversed", "ahpa"), range(1), said.append) == results
    assert said == []


def test_the_frechet_distance_is_that_of_normal_distributions() -> None:
    random = np.random.default_rng(0)
    first = random.standard_normal((20_000, 3))
    second = random.standard_normal((20_000, 3)) * 2 + [1, 0, 0]
    assert frechet(first, first) == pytest.approx(0, abs=1e-6)
    assert frechet(first, second) == pytest.approx(1 + 3, rel=0.05)  # (2 − 1)² for each of three


def test_large_pictures_are_the_same_scenes() -> None:
    _, scene = next(sample_pairs(3, arranged=True))
    large, small = render_large(scene), render(scene)
    assert large.shape == (128, 128, 3)
    means = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(means - small).mean() < 2


def test_pictures_are_of_prompts_held_out_or_of_none_of_them() -> None:
    trained, held_out = draw_pictures(6, 1, held_out=False), draw_pictures(6, 1, held_out=True)
    assert not set(trained.prompts) & set(held_out.prompts)
    assert trained.batch([0, 1]).shape == (2, 3, 128, 128)


def test_the_encoders_stages_differ_in_width() -> None:
    shapes = []
    encoder = Encoder()
    for name in ("down.0.block.1", "down.1.block.1", "down.2.block.1", "mid.block_2"):
        encoder.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:]))
        )
    encoder(torch.rand(1, 3, 128, 128))
    assert shapes == [(16, 128, 128), (32, 64, 64), (64, 32, 32), (64, 16, 16)]
