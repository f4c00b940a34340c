"""What the NAO strategy needs of a fitted controller, whatever its predictor is.

Legend: `M` genotypes, `L` tokens per genotype, `R` decoded rows, `H` hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nao_ray.spaces.base import Tokens

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Steps:
    """Decoded steps in embedding space, ``R`` rows."""

    tokens: Tokens
    """``[R, L]``."""
    points: Floats
    """``[R, H]``: the points e' the rows were decoded from."""
    sources: NDArray[np.int64]
    """``[R]``: row of the source."""
    step_sizes: Floats
    """``[R]``."""


class Controller(Protocol):
    """Predicts scores, and steps from good architectures to better ones."""

    def predict(self, tokens: Tokens) -> tuple[Floats, Floats]:
        """Mean ``[M]`` and spread ``[M]`` of the predicted scores of ``[M, L]`` tokens, in units of the scores.

        The spread is 0 where the predictor knows none.
        """
        ...

    def embed(self, tokens: Tokens) -> Floats:
        """``[M, H]``: the embedding e of ``[M, L]`` tokens."""
        ...

    def step(self, tokens: Tokens, step_sizes: Sequence[float], unit: bool) -> Steps:
        """One gradient step from each of ``[M, L]`` sources with each size, decoded; by size, then source.

        `unit`: a size is in lengths of the encoder's outputs (unit vectors), not in raw gradients.
        """
        ...

    def choose(self, tokens: Tokens, count: int, pending: Tokens, spread_weight: float) -> list[int]:
        """Up to `count` rows of ``[M, L]`` tokens, best first; `pending` ``[P, L]`` is asked and not yet measured."""
        ...


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch uses one thread, so that sums come out the same, bit for bit, in any process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
