"""Tensors as the bytes of a safetensors file: reading them runs nothing that is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nao_ray.errors import DataError

if TYPE_CHECKING:  # what a header says is read without torch
    from torch import Tensor

_ABOUT = "nao_ray"
_LEGEND = "legend"
_VERSION_PARTS = {
    "network": "net",
    "momentum": "momentum",
    "alphas": "alphas",
    "adam": "adam",
    "alpha_carry": "alpha_carry",
}
"""Parts of a training's state that a version of shared weights keeps -> their names there."""


def pack(tensors: Mapping[str, Tensor], about: str | None = None) -> bytes:
    """The bytes of a safetensors file; `about` is a text kept in its header."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data: bytes = save(plain, metadata=None if about is None else {_ABOUT: about})
    return data


def read_about(data: bytes) -> str | None:
    """The text that `pack` was given; `data` are those of a file, or of its header, as `unpack` accepts it."""
    end = 8 + int.from_bytes(data[:8], "little")  # the length of the header, then the header: JSON
    about: str | None = json.loads(data[8:end]).get("__metadata__", {}).get(_ABOUT)
    return about


def with_legend(tensors: Mapping[str, Tensor], legend: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors and `Task.legend`: its JSON as a tensor of bytes, since a header is not made for a vocabulary."""
    import torch

    if not legend:
        return dict(tensors)
    return {**tensors, _LEGEND: torch.frombuffer(bytearray(json.dumps(legend).encode()), dtype=torch.uint8)}


def legend_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `with_legend` was given; empty where nothing was.

    Raises:
        DataError: it is none.
    """
    if _LEGEND not in tensors:
        return {}
    try:
        legend = json.loads(tensors[_LEGEND].numpy().tobytes())
    except ValueError as error:
        raise DataError(f"weights: what stands in {_LEGEND} is not JSON: {error}") from None
    if not isinstance(legend, dict):
        raise DataError(f"weights: what stands in {_LEGEND} is {type(legend).__name__}, expected an object of JSON")
    return legend


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with ``prefix.``, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def unpack(data: bytes) -> dict[str, Tensor]:
    """The tensors, on the CPU.

    Raises:
        DataError: the bytes are not those of a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(data)
    except SafetensorError as error:
        raise DataError(f"weights: not a whole safetensors file: {error}") from None
    return tensors


def pack_version(state: Mapping[str, Tensor], epochs_done: int) -> bytes:
    """A version of shared weights: what a `Trainer.state` of theirs holds at the end of an epoch."""
    import torch

    kept = {
        f"{short}.{name}": value for long, short in _VERSION_PARTS.items() for name, value in part(state, long).items()
    }
    return pack({**kept, "epochs_done": torch.tensor(epochs_done)})


def unpack_version(data: bytes) -> tuple[dict[str, Tensor], int]:
    """The state that `pack_version` was given, without its step, and the epochs done.

    Raises:
        DataError: the bytes are malformed, or no version.
    """
    tensors = unpack(data)
    if "epochs_done" not in tensors:
        raise DataError("weights: no epochs_done among them; they were not written by a training of shared weights")
    state = {
        f"{long}.{name}": value
        for long, short in _VERSION_PARTS.items()
        for name, value in part(tensors, short).items()
    }
    return state, int(tensors["epochs_done"])


def check_shapes(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors of another network.

    Raises:
        DataError: a tensor is missing, unknown, or has another shape.
    """
    for name in sorted(given.keys() ^ expected.keys()):
        raise DataError(f"weights: {name} is {'unknown here' if name in given else 'missing'}; of another network?")
    for name, tensor in given.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, expected {list(expected[name].shape)}"
            raise DataError(f"weights: {name} has shape {shapes}; of another network?")
