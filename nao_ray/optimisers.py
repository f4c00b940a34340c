"""torch's optimisers without its compiler, which each of them loads to be told that it is not compiled.

That takes 1.2 CPU seconds and 160 MB of every process that trains anything.
"""

from __future__ import annotations

from inspect import unwrap
from typing import TypeVar

import torch
from torch.optim import Optimizer

O = TypeVar("O", bound=Optimizer)  # noqa: E741


def _plain(kind: type[O]) -> type[O]:
    """The same steps, by the functions that torch wraps for the compiler."""
    step = torch.no_grad()(unwrap(kind.step))
    own = {"step": step, **{name: unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad")}}
    return type(kind.__name__, (kind,), own)


SGD = _plain(torch.optim.SGD)
Adam = _plain(torch.optim.Adam)
