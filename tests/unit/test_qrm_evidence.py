"""Inspection, the estimate of memory, the demo's file and the ablation's command, small."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from comfyui_calibri.demo.model import Flux
from comfyui_calibri.demo.weights import DIT, WEIGHTS, load_into
from comfyui_calibri.experiments import qrm_ablation
from comfyui_calibri.experiments.qrm_report import MEASURES, summary
from comfyui_calibri.qrm.config import QRMConfig
from comfyui_calibri.qrm.figure_inspection import draw_inspection
from comfyui_calibri.qrm.files import check_qrm, load_qrm
from comfyui_calibri.qrm.inspection import Seen, inspect, rank_correlation
from comfyui_calibri.qrm.memory import Job, estimate, sentence
from comfyui_calibri.qrm.module import QRM

GIB = 2**30


def module(uses_prompt: bool) -> QRM:
    torch.manual_seed(0)
    made = QRM(QRMConfig.for_backbone(Flux(), 64 * uses_prompt, 64 * uses_prompt))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(".up"):
                parameter.normal_()
    return made.eval()


def prompts() -> list[Seen]:
    generator = torch.Generator().manual_seed(1)
    return [
        Seen(
            torch.randn(1, 4, 64, generator=generator),
            None,
            torch.randn(1, 64, generator=generator),
        )
        for _ in range(3)
    ]


def test_an_inspection_tells_a_constant_from_what_heeds_the_prompt() -> None:
    blind, seeing = (inspect(module(uses), [1.0, 0.5], prompts()) for uses in (False, True))
    assert blind.overall == pytest.approx(0.0, abs=1e-12)
    assert seeing.overall > 1e-4
    assert all(0 <= share <= 1 for share in seeing.between.values())
    assert seeing.size["image: attention gate"].shape == (3, 2)  # double blocks, levels
    assert seeing.size["joint: fused scale"].shape == (8, 2)
    assert seeing.blocks["joint: fused scale"][7] == "single.7"
    assert json.loads(json.dumps(seeing.record()))["levels"] == [1.0, 0.5]
    picture = draw_inspection(seeing, np.array([0.1, 0.2, 0.3]), "reward")
    assert picture.ndim == 3
    with pytest.raises(ValueError, match="at least two"):
        inspect(module(True), [1.0], prompts()[:1])


def test_ranks_are_compared_where_there_are_any() -> None:
    rising = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(rising, rising**3) == pytest.approx(1.0)
    assert rank_correlation(rising, -rising) == pytest.approx(-1.0)
    assert rank_correlation(rising, np.ones(4)) is None


def test_sd35_medium_at_512_is_estimated_to_fit_24_gb() -> None:
    job = Job(
        model_bytes=5 * 10**9,
        vae_bytes=168 * 10**6,
        reward_bytes=4 * GIB,
        module_parameters=22 * 10**6,
        blocks=24,
        hidden=1536,
        tokens=1024 + 333,
        pixels=512 * 512,
        rows=1,
        backward_steps=1,
    )
    assert sum(estimate(job).values()) < 24 * 10**9
    assert "GiB" in sentence(job)


def test_the_demos_qrm_fits_the_demo_and_tells_its_effect() -> None:
    file = load_qrm(WEIGHTS / "qrm" / "calibri-demo-qrm.safetensors")
    check_qrm(file, load_into(Flux(), DIT))
    effect = file.training["effect"]
    assert set(effect) == {"reward", "facts", "all_facts", "fit", "diversity"}
    assert effect["facts"]["change"]["low"] > 0
    assert file.licence == "Apache-2.0"


def test_the_ablation_runs_from_one_command_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["qrm_ablation", "--small", "--folder", str(tmp_path)])
    threads = torch.get_num_threads()
    try:
        qrm_ablation.main()
        lines = (tmp_path / "results.jsonl").read_text()
        qrm_ablation.main()
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "results.jsonl").read_text() == lines
    report = json.loads((tmp_path / "qrm-ablation.json").read_text())
    named = {row["row"] for row in report["rows"]}
    controls = {"constant vectors, full rank", "LoRA, rank 1", "prompts shuffled at inference"}
    assert named == {"Calibri alone", "QRM", "QRM + Calibri preset", *controls}
    assert (tmp_path / "images" / "qrm_gains.png").stat().st_size > 1000


def test_differences_over_trainings_have_an_interval_that_few_seeds_make_wide() -> None:
    prompts = np.array([0.0, 0.2, -0.2, 0.0])

    def row(name: str, group: str, seed: int, level: float) -> dict[str, object]:
        scores = dict.fromkeys(MEASURES, (prompts + level).tolist())
        return {"row": name, "group": group, "seed": seed, "scores": scores}

    found = [row("plain", "main", 0, 0.0)]
    found += [row("QRM", "main", seed, level) for seed, level in ((1, 1.0), (2, 1.2))]
    found += [row("other", "losses", seed, level) for seed, level in ((1, 1.5), (2, 1.7))]
    (other,) = (one for one in summary(found)["rows"] if one["row"] == "other")
    # Over prompts the same for all: no doubt. Over two seeds each: t of 2 degrees of freedom.
    assert other["against_qrm"]["reward"]["low"] == pytest.approx(0.5)
    seeds = other["against_qrm_over_seeds"]["reward"]
    assert seeds["mean"] == pytest.approx(0.5)
    assert seeds["low"] == pytest.approx(0.5 - 4.3027 * 0.02**0.5, abs=1e-3)
