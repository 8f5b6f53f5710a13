"""The comparison's command at its smallest, and what it measures with."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from comfyui_calibri.demo.render import render
from comfyui_calibri.demo.scenes import sample_pairs
from comfyui_calibri.experiments import ahpa_lora
from comfyui_calibri.experiments.ahpa_compare import REFERENCE, SMALL, compare
from comfyui_calibri.experiments.ahpa_measures import frechet
from comfyui_calibri.experiments.ahpa_pictures import Encoder, draw_pictures, render_large
from comfyui_calibri.experiments.ahpa_report import summary, write_report


def test_it_runs_is_not_run_twice_and_needs_ahpas_router_for_the_controls(tmp_path: Path) -> None:
    said: list[str] = []
    results = compare(tmp_path, SMALL, ("none", "reversed", "ahpa"), range(1), said.append)
    # AHPA first, whatever the order: the reversed router is its own.
    assert [line.split(",")[0] for line in said] == ["ahpa", "none", "reversed"]
    for result in results:
        (point,) = result["measured"]
        assert point["step"] == SMALL.steps
        assert np.isfinite([point["loss"], *result["drawn"].values()]).all()
    assert np.allclose(np.sum(results[0]["router"], axis=1), 1, atol=1e-3)
    best = json.loads((tmp_path / REFERENCE).read_text())
    assert best["facts"] >= 0
    lines = write_report(results, asdict(SMALL), best, tmp_path).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| ahpa", "| none", "| reversed"]
    assert (tmp_path / "images" / "ahpa_compare.png").stat().st_size > 10_000
    said.clear()
    assert compare(tmp_path, SMALL, ("none", "reversed", "ahpa"), range(1), said.append) == results
    assert said == []
    with pytest.raises(ValueError, match="other sizes or steps"):
        compare(tmp_path, replace(SMALL, steps=3), ("none",), range(1))


def _run(method: str, seed: int, *losses: float) -> dict[str, object]:
    points = [{"step": 10 * i, "loss": loss} for i, loss in enumerate(losses, 1)]
    run: dict[str, object] = {"method": method, "seed": seed, "measured": points, "seconds": 1.0}
    return run | {"drawn": {"frechet": 2.0, "facts": 0.5}, "training": [0.5]}


def test_methods_are_compared_within_seeds_and_reach_plains_end_on_a_line() -> None:
    runs = [_run("none", 0, 0.9, 0.5), _run("none", 1, 0.8, 0.7)]
    runs += [_run("ahpa", 0, 0.6, 0.4), _run("ahpa", 1, 0.9, 0.8)]
    ours, plain = summary(runs, {})["rows"]
    assert (ours["method"], plain["method"]) == ("ahpa", "none")
    assert ours["against none"]["loss"]["mean"] == pytest.approx(0)  # −0.1 and +0.1
    assert ours["against none"]["loss"]["high"] == pytest.approx(0.1 * 12.706, rel=1e-3)
    assert ours["share of plain's steps"] == [pytest.approx(0.75), None]


def test_loras_of_all_methods_begin_alike_and_are_compared_with_the_plain_one() -> None:
    found = {method: [ahpa_lora.run(method, 0, ahpa_lora.SMALL)] for method in ("none", "ahpa")}
    plain, ours = (courses[0] for courses in found.values())
    assert [point["step"] for point in plain] == [0, ahpa_lora.SMALL.steps]
    assert plain[0] == ours[0]
    assert plain[-1] != ours[-1]
    twice = {name: [*courses, *courses] for name, courses in found.items()}
    gap = ahpa_lora.summary(twice, ahpa_lora.SMALL)["minus plain"]["ahpa"]["mean"]
    assert gap == pytest.approx(ours[-1]["loss"] - plain[-1]["loss"])


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
