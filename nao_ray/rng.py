"""Randomness is an argument: a generator is named by (run seed, purpose, index).

Trial k draws the same numbers whatever finished before it, in any process. This is the only module that
makes generators or touches torch's global one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
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


def torch_state(device: torch.device) -> dict[str, torch.Tensor]:
    """States of torch's global generators, the CPU's and that of `device`, by device type; uint8 tensors on the CPU."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_torch_state(device: torch.device, states: Mapping[str, torch.Tensor]) -> None:
    """Put back what `torch_state` gave; to be called within `torch_seeded`."""
    import torch

    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


@contextmanager
def torch_seeded(run_seed: int, purpose: str, index: int = 0, device: torch.device | None = None) -> Iterator[None]:
    """Within the block torch's global generators (dropout, initialisers) are seeded; restored afterwards.

    `device`: the only one that draws within the block, which saves the time that all others take; None: any.
    """
    import torch

    seed = child_seed(run_seed, purpose, index)
    if device is None:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            yield
        return
    generator = torch.default_generator
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        generator = torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
