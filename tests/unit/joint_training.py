"""One of several processes that train TinySubject: joint_training.py PACKAGE_PARENT METHOD OUT.

Its place among them is in the environment, as torchrun puts it there. Each leaves what it has.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

STEPS = 3


def trained(method: str, processes: object) -> dict[str, dict[str, Tensor]]:
    """The first step's gradients, then all that must be in step after the last."""
    from ahpa_subject import LEVELS, TinySubject, features

    from comfyui_calibri.ahpa.methods import LEVELS as OF_LEVELS
    from comfyui_calibri.ahpa.methods import METHODS, used_levels
    from comfyui_calibri.ahpa.recipe import Recipe
    from comfyui_calibri.ahpa.training import Trainer

    recipe = Recipe(steps=STEPS, batch=4, warm_up=0, width=5, clip=0.0, accumulate=2, method=method)
    one = METHODS[method].target != OF_LEVELS
    trainer = Trainer(
        TinySubject(),
        recipe,
        used_levels(method, LEVELS),
        lambda rows: features(rows)[:, :1] if one else features(rows),
        processes=processes,
    )
    held = {f"model.{n}": p for n, p in trainer.subject.parameters.items()}
    if trainer.alignment is not None:
        held |= {f"alignment.{n}": p for n, p in trainer.alignment.named_parameters()}
    first: dict[str, Tensor] = {}

    def watch(run: Trainer) -> None:
        if run.loop.step == 1:
            first.update({n: p.grad.clone() for n, p in held.items() if p.grad is not None})

    trainer.train(watch)
    last = {n: p.detach().clone() for n, p in held.items()}
    last |= {f"average.{n}": value for n, value in trainer.averaged.items()}
    if trainer.alignment is not None:
        last["running"] = trainer.alignment.running.clone()
    said = {n: torch.tensor(v) for n, v in trainer.loop.history.values.items()}
    return {"gradients": first, "last": last, "said": said}


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.path[:0] = [sys.argv[1], str(Path(__file__).parent)]
    from comfyui_calibri.training.accelerated import Accelerated, join

    processes, device, _ = join(True, "float32")
    assert isinstance(processes, Accelerated)
    assert (processes.count, device.type) == (2, "cpu")
    done: list[int] = []
    processes.first(lambda: done.append(1))
    assert bool(done) == processes.main
    found = {method: trained(method, processes) for method in sys.argv[2].split(",")}
    torch.save(found, Path(sys.argv[3]) / f"{processes.index}.pt")
    processes.close()
