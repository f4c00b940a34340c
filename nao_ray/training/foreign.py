"""Weights that the published code of DARTS has saved, as those of our networks of the same cells.

Liu, Simonyan, Yang, ICLR 2019, arXiv 1806.09055; the names of tensors are of its code. Its files of CIFAR-10 hold a
network's tensors by name, those of ImageNet an optimiser's beside them; of a training on several GPUs each name begins
with `module.`. Its trainings of recurrent cells saved the Python object instead, which is not read: that would run what
is in the file.

How large the network is follows from its tensors; its cells do not. An auxiliary head is left out, since none is
evaluated. Older PyTorch counts no batches in its norms: those counts may be missing.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nao_ray.errors import DataError
from nao_ray.networks.cells import Cell
from nao_ray.networks.ops import ConvNorm, ConvPair, DilatedSepConv, FactorizedReduce, SepConv
from nao_ray.networks.recurrent_network import RecurrentNetwork
from nao_ray.networks.stacks import ImageStack
from nao_ray.tasks.base import Shapes
from nao_ray.tasks.images.base import ImageShapes
from nao_ray.tasks.texts.base import TokenShapes

_COUNT = "num_batches_tracked"
_HEAD = "auxiliary_head."
_DECODER = "decoder.weight"
_CIFAR, _IMAGENET, _TEXT = "stem.0.weight", "stem0.0.weight", "encoder.weight"
_STEMS = {
    _CIFAR: {"conv": "stem.0", "norm": "stem.1"},
    _IMAGENET: {
        "conv0": "stem0.0",
        "norm0": "stem0.1",
        "conv1": "stem0.3",
        "norm1": "stem0.4",
        "conv2": "stem1.1",
        "norm2": "stem1.2",
    },
}
_PARTS: dict[type[nn.Module], dict[str, str]] = {  # the first class that fits
    FactorizedReduce: {"conv_even": "conv_1", "conv_odd": "conv_2", "norm": "bn"},
    SepConv: {
        "depthwise1": "op.1",
        "pointwise1": "op.2",
        "norm1": "op.3",
        "depthwise2": "op.5",
        "pointwise2": "op.6",
        "norm2": "op.7",
    },
    DilatedSepConv: {"depthwise": "op.1", "pointwise": "op.2", "norm": "op.3"},
    ConvPair: {"conv_row": "1", "conv_column": "2", "norm_column": "3"},
    ConvNorm: {"conv": "op.1", "norm": "op.2"},
}
"""By operation, the names of its parts: ours -> theirs."""

_SCALES = {  # mean and deviation of each channel, of values in [0, 1], that the published code normalises by
    "cifar10": ((0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@dataclass(frozen=True, slots=True)
class Saved:
    """A network that was saved."""

    where: str
    tensors: Mapping[str, Tensor]
    """By the names of the published code, of evaluation alone."""
    network: str
    """`cifar10`, `imagenet` or `text`."""
    size: Mapping[str, int]
    """`layers` and `channels`, or `hidden`."""
    outputs: int
    """Classes, or words."""

    @property
    def skeleton(self) -> str:
        """Of the spaces that its cells are of."""
        return "recurrent" if self.network == "text" else "darts"

    @property
    def recipe(self) -> str:
        """That it was trained by."""
        return {"cifar10": "darts_cifar10", "imagenet": "darts_imagenet", "text": "darts_ptb"}[self.network]

    @property
    def constants(self) -> dict[str, Tensor]:
        """As `Objective.constants`."""
        if self.network == "text":
            return {}
        mean, deviation = _SCALES[self.network]
        return {"normaliser.mean": torch.tensor(mean), "normaliser.std": torch.tensor(deviation)}

    def check(self, task: str, shapes: Shapes) -> None:
        """Refuse data that it was not trained for.

        Args:
            task: its name.
            shapes: of it.

        Raises:
            DataError: it is of another family, or has another number of classes or words.
        """
        if isinstance(shapes, TokenShapes) and self.network == "text":
            if shapes.vocabulary != self.outputs:
                raise DataError(
                    f"{self.where} knows {self.outputs:,} words, task {task} has {shapes.vocabulary:,}; --set "
                    "task.words=all takes those of all three texts, as the published code does"
                )
            return
        if not isinstance(shapes, ImageShapes) or self.network == "text":
            raise DataError(f"{self.where} holds a network of {self.told}, and task {task} has other data")
        if (shapes.network == "imagenet") != (self.network == "imagenet"):
            raise DataError(f"{self.where} holds a network of {self.network}, and task {task} is of {shapes.network}")
        if shapes.num_classes != self.outputs:
            raise DataError(f"{self.where} tells {self.outputs:,} classes, task {task} has {shapes.num_classes:,}")

    @property
    def told(self) -> str:
        """``20 layers, 36 channels, 10 classes``."""
        sizes = ", ".join(f"{number} {name}" for name, number in self.size.items())
        return f"{sizes}, {self.outputs:,} {'words' if self.network == 'text' else 'classes'}"


def read(path: str) -> Saved:
    """A file of DARTS's code; nothing in it is run.

    Raises:
        DataError: there is no such file, it is none of PyTorch or was cut off, holds more than tensors and numbers, or
            no network of DARTS's.
    """
    tensors = _tensors(_loaded(path), path)
    kind = next((name for name in (_CIFAR, _IMAGENET, _TEXT) if name in tensors), None)
    if kind is None:
        some = ", ".join(list(tensors)[:3]) or "none"
        raise DataError(
            f"{path}: not of DARTS's code: expected {_CIFAR} (CIFAR), {_IMAGENET} (ImageNet) or {_TEXT} (texts) among "
            f"its tensors, found {len(tensors)}: {some}"
        )
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(_HEAD)}
    if kind == _TEXT:
        return _recurrent(kept, path)
    cells = [int(match[1]) for name in kept if (match := re.match(r"cells\.(\d+)\.", name))]
    last = kept.get("classifier.weight")
    if not cells or last is None or kept[kind].dim() != 4:
        raise DataError(f"{path}: a stem of DARTS's code, but no cells and classifier behind it; it was cut off?")
    channels = len(kept[kind]) // 3 if kind == _CIFAR else 2 * len(kept[kind])
    network = "cifar10" if kind == _CIFAR else "imagenet"
    return Saved(path, kept, network, {"layers": max(cells) + 1, "channels": channels}, len(last))


def translated(saved: Saved, network: nn.Module, what: str) -> dict[str, Tensor]:
    """What `network.load_state_dict` takes.

    Args:
        saved: the file's.
        network: ours, of the same size, without an auxiliary head.
        what: the genotype, for messages.

    Raises:
        DataError: the file's tensors are not this network's; says which was expected and what was found.
    """
    wanted = network.state_dict()
    names = {_theirs(name, dict(_modules(network, saved))): name for name in wanted}
    expected = f"{saved.where}: not {what} of {saved.told}"
    for name in names:
        if name not in saved.tensors and not name.endswith(_COUNT):
            raise DataError(
                f"{expected}: {name} is missing ({len(names)} tensors expected, {len(saved.tensors)} found); of "
                "another genotype, or cut off?"
            )
    for name in sorted(saved.tensors.keys() - names.keys()):
        raise DataError(f"{expected}: {name} is none of its tensors; of another genotype?")
    for name, ours in names.items():
        if name in saved.tensors and saved.tensors[name].shape != wanted[ours].shape:
            shapes = f"{list(wanted[ours].shape)}, found {list(saved.tensors[name].shape)}"
            raise DataError(f"{expected}: {name} should have the shape {shapes}; of another genotype?")
    return {ours: saved.tensors.get(name, wanted[ours]) for name, ours in names.items()}


def _modules(network: nn.Module, saved: Saved) -> Iterator[tuple[str, str]]:
    """Names of modules and parameters that have tensors, ours and theirs."""
    if isinstance(network, RecurrentNetwork):
        yield from {"embedding": _TEXT, "decoder_bias": "decoder.bias", "w0": "rnns.0._W0"}.items()
        yield from ((f"nodes.{number}", f"rnns.0._Ws.{number}") for number in range(len(network.nodes)))
        return
    assert isinstance(network, ImageStack)
    stem = _STEMS[_CIFAR if saved.network == "cifar10" else _IMAGENET]
    yield from ((f"stem.{ours}", theirs) for ours, theirs in stem.items())
    yield "classifier", "classifier"
    for index, cell in enumerate(network.cells):
        assert isinstance(cell, Cell)
        pairs = [(f"calibrators.{number}", f"preprocess{number}", op) for number, op in enumerate(cell.calibrators)]
        edges = ((f"nodes.{n}.{e}", op) for n, node in enumerate(cell.nodes) for e, op in enumerate(node.children()))
        pairs += [(ours, f"_ops.{number}", op) for number, (ours, op) in enumerate(edges)]
        for ours, theirs, op in pairs:
            parts = next((parts for kind, parts in _PARTS.items() if isinstance(op, kind)), {})
            yield from ((f"cells.{index}.{ours}.{a}", f"cells.{index}.{theirs}.{b}") for a, b in parts.items())


def _theirs(name: str, modules: Mapping[str, str]) -> str:
    if name in modules:  # a parameter
        return modules[name]
    module, _, leaf = name.rpartition(".")
    return f"{modules[module]}.{leaf}"


def _loaded(path: str) -> object:
    where = Path(path).expanduser()
    if not where.is_file():
        raise DataError(f"{path}: there is no such file")
    try:
        return torch.load(where, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None:
            raise DataError(
                f"{path}: expected a file of torch.save, found {where.stat().st_size:,} other bytes"
            ) from None
        raise DataError(
            f"{path}: expected tensors by name, found an object {named[1]}, whose loading would run code; where that "
            "code is: torch.save(torch.load(FILE).state_dict(), NEW)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        size = f"{where.stat().st_size:,} bytes"
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: expected a file of torch.save, found {size} that cannot be read: {reason}") from None


def _tensors(found: object, path: str) -> dict[str, Tensor]:
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        kinds = sorted({type(value).__name__ for value in _values(found)})
        raise DataError(
            f"{path}: expected tensors by name, found {type(found).__name__} of {', '.join(kinds) or 'nothing'}"
        )
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _values(found: Any) -> list[Any]:  # noqa: ANN401
    if isinstance(found, Mapping):
        return list(found.values())
    return list(found) if isinstance(found, list | tuple) else [found]


def _recurrent(tensors: dict[str, Tensor], path: str) -> Saved:
    embedding, decoder = tensors[_TEXT], tensors.pop(_DECODER, None)
    if embedding.dim() != 2:
        raise DataError(f"{path}: {_TEXT} should have the shape [words, units], found {list(embedding.shape)}")
    if decoder is not None and not torch.equal(decoder, embedding):
        raise DataError(f"{path}: {_DECODER} is not {_TEXT}; expected one matrix for both, as published")
    words, hidden = embedding.shape
    return Saved(path, tensors, "text", {"hidden": hidden}, words)
