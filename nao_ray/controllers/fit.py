"""Fitting the encoder-predictor-decoder to scored genotypes.

Luo, Tian, Qin, Chen, Liu, "Neural Architecture Optimization", NeurIPS 2018, arXiv 1808.07233, section 3.

Legend: `N` genotypes, `B` batch, `L` tokens per genotype.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from nao_ray import optimisers, rng
from nao_ray.controllers.base import one_thread
from nao_ray.controllers.epd import Epd
from nao_ray.controllers.measures import hamming, pairwise_accuracy, rank_correlation
from nao_ray.controllers.mlp_controller import MlpController
from nao_ray.controllers.sizes import EpdConfig
from nao_ray.controllers.targets import TargetScale
from nao_ray.settings import Settings
from nao_ray.spaces.base import SearchSpace, Tokens

Floats = NDArray[np.float64]


class FitConfig(Settings):
    """How a controller is fitted; the defaults are the paper's. Immutable: no round leaks into the next."""

    epochs: int = Field(default=1000, ge=1)
    """Passes over the trials."""
    batch: int = Field(default=50, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    """Adam's, constant."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """L2 term in the gradient, as PyTorch's Adam has it."""
    clip: float = Field(default=5.0, gt=0)
    """Largest global norm of the gradient (section 3.1)."""
    trade_off: float = Field(default=0.8, ge=0, le=1)
    """Weight of the prediction's loss; the rest is the reconstruction's (section 3.1)."""
    repeats: int = Field(default=1, ge=1)
    """How often an epoch shows each trial (V2's expansion of its training set)."""
    swap: bool = False
    """Each fetch of a sample shows a random twin of it (section 3.3): the edges of each node of a cell exchanged with
    probability 1/2. Differs from NAO_pytorch, which exchanges those of one node per cell: there, Spearman's rho on 200
    unseen genotypes was 0.75 (deviation 0.04), here 0.77 (0.02), of `closed_form` scores with noise, 200 trials, 150
    epochs of `nao_ws_v1`, 3 seeds."""
    holdout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the trials held out."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a fit achieved; NaN where there was nothing to measure it on."""

    num_trials: int
    num_steps: int
    """Optimiser steps."""
    prediction_loss: float
    """Mean squared error of the last step, in units of the targets."""
    reconstruction_loss: float
    """Mean token NLL of the last step."""
    reconstruction: float
    """Hamming distance of the greedy decode to the trials' own tokens, in [0, L]."""
    pairwise_accuracy: float
    """In [0, 1], on all the trials."""
    heldout_pairwise_accuracy: float
    """In [0, 1], on trials that were predicted without having been seen."""
    heldout_rank_correlation: float
    """Spearman's rho, likewise."""
    cpu_seconds: float

    def row(self) -> dict[str, float | int | None]:
        """As a flat row, None for NaN."""
        return {key: None if math.isnan(value) else value for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Draws:
    """Names the random numbers of a fit."""

    seed: int
    """Of the search."""
    index: int = 0
    """Which of its fits it is."""

    def name(self, what: str) -> tuple[int, str]:
        """Seed and purpose of a stream."""
        return self.seed, f"fit {self.index} {what}"


def fit(
    space: SearchSpace[Any],
    tokens: Tokens,
    scores: Floats,
    *,
    epd: EpdConfig,
    config: FitConfig,
    draws: Draws,
    start: MlpController | None = None,
    device: str = "cpu",
) -> tuple[MlpController, FitReport]:
    """Fit a controller to ``[N, L]`` tokens and their ``[N]`` scores, N >= 1.

    A function of its arguments alone, bit for bit on a CPU.
    `start` gives the initial weights (the optimiser starts afresh); None: random ones.
    """
    assert len(tokens) == len(scores) > 0, (tokens.shape, scores.shape)
    began = time.process_time()
    scale = TargetScale.fit(scores, "minmax")
    targets = torch.from_numpy(scale.to_targets(scores)).float().to(device)
    held, seen = _split(len(scores), config.holdout, rng.child(*draws.name("folds")))
    # the purposes "folds" and "member" are streams of random numbers: in other words every search would be another
    with one_thread(), rng.torch_seeded(*draws.name("member")):
        network = Epd(epd, space.vocabulary, space.length, space.tokens_per_step).to(device)
        if start is not None:
            network.load_state_dict(start.epd.state_dict())
        trainer = _Trainer(space, network, config, rng.child(*draws.name("batches")))
        last = trainer.train(tokens[seen], targets[torch.from_numpy(seen).to(device)])
        controller = MlpController(network, scale, space, device)
        predicted, _ = controller.predict(tokens)
        report = FitReport(
            num_trials=len(scores),
            num_steps=trainer.num_steps,
            prediction_loss=last[0],
            reconstruction_loss=last[1],
            reconstruction=hamming(tokens, controller.reconstruct(tokens)),
            pairwise_accuracy=pairwise_accuracy(scores, predicted),
            heldout_pairwise_accuracy=pairwise_accuracy(scores[held], predicted[held]),
            heldout_rank_correlation=rank_correlation(scores[held], predicted[held]),
            cpu_seconds=time.process_time() - began,
        )
    return controller, report


def _split(count: int, holdout: float, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows held out and the rows trained on, never none."""
    order = generator.permutation(count)
    held = min(int(holdout * count), count - 1)
    return np.sort(order[:held]), np.sort(order[held:])


class _Trainer:
    """The optimisation of one controller."""

    def __init__(self, space: SearchSpace[Any], epd: Epd, config: FitConfig, generator: np.random.Generator) -> None:
        self.space = space
        self.epd = epd
        self.config = config
        self.generator = generator
        self.num_steps = 0

    def train(self, tokens: Tokens, targets: Tensor) -> tuple[float, float]:
        """Trains on ``[N, L]`` tokens and ``[N]`` targets; squared error and NLL of the last step."""
        config = self.config
        epoch = np.repeat(np.arange(len(tokens)), config.repeats)
        per_epoch = math.ceil(len(epoch) / config.batch)
        optimiser = optimisers.Adam(
            self.epd.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True
        )
        self.epd.train()
        losses = (torch.tensor(math.nan), torch.tensor(math.nan))
        for _ in range(config.epochs):
            for rows in np.array_split(self.generator.permutation(epoch), per_epoch):
                losses = self._losses(tokens[rows], targets[torch.from_numpy(rows).to(targets.device)])
                loss = config.trade_off * losses[0] + (1 - config.trade_off) * losses[1]
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self.epd.parameters(), config.clip)
                optimiser.step()
                self.num_steps += 1
        self.epd.eval()
        return float(losses[0].detach()), float(losses[1].detach())

    def _losses(self, tokens: Tokens, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction and reconstruction loss of a batch; the decoder's input and target are the same twin."""
        if self.config.swap:
            tokens = self.space.twins(tokens, self.generator)
        shown = torch.from_numpy(tokens).to(targets.device)
        predicted, logits = self.epd(shown)
        return F.mse_loss(predicted, targets), F.cross_entropy(logits.flatten(0, 1), shown.flatten())
