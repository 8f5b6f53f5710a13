"""The diffusers model that a vector of the official code describes, in float64.

A vector may come from a stranger. Its config is held against its weights before anything of the
config's size is allocated.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .official_vector import OfficialVector, OfficialVectorError
from .recorded_timesteps import RecordedTimesteps, settle_frequencies

# The config's numbers of blocks, and where the model has these.
_DEPTHS = {
    "num_layers": "transformer_blocks",
    "num_single_layers": "single_transformer_blocks",
}
# No number of a real config is larger: the largest are widths.
_LARGEST_NUMBER = 2**16
# Values that a model may hold beside its weights: tables of positions.
_MOST_BESIDE_WEIGHTS = 2**24
# What a call takes as a tensor.
_TENSORS = {
    "hidden_states",
    "encoder_hidden_states",
    "encoder_hidden_states_mask",
    "pooled_projections",
    "timestep",
    "img_ids",
    "txt_ids",
    "guidance",
    "additional_t_cond",
}
# A plain output is near enough at this share of its largest value: a tenth of what may differ.
_CLOSE = 1e-6


def make_model(vector: OfficialVector) -> nn.Module:
    """The vector's plain model. Its weights and `call`'s inputs are float64, so that no CPU's
    order of summing counts.

    Raises OfficialVectorError where config, weights and inputs do not fit together, and
    ImportError without diffusers.
    """
    import diffusers
    from diffusers.models.embeddings import Timesteps

    known: type[nn.Module] = getattr(diffusers, vector.model_class)
    _check_numbers(vector.config)
    _check_depths(vector)
    with torch.device("meta"):
        sketch = _construct(known, vector)
    _check_weights(sketch, vector)
    _check_inputs(sketch, vector)
    model = _construct(known, vector)
    model.load_state_dict(dict(vector.weights))
    for path, module in list(model.named_modules()):
        if isinstance(module, Timesteps):
            model.set_submodule(path, RecordedTimesteps(module))
    model = model.double().eval().requires_grad_(False)
    if vector.plain_output is not None:
        recorded = vector.plain_output.double()

        def difference() -> Tensor:
            plain = call(model, vector.inputs)
            # Of another shape it has nothing to be near to; the comparison will say so.
            return plain - recorded if plain.shape == recorded.shape else torch.zeros(1)

        settle_frequencies(model, difference, _CLOSE * float(recorded.abs().max()))
    return model


def call(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """The model's output on a vector's inputs, under the taps that are entered.

    Raises OfficialVectorError where the inputs make no call.
    """
    doubled = {name: _double(value) for name, value in inputs.items()}
    try:
        with torch.inference_mode():
            output: Tensor = model(**doubled, return_dict=False)[0]
    except Exception as error:  # whatever diffusers raises for inputs that do not fit
        raise OfficialVectorError(
            f"{type(model).__name__} cannot be called with the vector's inputs "
            f"({_first_line(error)}): use the files as they were recorded."
        ) from error
    return output


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _construct(known: type[nn.Module], vector: OfficialVector) -> nn.Module:
    try:
        return known(**vector.config)
    except Exception as error:  # whatever diffusers raises for a configuration
        raise OfficialVectorError(
            f"The vector's config does not make a {vector.model_class} ({_first_line(error)}): "
            "use the file as it was recorded."
        ) from error


def _check_numbers(held: Any) -> None:
    """Some sizes act in a call only, where no weight tells that they are wrong."""
    inner = held.values() if isinstance(held, Mapping) else held if isinstance(held, list) else ()
    for value in inner:
        _check_numbers(value)
    if isinstance(held, (int, float)) and not abs(held) <= _LARGEST_NUMBER:
        raise OfficialVectorError(
            f"The vector's config has the number {str(held)[:20]}, larger than "
            f"{_LARGEST_NUMBER}: use the file as it was recorded."
        )


def _check_depths(vector: OfficialVector) -> None:
    """Even a sketch of a million blocks takes hours."""
    for key, container in _DEPTHS.items():
        said = vector.config.get(key)
        found = {name.split(".")[1] for name in vector.weights if name.startswith(f"{container}.")}
        if type(said) is int and said != len(found):
            raise OfficialVectorError(
                f"The vector's config has {key} = {said} but its weights are those of "
                f"{len(found)} {container}: use the files as they were recorded."
            )


def _check_weights(sketch: nn.Module, vector: OfficialVector) -> None:
    expected = {name: tensor.shape for name, tensor in sketch.state_dict().items()}
    found = {name: tensor.shape for name, tensor in vector.weights.items()}
    for name in (*expected, *found):
        if expected.get(name) != found.get(name):
            problem = (
                "lacks the weight"
                if name not in found
                else "has the unknown weight"
                if name not in expected
                else f"has another shape than {tuple(expected[name])} for the weight"
            )
            raise OfficialVectorError(
                f"The vector {problem} {name!r} of its {vector.model_class}: use the files as they "
                "were recorded."
            )
    beside = sum(tensor.numel() for tensor in _held(sketch))
    if beside > sum(shape.numel() for shape in expected.values()) + _MOST_BESIDE_WEIGHTS:
        raise OfficialVectorError(
            f"The vector's config makes a {vector.model_class} with {beside} values, far more than "
            "its weights have: use the files as they were recorded."
        )


def _held(model: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and the tensors that modules keep as plain attributes."""
    for module in model.modules():
        attributes = itertools.chain(
            vars(module).values(), module._buffers.values(), module._parameters.values()
        )
        yield from (value for value in attributes if isinstance(value, Tensor))


def _check_inputs(sketch: nn.Module, vector: OfficialVector) -> None:
    accepted = inspect.signature(sketch.forward).parameters
    for name, value in itertools.chain(vector.inputs.items(), vector.unconditional.items()):
        if name not in accepted:
            raise OfficialVectorError(
                f"The vector has the input {name!r}, which this diffusers' {vector.model_class} "
                "does not take: use the diffusers version that the vector names."
            )
        if isinstance(value, Tensor) and name not in _TENSORS:
            raise OfficialVectorError(
                f"The vector has a tensor for the input {name!r} of {vector.model_class}, which "
                "takes none there: use the files as they were recorded."
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
