"""Tensors as the bytes of a safetensors file: reading them runs nothing that is in them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nao_ray.errors import DataError


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a safetensors file."""
    from safetensors.torch import save

    data: bytes = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    return data


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
