"""Presets made by hand and from other presets: Edit, Blend and Convert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..calibri.coefficients import GRANULARITIES
from . import sockets
from .messages import show_on_node

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ..calibri.presets import Preset

MOST = 4  # presets in one blend; blends can be blended again
_SYNTAX = (
    "One rule a line, or with commas between: double.0-3.attention=0.8 sets, single.* *= 1.1 "
    "multiplies, * fits all, later rules win, # begins a comment."
)


class CalibriEdit(io.ComfyNode):
    """Sets coefficients by hand, and shows a preset as text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriEdit",
            display_name="Edit Calibri",
            category="Calibri/presets",
            **sockets.search_aliases(
                "block weights", "set coefficients", "scale layers", "edit preset"
            ),
            description="Sets coefficients by hand, of a preset or of the plain model, and shows "
            "them as text. What was measured for the preset is left out of the edited one.",
            inputs=[
                sockets.Preset.Input(
                    "preset", optional=True, tooltip="What is edited; without it the plain model."
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Whose coefficients are edited where no preset is linked.",
                ),
                io.Combo.Input(
                    "granularity",
                    options=list(GRANULARITIES),
                    default="gate",
                    tooltip="Without a preset: block, one coefficient for each block; layer, for "
                    "attention and MLP; gate, for image and text too. A preset keeps its own.",
                ),
                io.String.Input("rules", default="", multiline=True, tooltip=_SYNTAX),
            ],
            outputs=[
                sockets.Preset.Output(display_name="preset"),
                io.String.Output(
                    display_name="text", tooltip="The whole preset as rules, to read and to keep."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, rules: str | None) -> bool | str:
        from ..calibri.compact_text import CompactTextError, parse_rules

        if rules is None:  # linked; read when it is known
            return True
        try:
            parse_rules(rules)
        except CompactTextError as error:
            return f"rules: {error}"
        return True

    @classmethod
    def execute(
        cls,
        granularity: str,
        rules: str,
        preset: Preset | None = None,
        model: ModelPatcher | None = None,
    ) -> io.NodeOutput:
        from ..calibri.compact_text import parse_rules
        from ..calibri.editing import edit_preset, preset_text
        from ..calibri.presets import check_preset
        from .patching import backbone_of

        if preset is None:
            if model is None:
                raise ValueError(
                    "Edit Calibri has neither a preset nor a model: link one to edit, or both."
                )
            preset = _plain(model, granularity)
        elif model is not None:
            check_preset(preset, backbone_of(model))
        edited = edit_preset(preset, parse_rules(rules))
        text = preset_text(edited)
        show_on_node(cls.hidden, text)
        return io.NodeOutput(edited, text, ui={"calibri_edit": [_for_the_page(preset)]})


class CalibriBlendPresets(io.ComfyNode):
    """The weighted mean of presets."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        parts: list[io.Input] = []
        for i in range(1, MOST + 1):
            parts += [
                sockets.Preset.Input(f"preset_{i}", optional=i > 2, tooltip="A part of the blend."),
                io.Float.Input(
                    f"weight_{i}",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    tooltip="Its share of the sum of all weights: equal weights average.",
                ),
            ]
        return io.Schema(
            node_id="CalibriBlendPresets",
            display_name="Blend Calibri Presets",
            category="Calibri/presets",
            **sockets.search_aliases("merge presets", "average presets", "mix presets"),
            description="The weighted mean of presets for one model, coefficient by coefficient: "
            "a blend of two, or the average of several.",
            inputs=parts,
            outputs=[sockets.Preset.Output(display_name="preset")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, **parts: Any) -> io.NodeOutput:
        from ..calibri.editing import blend_presets

        linked = [i for i in range(1, MOST + 1) if parts.get(f"preset_{i}") is not None]
        blended = blend_presets(
            [parts[f"preset_{i}"] for i in linked],
            [parts.get(f"weight_{i}", 1.0) for i in linked],
        )
        show_on_node(cls.hidden, blended.title)
        return io.NodeOutput(blended)


class CalibriConvertPreset(io.ComfyNode):
    """A preset at another granularity."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriConvertPreset",
            display_name="Convert Calibri Preset",
            category="Calibri/presets",
            **sockets.search_aliases("change granularity", "block layer gate"),
            description="Brings a preset to another granularity. A finer one draws the same "
            "pictures; a coarser one takes means, and the node says how far off they are.",
            inputs=[
                sockets.Preset.Input("preset", tooltip="For this model."),
                io.Model.Input("model", tooltip="Says which coefficients there are."),
                io.Combo.Input(
                    "granularity",
                    options=list(GRANULARITIES),
                    default="gate",
                    tooltip="block: one coefficient for each block. layer: one for each attention "
                    "and MLP. gate: as layer, but image and text apart.",
                ),
            ],
            outputs=[sockets.Preset.Output(display_name="preset")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, preset: Preset, model: ModelPatcher, granularity: str) -> io.NodeOutput:
        from ..calibri.editing import convert_preset
        from .patching import backbone_of

        made = convert_preset(preset, backbone_of(model), granularity)
        counts = [len(p.members[0].coefficients) for p in (preset, made.preset)]
        text = f"{counts[0]} coefficients by {preset.granularity}, {counts[1]} by {granularity}: "
        if made.branch:
            text += (
                f"not the same. {made.branch} is furthest off, by {made.difference:.3g}; what was "
                "measured for the preset does not hold any more."
            )
        else:
            text += "exact, it draws the same."
        show_on_node(cls.hidden, text)
        return io.NodeOutput(made.preset)


def _for_the_page(preset: Preset) -> dict[str, Any]:
    """What is edited, for the bars on the node; fields as /calibri/presets/{name} has them."""
    names = list(preset.members[0].coefficients)
    return {
        "granularity": preset.granularity,
        "names": names,
        "values": [[member.coefficients[n] for n in names] for member in preset.members],
    }


def _plain(model: ModelPatcher, granularity: str) -> Preset:
    from ..calibri.editing import plain_preset
    from .identity import file_name, fingerprint_of
    from .patching import backbone_of

    base = file_name(model)
    return plain_preset(backbone_of(model), granularity, base, fingerprint_of(model))
