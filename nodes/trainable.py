"""A frozen model that gradients flow through, inside a node: a private copy that is put right.

Nodes run in inference mode. Weights that loaders made there are inference tensors, which no
gradient can use; ComfyUI's fused rotary embeddings have no gradient unless `in_training` is set;
and blocks that add to their streams in place overwrite what a gradient needs. So training works on
a copy with weights of its own, saves copies of what the backward pass will look at, and computes
blocks again in it rather than keep their activations.
"""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..calibri.backbones import read_backbone
from ..calibri.taps import GainTaps
from ..calibri.vectors import Vectors
from .block_recomputation import Kept, computed_again
from .managed_reward import ManagedReward
from .patching import WRAPPER_KEY, diffusion_model
from .resident import let_go, load_to_stay

if TYPE_CHECKING:
    from comfy.model_base import BaseModel
    from comfy.model_patcher import ModelPatcher

# Families in whose code gradients end, and why (tests/host/test_nodes_trainable.py).
WITHOUT_GRADIENTS = {
    "anima": "a fused operation of its blocks has no gradient",
    "cosmos-predict2": "a fused operation of its blocks has no gradient",
    "ernie-image": "a fused operation of its blocks has no gradient",
    "hidream": "its blocks choose among experts, which no gradient sees",
    "hidream-o1": "its blocks compute in place",
    "joyimage": "a fused operation of its blocks has no gradient",
}


class NotTrainableError(ValueError):
    """Nothing can be trained on this model."""


@contextmanager
def training_mode() -> Iterator[None]:
    """Out of a node's inference mode, with ComfyUI's operations told to have gradients."""
    has_flag = hasattr(comfy.model_management, "in_training")  # v0.3.64 needs and knows none
    before = getattr(comfy.model_management, "in_training", False)
    with torch.inference_mode(False), torch.enable_grad():
        try:
            if has_flag:
                comfy.model_management.in_training = True
            yield
        finally:
            ManagedReward.with_gradient.clear()
            if has_flag:
                comfy.model_management.in_training = before


class TrainableModule:
    """A private, frozen diffusion model whose calls gradients pass through, to QRM's vectors.

    With `checkpointing` its blocks keep nothing but their inputs for the backward pass. Made and
    called within `training_mode`. Raises NotTrainableError for `WITHOUT_GRADIENTS`.
    """

    def __init__(self, module: nn.Module, checkpointing: bool = True) -> None:
        self.module = module
        self.backbone = read_backbone(module)
        if self.backbone.family in WITHOUT_GRADIENTS:
            raise NotTrainableError(
                f"Models of the family {self.backbone.family} cannot be trained on in ComfyUI: "
                f"{WITHOUT_GRADIENTS[self.backbone.family]}. Use a model of another family."
            )
        own_weights(module)
        module.requires_grad_(False)
        self._taps = GainTaps(module, self.backbone)
        self._vectors: Vectors | None = None
        self._kept = Kept(module)
        if checkpointing:
            for path in _blocks(tap.module for tap in self.backbone.taps):
                self._compute_again(path)

    @contextmanager
    def changed(self, vectors: Vectors | None) -> Iterator[None]:
        """Within it, calls of the module have the vectors and leave what gradients need."""
        self._vectors = vectors
        try:
            with self._taps.scaled(None, vectors), self._kept.copies():
                yield
        finally:
            self._vectors = None

    def _compute_again(self, path: str) -> None:
        """Have a block keep nothing but its inputs for the backward pass."""
        block = self.module.get_submodule(path)
        forward = block.forward

        def checkpointed(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            own = _below(self._vectors, path)
            return computed_again(forward, self._taps, self._kept, own, args, kwargs)

        block.forward = checkpointed


class TrainableModel:
    """A private, frozen copy of a MODEL, its LoRAs in its weights, on its device until closed.

    Made and called within `training_mode`. Raises NotTrainableError for a model with a preset or a
    QRM on it, whose effect would be trained away, and for one that cannot be copied.
    """

    def __init__(self, model: ModelPatcher, checkpointing: bool = True) -> None:
        if model.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY):
            raise NotTrainableError(
                "There is an Apply Calibri or Apply QRM on the model, and training begins at the "
                "plain one: connect the model from before it."
            )
        self._patcher = own_copy(model)
        load_to_stay(self._patcher)
        self.model: BaseModel = self._patcher.model
        own_weights(self.model)
        self.device: torch.device = model.load_device
        self.inner = TrainableModule(diffusion_model(self._patcher), checkpointing)
        self._options = dict(self._patcher.model_options.get("transformer_options", {}))

    def __call__(
        self, x: Tensor, sigma: Tensor, conds: dict[str, Any], vectors: Vectors | None
    ) -> Tensor:
        """The model's x0 for latents [B, ...] at `sigma` [B]; gradients reach x and `vectors`."""
        own = {name: tree_map(_own, value) for name, value in conds.items()}
        with self.inner.changed(vectors):
            out: Tensor = self.model.apply_model(
                x, sigma, transformer_options=dict(self._options), **own
            )
        return out

    def close(self) -> None:
        """Give its memory back."""
        let_go(self.model)


def own_weights(module: nn.Module) -> None:
    """Give a private module ordinary tensors: gradients cannot pass through inference tensors."""
    for part in module.modules():
        for name, parameter in list(part._parameters.items()):
            if parameter is not None and parameter.is_inference():
                part._parameters[name] = nn.Parameter(parameter.data.clone(), requires_grad=False)
        for name, buffer in list(part._buffers.items()):
            if buffer is not None and buffer.is_inference():
                part._buffers[name] = buffer.clone()
        for name, value in list(vars(part).items()):
            if isinstance(value, Tensor) and value.is_inference():
                setattr(part, name, value.clone())


def own_copy(model: ModelPatcher) -> ModelPatcher:
    """A patcher of a model of its own, with the LoRAs of `model`."""
    clones_deeply = "force_deepcopy" in inspect.signature(model.clone).parameters
    if clones_deeply and model.cached_patcher_init is not None:
        # Loaded anew from its files, as a whole rather than layer by layer when they are needed.
        return model.clone(disable_dynamic=True, force_deepcopy=True)
    if getattr(model, "is_dynamic", lambda: False)():
        raise NotTrainableError(
            "The model was not loaded by one of ComfyUI's own loaders, so no copy of it can be "
            "loaded for training: load it with Load Diffusion Model or Load Checkpoint."
        )
    # With its weights and LoRAs in place; the copy has them as they then are.
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    module = copied(model.model)
    made = comfy.model_patcher.ModelPatcher(module, model.load_device, model.offload_device)
    made.model_options = comfy.model_patcher.create_model_options_clone(model.model_options)
    return made


def copied(module: nn.Module) -> nn.Module:
    """A deep copy without the patcher that a model knows; its configuration is shared."""
    memo: dict[int, Any] = {}
    config = getattr(module, "model_config", None)
    if config is not None:
        memo[id(config)] = config  # it cannot be copied: it has an answer to every name
    patcher = getattr(module, "current_patcher", None)
    if patcher is not None:
        memo[id(patcher)] = None
    for value in vars(module).values():
        if isinstance(value, weakref.ReferenceType):
            memo[id(value)] = value
    return copy.deepcopy(module, memo)


def _blocks(paths: Iterable[str]) -> list[str]:
    """The blocks that hold these modules: "double_blocks.0" of "double_blocks.0.img_mod.lin"."""
    found: dict[str, None] = {}
    for path in paths:
        names = path.split(".")
        numbers = [at for at, name in enumerate(names) if name.isdigit()]
        if numbers:
            found[".".join(names[: numbers[0] + 1])] = None
    return list(found)


def _below(vectors: Vectors | None, path: str) -> Vectors:
    if vectors is None:
        return Vectors()
    under = f"{path}."
    return Vectors(
        {p: v for p, v in vectors.add.items() if p.startswith(under)},
        {p: v for p, v in vectors.scale.items() if p.startswith(under)},
    )


def _own(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value
