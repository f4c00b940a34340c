"""How alphas, the continuous parameters of an architecture, are trained. Imports without torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nao_ray.settings import Settings


class AlphaOptimiser(Settings):
    """Adam, as in the authors' code of DARTS (Liu, Simonyan, Yang, ICLR 2019, arXiv 1806.09055), and on what."""

    lr: float = Field(default=3e-4, gt=0)
    """Constant."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.999)
    weight_decay: float = Field(default=1e-3, ge=0)
    """Added to the gradient."""
    deviation: float = Field(default=1e-3, ge=0)
    """They begin as normal numbers of mean 0 and this deviation."""
    radius: float = Field(default=0.01, gt=0)
    """Second order by a finite difference: weights are moved so far, along the validation gradient, either way."""
    clips: bool = False
    """Second order looks ahead by a step that is clipped as the weights' own (`recipe.clip_norm`), and clips the
    validation gradient alike; false: nothing is clipped there, as in the published search of convolutional cells."""
    split: Literal["train", "valid"] = "train"
    """What alphas are trained on. `train`: a part of the training split, which the weights do not see, so that the
    validation split is new to all cells that it scores. `valid`: the validation split, as in the published search of
    recurrent cells, whose weights see all of the training split: derived cells then score on what they were found on,
    those of the control do not."""
    share: float = Field(default=0.5, gt=0, lt=1)
    """Of the training split, with `split: train`; of a text its end."""

    @model_validator(mode="after")
    def _all_of_it_trains(self) -> Self:
        if self.split == "valid" and self.share != type(self).model_fields["share"].default:
            raise ValueError("share: weights train on all of the training split where split is valid; leave it out")
        return self


class RecurrentAlphas(AlphaOptimiser):
    """As in the same code for recurrent cells, but for `split`; the share is about that of its validation text."""

    lr: float = Field(default=3e-3, gt=0)
    """Constant."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    clips: bool = True
    """Second order looks ahead by a step that is clipped as the weights' own (`recipe.clip_norm`), and clips the
    validation gradient alike."""
    share: float = Field(default=0.1, gt=0, lt=1)
    """Of the training split, with `split: train`: its end."""
