"""A network as one file of plain PyTorch, and that file as a network again.

What is written is checked: the file is run, given the weights, and has to compute what the network does.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from nao_ray.errors import RunError
from nao_ray.export import writing
from nao_ray.export.cells import no_source
from nao_ray.export.macro import write_macro
from nao_ray.export.stacks import write_201, write_stack
from nao_ray.export.texts import write_language_model
from nao_ray.networks.cells_201 import CellStack
from nao_ray.networks.enas_macro import MacroStack
from nao_ray.networks.recurrent_network import RecurrentNetwork
from nao_ray.networks.stacks import ImageStack

TOKENS = 5
"""Of a text, in the batch that is compared."""
TOLERANCE = 1e-9
"""Of logits in float64, beside their largest."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A network in plain PyTorch."""

    text: str
    """The file."""
    network: nn.Module
    """What it makes, with the weights, in evaluation mode."""


def write_plain(
    network: nn.Module, example: Tensor, title: Sequence[str], *, weights: bool = True, extra: Sequence[str] = ()
) -> Plain:
    """A network of one of our skeletons, as its source.

    Args:
        network: as `Skeleton.build` makes it, with its weights.
        example: what it is called with, of which the shape alone matters.
        title: lines for the head of the file.
        weights: they will be in a file beside it.
        extra: further source, see `writing.source`.

    Raises:
        ConfigError: it has a part that no source is known for, as an operation of the user's own.
        RunError: the source would compute something else.
    """
    written = _written(network, example)
    text = writing.source(written, title, weights, extra)
    plain = load(text).to(next(network.parameters()).dtype)
    plain.load_state_dict(renamed(network.state_dict(), written))
    _check(network, plain, example)
    return Plain(text, plain.eval())


def renamed(tensors: Mapping[str, Tensor], written: writing.Written) -> dict[str, Tensor]:
    """Tensors of our network by the names that they have in the generated one."""
    return {written.rename(name): tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def load(text: str) -> nn.Module:
    """The network that a generated file makes, with fresh weights."""
    module = ModuleType("plain")
    module.__file__ = "plain.py"
    exec(compile(text, "plain.py", "exec"), vars(module))
    network: nn.Module = module.Network()
    return network


def _written(network: nn.Module, example: Tensor) -> writing.Written:
    if isinstance(network, RecurrentNetwork):
        return write_language_model(network)
    size = (example.shape[-2], example.shape[-1])
    if isinstance(network, ImageStack):
        return write_stack(network, size)
    if isinstance(network, CellStack):
        return write_201(network, size)
    if isinstance(network, MacroStack):
        return write_macro(network, size)
    raise no_source(f"a network of {type(network).__module__}:{type(network).__qualname__}")


def _check(network: nn.Module, plain: nn.Module, example: Tensor) -> None:
    """Both say the same of a made-up batch."""
    ours, theirs = (copy.deepcopy(each).cpu().double().eval() for each in (network, plain))
    batch = probe(network, example, 2)
    with torch.no_grad():
        expected, found = (first(each(batch)) for each in (ours, theirs))
    if not torch.allclose(expected, found, rtol=0, atol=TOLERANCE * max(1.0, expected.abs().max().item())):
        raise RunError(f"the source would not compute what {type(network).__qualname__} does: nothing was written")


def probe(network: nn.Module, example: Tensor, batch: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A made-up batch, the same every time: numbers between -2 and 2, or some tokens of the vocabulary."""
    if isinstance(network, RecurrentNetwork):
        return torch.arange(batch * TOKENS).mul(7).remainder(network.config.vocabulary).view(batch, TOKENS)
    shape = torch.Size((batch, *example.shape[1:]))
    return torch.arange(shape.numel(), dtype=torch.float64).mul(0.7).sin().mul(2).view(shape).to(dtype)


def first(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Logits among what a network returns."""
    return out if isinstance(out, Tensor) else out[0]
