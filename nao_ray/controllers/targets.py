"""From scores to what a predictor is trained on, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TargetScale:
    """An affine map: target = (score - offset) / unit."""

    offset: float
    unit: float

    @classmethod
    def fit(cls, scores: Floats, kind: Literal["minmax", "standard"]) -> Self:
        """The scale of ``[N]`` scores; a constant pool, whose unit would be zero, keeps the scores' own unit.

        `minmax` maps to [0, 1] (NAO section 3.1); `standard` to mean 0 and deviation 1.
        """
        if kind == "minmax":
            offset, unit = float(scores.min()), float(np.ptp(scores))
        else:
            offset, unit = float(scores.mean()), float(scores.std())
        return cls(offset, unit if unit > 1e-12 * max(1.0, abs(offset)) else 1.0)

    def to_targets(self, scores: Floats) -> Floats:
        """Scores to targets."""
        return (scores - self.offset) / self.unit

    def to_scores(self, targets: Floats) -> Floats:
        """Targets, or predictions of them, to scores."""
        return targets * self.unit + self.offset
