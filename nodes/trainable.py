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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ..calibri.backbones import read_backbone
from ..calibri.taps import GainTaps
from ..calibri.vectors import Vectors
from .patching import WRAPPER_KEY, diffusion_model

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
_TENSOR = object()  # where a block's result holds one


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
        self._kept = _Kept(module)
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
            return _again(forward, self._taps, self._kept, own, args, kwargs)

        block.forward = checkpointed


class TrainableModel:
    """A private, frozen copy of a MODEL, its LoRAs in its weights, on the model's device.

    Made and called within `training_mode`. Raises NotTrainableError for a model with a preset or a
    QRM on it, whose effect would be trained away, and for one that cannot be copied.
    """

    def __init__(self, model: ModelPatcher, checkpointing: bool = True) -> None:
        if model.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY):
            raise NotTrainableError(
                "There is an Apply Calibri or Apply QRM on the model, and training begins at the "
                "plain one: connect the model from before it."
            )
        self._patcher = _own_copy(model)
        comfy.model_management.load_models_gpu([self._patcher], force_full_load=True)
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


class _Kept:
    """Saves copies for the backward pass, since blocks write into what they were given."""

    def __init__(self, model: nn.Module) -> None:
        # The weights are not written into, and copies of them would not fit.
        tensors = (*model.parameters(), *model.buffers())
        self._weights = {tensor.untyped_storage().data_ptr() for tensor in tensors}

    def copies(self) -> Any:
        return torch.autograd.graph.saved_tensors_hooks(self._copy, lambda tensor: tensor)

    def _copy(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            known = tensor.untyped_storage().data_ptr() in self._weights
            return tensor if known else tensor.clone()
        return tensor


def _again(
    forward: Callable[..., Any],
    taps: GainTaps,
    kept: _Kept,
    vectors: Vectors,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Call a block so that it is computed again for its gradients, with the same vectors."""
    values, shape = tree_flatten((args, kwargs, dict(vectors.add), dict(vectors.scale)))
    at = [index for index, value in enumerate(values) if isinstance(value, Tensor)]
    outputs: list[Any] = []  # what the first call gave, its tensors aside

    def run(tensors: Iterable[Tensor], again: bool) -> tuple[Tensor, ...]:
        filled = list(values)
        for index, tensor in zip(at, tensors, strict=True):
            filled[index] = tensor
        own_args, own_kwargs, add, scale = tree_unflatten(filled, shape)
        if again:
            with taps.scaled(None, Vectors(add, scale)), kept.copies():
                found = forward(*own_args, **own_kwargs)
        else:
            found = forward(*own_args, **own_kwargs)
        flat, result = tree_flatten(found)
        outputs[:] = [[_TENSOR if isinstance(value, Tensor) else value for value in flat], result]
        return tuple(value for value in flat if isinstance(value, Tensor))

    # Copies, so that the next block may write into what this one gave.
    tensors = (value.clone() for value in _Again.apply(run, *[values[index] for index in at]))
    given, result = outputs
    return tree_unflatten([next(tensors) if v is _TENSOR else v for v in given], result)


class _Again(torch.autograd.Function):
    """A block without activations: its backward pass computes it once more."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> Any:
        ctx.run = run
        ctx.wanted = [tensor.requires_grad for tensor in tensors]
        # Copies, because the block may write into its inputs.
        ctx.tensors = [tensor.detach().clone() for tensor in tensors]
        found = run(tensors, False)
        return tuple(value.clone() for value in found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        inputs = [
            tensor.requires_grad_(wanted and tensor.is_floating_point())
            for tensor, wanted in zip(ctx.tensors, ctx.wanted, strict=True)
        ]
        with torch.enable_grad():
            # Not the leaves themselves, in which a block may not add in place.
            found = ctx.run([t * 1 if t.requires_grad else t for t in inputs], True)
        pairs = [
            (value, gradient)
            for value, gradient in zip(found, gradients, strict=True)
            if gradient is not None and value.requires_grad
        ]
        targets = [tensor for tensor in inputs if tensor.requires_grad]
        values, given = zip(*pairs, strict=True) if pairs else ((), ())
        computed = iter(torch.autograd.grad(values, targets, given, allow_unused=True))
        return None, *(next(computed) if t.requires_grad else None for t in inputs)


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


def _own_copy(model: ModelPatcher) -> ModelPatcher:
    """A patcher of a model of its own, with the LoRAs of `model`."""
    clones_deeply = "force_deepcopy" in inspect.signature(model.clone).parameters
    if clones_deeply and model.cached_patcher_init is not None:
        return model.clone(force_deepcopy=True)  # loaded anew from its files
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
