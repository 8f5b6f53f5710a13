"""An analysis as JSON, in words, and as pictures of any model's size."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from comfyui_calibri.calibri.analysis import Analysis
from comfyui_calibri.calibri.analysis_report import build_analysis_report, describe_analysis
from comfyui_calibri.calibri.figure_analysis import draw_heat_map
from comfyui_calibri.calibri.figure_block_curves import draw_curves
from comfyui_calibri.calibri.selection import Interval
from comfyui_calibri.calibri.skip_layers import suggest_layers

SCALES = (0.0, 1.5)
NAMES = ("double.0", "single.0", "single.1")
GAIN = np.array([[-2.0, 0.25], [-0.5, 0.0], [0.1, -1.0]])


def analysis(names: tuple[str, ...], gain: np.ndarray, scales: tuple[float, ...]) -> Analysis:
    return Analysis(
        names=names,
        scales=scales,
        plain=Interval(-0.4, -0.5, -0.3),
        gain=gain,
        low=gain - 0.2,
        high=gain + 0.2,
        prompts=8,
        images_per_prompt=2,
        images=112,
        seconds=3.5,
    )


SMALL = analysis(NAMES, GAIN, SCALES)


def test_the_numbers_are_json_with_a_gain_for_each_coefficient_and_scale() -> None:
    suggestion = suggest_layers(SMALL, "flux", "block", NAMES)
    record = {"kind": "analysis", "prompts": ["a"] * 8, "names": list(NAMES), "seed": 4}
    report = json.loads(json.dumps(build_analysis_report(SMALL, record, suggestion)))
    assert report["run"] == {"kind": "analysis", "prompts": 8, "seed": 4, "images_per_prompt": 2}
    assert report["coefficients"]["double.0"][1] == {
        "scale": 1.5,
        "gain": 0.25,
        "low": pytest.approx(0.05),
        "high": pytest.approx(0.45),
    }
    assert report["skip_layer_guidance"]["single_layers"] == "0"
    assert report["counts"] == {"images": 112, "seconds": 3.5}


def test_the_words_name_the_ends_and_that_the_best_was_chosen() -> None:
    words = describe_analysis(SMALL, "sharpness", suggest_layers(SMALL, "flux", "block", NAMES))
    assert "Most is lost by double.0 at 0 (-2, 95 % band -2.2 to -1.8)" in words
    assert "most gained by double.0 at 1.5 (+0.25," in words
    assert "best of 6" in words
    assert "expect less" in words
    assert "Skip Layer Guidance: single_layers 0. Without each" in words


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape != other.shape or bool((one != other).any())


def test_pictures_show_the_gains() -> None:
    changed = analysis(NAMES, GAIN + 0.3, SCALES)
    assert differ(draw_heat_map(SMALL, "r"), draw_heat_map(changed, "r"))
    assert differ(draw_curves(SMALL, "r"), draw_curves(changed, "r"))
    ringed = draw_curves(SMALL, "r", suggest_layers(SMALL, "flux", "block", NAMES))
    assert differ(ringed, draw_curves(SMALL, "r"))


@pytest.mark.parametrize(
    ("size", "unit"), [(1.0, "gain,"), (0.004, "gain × 1,000,"), (3e-5, "gain × 100,000,")]
)
def test_gains_of_any_size_are_written_out(
    size: float, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def text(self: Axes, x: float, y: float, said: str, **style: Any) -> Artist:
        written.append(said)
        return Artist()

    monkeypatch.setattr(Axes, "text", text)
    monkeypatch.setattr(Axes, "set_ylabel", lambda self, said, **style: written.append(said))
    draw_heat_map(analysis(NAMES, GAIN * size, SCALES), "r")
    numbers = [float(s.replace("−", "-")) for s in written if re.fullmatch(r"[+−]?[\d.]+", s)]
    assert any(said.startswith(unit) for said in written)
    assert len(numbers) == GAIN.size
    assert np.abs(numbers).max() >= 1
    assert numbers.count(0) == 1


def test_better_is_blue_and_worse_is_red() -> None:
    for gain, colour in ((1.0, 2), (-1.0, 0)):
        one = analysis(("single.0",), np.array([[gain]]), (0.5,))
        picture = draw_heat_map(one, "r").astype(int)
        height, width = picture.shape[:2]
        # Beside the number in the middle of the only cell.
        cell = picture[height * 2 // 3 - 20 : height * 2 // 3, width // 3]
        strongest = cell[np.abs(cell[:, 0] - cell[:, 2]).argmax()]
        assert strongest.argmax() == colour


@pytest.mark.parametrize(
    ("names", "scales", "width"),
    [
        (tuple(f"joint.{i}" for i in range(17)), (0.0,), 1000),
        (
            tuple(
                f"double.{i}.{branch}.{stream}"
                for i in range(13)
                for branch in ("attention", "mlp")
                for stream in ("image", "text")
            )
            + tuple(f"single.{i}.fused.joint" for i in range(13)),
            (0.5, 1.1),
            1400,
        ),
        (("layer.0.attention", "layer.0.mlp"), (0.9,), 1000),
    ],
)
def test_any_model_and_scales_can_be_drawn(
    names: tuple[str, ...], scales: tuple[float, ...], width: int
) -> None:
    gain = np.random.default_rng(0).standard_normal((len(names), len(scales)))
    found = analysis(names, gain, scales)
    for picture in (draw_heat_map(found, "a $reward$"), draw_curves(found, "a $reward$")):
        assert picture.dtype == np.uint8
        assert picture.shape[1:] == (width, 3)
        assert picture.std() > 1


def test_an_analysis_without_any_effect_can_be_drawn() -> None:
    found = analysis(NAMES, np.zeros_like(GAIN), SCALES)
    assert draw_heat_map(found, "r").std() > 1
