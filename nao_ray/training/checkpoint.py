"""Tensors in a safetensors file: read without running anything in it, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from nao_ray.errors import DataError


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensors`; a file of that name is replaced only by a whole one."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, draft, dict(metadata))
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)


def load_tensors(path: Path, keys: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, on the CPU, and its metadata, which must have `keys`.

    Raises:
        DataError: the file is missing, malformed, or has not the metadata.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DataError(f"weights {path}: cannot be read: {error}") from None
    missing = [key for key in keys if key not in metadata]
    if missing:
        raise DataError(f"weights {path}: no {', '.join(missing)} in its metadata; it was not written by a training")
    return tensors, metadata


def check_shapes(path: Path, given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors of another network.

    Raises:
        DataError: a tensor is missing, unknown, or has another shape.
    """
    for name in sorted(given.keys() ^ expected.keys()):
        raise DataError(f"weights {path}: {name} is {'unknown here' if name in given else 'missing'}; another network?")
    for name, tensor in given.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, expected {list(expected[name].shape)}"
            raise DataError(f"weights {path}: {name} has shape {shapes}; another network?")
