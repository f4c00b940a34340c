"""A fitted controller: the members of an ensemble, and the scale their predictions are in.

Legend: `N` genotypes, `L` tokens per genotype, `M` members, `A` step sizes, `H` hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nao_ray.controllers.base import Floats, Steps
from nao_ray.controllers.epd import Epd, additive_mask
from nao_ray.controllers.targets import TargetScale
from nao_ray.spaces.base import SearchSpace, Tokens

_ROWS = 4096  # rows decoded at once: bounds memory, far above what fills the cores


class Ensemble:
    """One or more encoder-predictor-decoders fitted to the same scores."""

    def __init__(
        self, members: Sequence[Epd], scale: TargetScale, space: SearchSpace[Any], device: str = "cpu"
    ) -> None:
        self.members = tuple(member.to(device).eval() for member in members)
        self.scale = scale
        self.device = device
        self._mask = additive_mask(torch.from_numpy(space.token_mask).to(device))

    @torch.no_grad()
    def predict_each(self, tokens: Tokens) -> Floats:
        """Scores ``[M, N]`` predicted by each member for ``[N, L]`` tokens."""
        rows = [
            torch.stack([member.predict(member.embed(member.encode(chunk))) for member in self.members])
            for chunk in self._chunks(tokens)
        ]
        return self.scale.to_scores(torch.cat(rows, dim=1).double().cpu().numpy())

    def predict(self, tokens: Tokens) -> tuple[Floats, Floats]:
        """Mean ``[N]`` and deviation ``[N]`` over the members of the predicted scores."""
        each = self.predict_each(tokens)
        return each.mean(axis=0), each.std(axis=0)

    @torch.no_grad()
    def embed(self, tokens: Tokens) -> Floats:
        """``[N, H]``: the embedding of ``[N, L]`` tokens, by the first member."""
        first = self.members[0]
        points = [first.embed(first.encode(chunk)) for chunk in self._chunks(tokens)]
        return torch.cat(points).double().cpu().numpy()

    def choose(self, tokens: Tokens, count: int, pending: Tokens, spread_weight: float) -> list[int]:
        """The rows of the largest mean plus weighted spread; what is pending changes nothing."""
        mean, spread = self.predict(tokens)
        order = np.argsort(-(mean + spread_weight * spread), kind="stable")
        return [int(row) for row in order[:count]]

    def reconstruct(self, tokens: Tokens) -> Tokens:
        """Greedy decode ``[N, L]`` of the encoded tokens, by the first member."""
        first = self.members[0]
        with torch.no_grad():
            rows = [first.decode(first.encode(chunk), self._mask) for chunk in self._chunks(tokens)]
        return torch.cat(rows).cpu().numpy()

    def step(self, tokens: Tokens, step_sizes: Sequence[float], unit: bool = False) -> Steps:
        """One gradient step from each of ``[N, L]`` sources with each size, by each member, decoded.

        Rows are ordered by step size, then source, then member. `unit`: see `Epd.step`.
        """
        sizes = np.repeat(np.asarray(step_sizes, dtype=np.float64), len(tokens))
        sources = np.tile(np.arange(len(tokens)), len(step_sizes))
        decoded, points = [], []
        for member in self.members:
            per_chunk = [
                self._step(member, chunk, torch.from_numpy(sizes[at : at + _ROWS]).float().to(self.device), unit)
                for at, chunk in zip(range(0, len(sources), _ROWS), self._chunks(tokens[sources]), strict=True)
            ]
            decoded.append(np.concatenate([tokens for tokens, _ in per_chunk]))
            points.append(np.concatenate([point for _, point in per_chunk]))
        return Steps(
            tokens=np.stack(decoded, axis=1).reshape(-1, tokens.shape[1]),
            points=np.stack(points, axis=1).reshape(-1, points[0].shape[1]),
            sources=np.repeat(sources, len(self.members)),
            step_sizes=np.repeat(sizes, len(self.members)),
        )

    def _step(self, member: Epd, tokens: Tensor, sizes: Tensor, unit: bool) -> tuple[Tokens, Floats]:
        with torch.no_grad():
            memory = member.step(member.encode(tokens), sizes, unit)
            point = member.embed(memory)
        return member.decode(memory, self._mask).cpu().numpy(), point.double().cpu().numpy()

    def _chunks(self, tokens: Tokens) -> Iterator[Tensor]:
        for at in range(0, len(tokens), _ROWS):
            yield torch.from_numpy(tokens[at : at + _ROWS]).to(self.device)
