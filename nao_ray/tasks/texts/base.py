"""What all tasks of text have: splits of tokens, and the shapes that a network has to fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nao_ray.tasks.base import Shapes

Tokens = NDArray[np.int64]
"""One split of a text, ``[n]``."""


@dataclass(frozen=True, slots=True)
class TokenShapes(Shapes):
    """What a network that reads tokens has to fit."""

    vocabulary: int
    """Number of tokens."""
    network: str = "text"
    """Name of the published networks for it; `text` where there are none."""

    example: ClassVar[str] = "token"

    @property
    def told(self) -> str:
        return f"{self.vocabulary:,} words"

    @property
    def recorded(self) -> dict[str, str | int]:
        return {"network": self.network, "num_classes": self.vocabulary}
