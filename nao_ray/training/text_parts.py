"""The parts of a recipe that are about text, and networks that carry a hidden state. Imports without torch.

Dropout whose mask is one for a whole segment: Gal, Ghahramani, 2016, arXiv 1512.05287. Segments of random length,
activation and temporal regularisation: Merity, Keskar, Socher, "Regularizing and Optimizing LSTM Language Models",
ICLR 2018, arXiv 1708.02182, sections 4 and 5.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nao_ray.settings import Settings


class Segments(Settings):
    """How a text is cut into what a step reads, and gradients go back; the task's `window` is the base."""

    segments: Literal["fixed", "normal", "truncated", "halved"] = "fixed"
    """Lengths. `fixed`: all of `window` tokens. `normal`: about the window, or with probability 0.05 about its half,
    at most 11/7 and at least 1/7 of it (55 and 5 of 35; NAO, DARTS). `truncated`: the same, never two deviations away
    (ENAS). `halved`: the window, or with probability 0.05 its half (shared weights of NAO and DARTS). A step's learning
    rate is multiplied by its length over the window."""
    text_start: Literal["beginning", "random"] = "beginning"
    """Where an epoch begins to read: at the beginning of the text, as the references do, or anywhere; then its end is
    followed by its beginning."""


class Restarts(Settings):
    """What becomes of a training whose loss is no number any more."""

    restarts: int = Field(default=0, ge=0)
    """How often it may go back to the state of its best epoch, with other random numbers."""


class TextPenalties(Settings):
    """What a recurrent network loses, and what its states cost, in training."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of an output's feature. Each of the five is drawn once a segment."""
    dropout_hidden: float = Field(default=0.0, ge=0, lt=1)
    """Of a hidden feature, in the cell's input and at each of its nodes."""
    dropout_input: float = Field(default=0.0, ge=0, lt=1)
    """Of a feature of the cell's input."""
    dropout_embedding: float = Field(default=0.0, ge=0, lt=1)
    """Of an embedded feature."""
    dropout_words: float = Field(default=0.0, ge=0, lt=1)
    """Of a word of the vocabulary, wherever it stands."""
    activation_penalty: float = Field(default=0.0, ge=0)
    """Weight of the mean square of the dropped outputs."""
    slowness_penalty: float = Field(default=0.0, ge=0)
    """Weight of the mean square of the difference of successive outputs, before dropout."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
