"""Rewards as nodes."""

from __future__ import annotations

from comfy_api.latest import io

from . import folders, sockets


class CalibriDemoReward(io.ComfyNode):
    """The learned reward that comes with the demo model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriDemoReward",
            display_name="Demo Reward",
            category="Calibri/demo",
            description="Scores how well a 64 × 64 picture shows its prompt, by the small learned "
            "reward of Calibri's demo model. It reads prompts in the demo's words only.",
            outputs=[sockets.Reward.Output(display_name="reward")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from ..demo.reward import DemoReward

        if not folders.DEMO_REWARD.is_file():
            raise ValueError(
                f"The demo's reward is not at {folders.DEMO_REWARD}; restore it with "
                "'git checkout demo/weights' in the pack's folder."
            )
        return io.NodeOutput(DemoReward.load(folders.DEMO_REWARD))
