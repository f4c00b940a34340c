"""How alphas, the continuous parameters of an architecture, are trained. Imports without torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nao_ray.settings import Settings


class AlphaOptimiser(Settings):
    """Adam, as in the authors' code of DARTS (Liu, Simonyan, Yang, ICLR 2019, arXiv 1806.09055)."""

    lr: float = Field(default=3e-4, gt=0)
    """Constant."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.999)
    weight_decay: float = Field(default=1e-3, ge=0)
    """Added to the gradient."""
    deviation: float = Field(default=1e-3, ge=0)
    """They begin as normal numbers of mean 0 and this deviation."""
    radius: float = Field(default=0.01, gt=0)
    """Second order by a finite difference: weights are moved so far, along the validation gradient, either way."""
