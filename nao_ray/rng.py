"""Randomness is an argument: a generator is named by (run seed, purpose, index).

Trial k draws the same numbers whatever finished before it, in any process. This is the only module that
makes generators or touches torch's global one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def _sequence(run_seed: int, purpose: str, index: int) -> np.random.SeedSequence:
    digest = hashlib.sha256(purpose.encode()).digest()
    return np.random.SeedSequence([run_seed, int.from_bytes(digest[:8], "little"), index])


def child(run_seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """The generator of one purpose, e.g. ``child(seed, "proposal", k)``; both numbers are >= 0."""
    return np.random.default_rng(_sequence(run_seed, purpose, index))


def child_seed(run_seed: int, purpose: str, index: int = 0) -> int:
    """A seed in [0, 2**31) for one purpose, for libraries that want a number."""
    return int(_sequence(run_seed, purpose, index).generate_state(1)[0] >> 1)


def torch_generator(run_seed: int, purpose: str, index: int = 0, device: str = "cpu") -> torch.Generator:
    """As `child`, for torch, on `device`."""
    import torch

    return torch.Generator(device=device).manual_seed(child_seed(run_seed, purpose, index))


@contextmanager
def torch_seeded(run_seed: int, purpose: str, index: int = 0) -> Iterator[None]:
    """Within the block torch's global generators (dropout, initialisers) are seeded; restored afterwards."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(child_seed(run_seed, purpose, index))
        yield
