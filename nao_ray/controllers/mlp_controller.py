"""The published controller, fitted: encoder, predictor and decoder learnt together, and the scale of the predictions.

Legend: `M` genotypes, `L` tokens per genotype, `H` hidden.
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


class MlpController:
    """A fitted encoder-predictor-decoder. It knows no spread: that of every prediction is 0."""

    def __init__(self, epd: Epd, scale: TargetScale, space: SearchSpace[Any], device: str = "cpu") -> None:
        self.epd = epd.to(device).eval()
        self.scale = scale
        self.device = device
        self._mask = additive_mask(torch.from_numpy(space.token_mask).to(device))

    @torch.no_grad()
    def predict(self, tokens: Tokens) -> tuple[Floats, Floats]:
        """Predicted scores ``[M]`` of ``[M, L]`` tokens, in units of the scores, and zeros ``[M]``."""
        rows = [self.epd.predict(self.epd.embed(self.epd.encode(chunk))) for chunk in self._chunks(tokens)]
        scores = self.scale.to_scores(torch.cat(rows).double().cpu().numpy())
        return scores, np.zeros_like(scores)

    @torch.no_grad()
    def embed(self, tokens: Tokens) -> Floats:
        """``[M, H]``: the embedding of ``[M, L]`` tokens."""
        points = [self.epd.embed(self.epd.encode(chunk)) for chunk in self._chunks(tokens)]
        return torch.cat(points).double().cpu().numpy()

    def choose(self, tokens: Tokens, count: int, pending: Tokens, spread_weight: float) -> list[int]:
        """The rows of the largest predictions; without a spread its weight, and what is pending, change nothing."""
        order = np.argsort(-self.predict(tokens)[0], kind="stable")
        return [int(row) for row in order[:count]]

    @torch.no_grad()
    def reconstruct(self, tokens: Tokens) -> Tokens:
        """Greedy decode ``[M, L]`` of the encoded tokens."""
        rows = [self.epd.decode(self.epd.encode(chunk), self._mask) for chunk in self._chunks(tokens)]
        return torch.cat(rows).cpu().numpy()

    def step(self, tokens: Tokens, step_sizes: Sequence[float], unit: bool) -> Steps:
        """One gradient step from each of ``[M, L]`` sources with each size, decoded; by size, then source."""
        sizes = np.repeat(np.asarray(step_sizes, dtype=np.float64), len(tokens))
        sources = np.tile(np.arange(len(tokens)), len(step_sizes))
        decoded, points = [], []
        for at, chunk in zip(range(0, len(sources), _ROWS), self._chunks(tokens[sources]), strict=True):
            etas = torch.from_numpy(sizes[at : at + _ROWS]).float().to(self.device)
            with torch.no_grad():
                memory = self.epd.step(self.epd.encode(chunk), etas, unit)
                points.append(self.epd.embed(memory).double().cpu().numpy())
                decoded.append(self.epd.decode(memory, self._mask).cpu().numpy())
        return Steps(tokens=np.concatenate(decoded), points=np.concatenate(points), sources=sources, step_sizes=sizes)

    def _chunks(self, tokens: Tokens) -> Iterator[Tensor]:
        for at in range(0, len(tokens), _ROWS):
            yield torch.from_numpy(tokens[at : at + _ROWS]).to(self.device)
