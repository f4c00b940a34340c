"""Fitting the encoder-predictor-decoder to scored genotypes.

Luo, Tian, Qin, Chen, Liu, "Neural Architecture Optimization", NeurIPS 2018, arXiv 1808.07233, section 3.

Legend: `N` genotypes, `B` batch, `L` tokens per genotype, `M` members.

Differs from the paper, unless a preset sets it back: targets are standardised, the ranking of pairs counts beside the
squared error, random genotypes without a score teach the decoder too, and each member of the ensemble leaves out one
fold, so that every trial is held out by somebody.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from nao_ray import rng
from nao_ray.controllers.base import one_thread
from nao_ray.controllers.ensemble import Ensemble
from nao_ray.controllers.epd import Epd
from nao_ray.controllers.measures import hamming, pairwise_accuracy, rank_correlation
from nao_ray.controllers.sizes import EpdConfig
from nao_ray.controllers.targets import TargetScale
from nao_ray.spaces.base import SearchSpace, Tokens

Floats = NDArray[np.float64]


class FitConfig(BaseModel):
    """How a controller is fitted. Immutable: nothing a round does can leak into the next."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int | None = Field(default=None, ge=1)
    """Passes over the trials; None: as many as `steps` says."""
    steps: int = Field(default=250, ge=1)
    """Optimiser steps, where `epochs` is not given; as many as trials, where those are more."""
    batch: int = Field(default=100, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    """Adam's; the highest of the schedule."""
    schedule: Literal["constant", "one_cycle"] = "one_cycle"
    weight_decay: float = Field(default=1e-4, ge=0)
    """L2 term in the gradient, as PyTorch's Adam has it."""
    clip: float = Field(default=5.0, gt=0)
    """Largest global norm of the gradient (section 3.1)."""
    trade_off: float = Field(default=0.9, ge=0, le=1)
    """Weight of the prediction's loss; the rest is the reconstruction's (section 3.1)."""
    ranking: float = Field(default=0.0, ge=0)
    """Weight of the ranking loss beside the squared error."""
    targets: Literal["minmax", "standard"] = "standard"
    repeats: int = Field(default=1, ge=1)
    """How often an epoch shows each trial (V2's expansion of its training set)."""
    swap: bool = True
    """Each fetch of a sample shows a random twin of it (section 3.3)."""
    unlabelled: int = Field(default=24, ge=0)
    """Random genotypes per step, without a score, that teach encoder and decoder alone."""
    decoded: int | None = Field(default=32, ge=1)
    """Rows per step the decoder is trained on, the unlabelled among them; None: all."""
    point_noise: float = Field(default=5.0, ge=0)
    """The predictor sees e with normal noise of this / sqrt(N) times e's deviation over the batch: a ridge penalty."""
    members: int = Field(default=5, ge=1)
    """Size of the ensemble; from 2 on, member i leaves out fold i."""
    holdout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the trials held out from a single member."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a fit achieved; NaN where there was nothing to measure it on."""

    num_trials: int
    num_steps: int
    """Optimiser steps, all members together."""
    prediction_loss: float
    """Mean squared error of the last step, in units of the targets."""
    reconstruction_loss: float
    """Mean token NLL of the last step."""
    reconstruction: float
    """Hamming distance of the greedy decode to the trials' own tokens, in [0, L]."""
    pairwise_accuracy: float
    """In [0, 1], on all the trials."""
    heldout_pairwise_accuracy: float
    """In [0, 1], each trial predicted by those who had not seen it."""
    heldout_rank_correlation: float
    """Spearman's rho, likewise."""
    cpu_seconds: float

    def row(self) -> dict[str, float | int | None]:
        """As a flat row, None for NaN."""
        return {key: None if math.isnan(value) else value for key, value in asdict(self).items()}


def fit(
    space: SearchSpace[Any],
    tokens: Tokens,
    scores: Floats,
    *,
    epd: EpdConfig,
    config: FitConfig,
    seed: int,
    index: int = 0,
    start: Ensemble | None = None,
    device: str = "cpu",
) -> tuple[Ensemble, FitReport]:
    """Fit an ensemble to ``[N, L]`` tokens and their ``[N]`` scores, N >= 1.

    A function of its arguments alone, bit for bit on a CPU: `seed` and `index` name its random numbers.
    `start` gives the initial weights (the optimiser starts afresh); None: random ones.
    """
    assert len(tokens) == len(scores) > 0, (tokens.shape, scores.shape)
    began = time.process_time()
    scale = TargetScale.fit(scores, config.targets)
    targets = torch.from_numpy(scale.to_targets(scores)).float().to(device)
    seen = _seen(len(scores), config, rng.child(seed, f"fit {index} folds"))
    members, last, num_steps = [], (math.nan, math.nan), 0
    with one_thread():
        for number, rows in enumerate(seen):
            with rng.torch_seeded(seed, f"fit {index} member", number):
                member = Epd(epd, space.vocabulary, space.length, space.tokens_per_step).to(device)
                if start is not None:
                    member.load_state_dict(start.members[number].state_dict())
                trainer = _Trainer(space, member, config, rng.child(seed, f"fit {index} batches", number))
                last = trainer.train(tokens[rows], targets[torch.from_numpy(rows).to(device)])
                num_steps += trainer.num_steps
            members.append(member)
        ensemble = Ensemble(members, scale, space, device)
        each = ensemble.predict_each(tokens)
        report = FitReport(
            num_trials=len(scores),
            num_steps=num_steps,
            prediction_loss=last[0],
            reconstruction_loss=last[1],
            reconstruction=hamming(tokens, ensemble.reconstruct(tokens)),
            pairwise_accuracy=pairwise_accuracy(scores, each.mean(axis=0)),
            cpu_seconds=time.process_time() - began,
            **_held_out(scores, each, seen),
        )
    return ensemble, report


def _seen(count: int, config: FitConfig, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Per member the rows it is trained on; a fold never takes the last rows away."""
    order = generator.permutation(count)
    if config.members == 1:
        return [np.sort(order[min(int(config.holdout * count), count - 1) :])]
    if count < 2 * config.members:
        return [np.sort(order)] * config.members
    folds = np.array_split(order, config.members)
    return [np.sort(np.setdiff1d(order, fold)) for fold in folds]


def _held_out(scores: Floats, each: Floats, seen: Sequence[NDArray[np.int64]]) -> dict[str, float]:
    unseen = np.ones(each.shape, dtype=bool)
    for row, rows in zip(unseen, seen, strict=True):
        row[rows] = False
    held = unseen.any(axis=0)
    predictions = np.where(unseen, each, 0.0).sum(axis=0)[held] / unseen.sum(axis=0)[held]
    return {
        "heldout_pairwise_accuracy": pairwise_accuracy(scores[held], predictions),
        "heldout_rank_correlation": rank_correlation(scores[held], predictions),
    }


class _Trainer:
    """One member's optimisation."""

    def __init__(self, space: SearchSpace[Any], epd: Epd, config: FitConfig, generator: np.random.Generator) -> None:
        self.space = space
        self.epd = epd
        self.config = config
        self.generator = generator
        self.num_steps = 0
        self.num_trials = 0

    def train(self, tokens: Tokens, targets: Tensor) -> tuple[float, float]:
        """Trains on ``[N, L]`` tokens and ``[N]`` targets; squared error and NLL of the last step."""
        config, self.num_trials = self.config, len(tokens)
        epoch = np.repeat(np.arange(len(tokens)), config.repeats)
        per_epoch = math.ceil(len(epoch) / config.batch)
        total = max(config.steps, len(tokens)) if config.epochs is None else config.epochs * per_epoch
        optimiser = torch.optim.Adam(
            self.epd.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True
        )
        self.epd.train()
        losses = (torch.tensor(math.nan), torch.tensor(math.nan))
        while self.num_steps < total:
            for rows in np.array_split(self.generator.permutation(epoch), per_epoch)[: total - self.num_steps]:
                if config.schedule == "one_cycle":
                    for group in optimiser.param_groups:
                        group["lr"] = config.learning_rate * _one_cycle(self.num_steps / total)
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
        if self.config.unlabelled:
            tokens = np.concatenate([tokens, self._random_tokens(self.config.unlabelled)])
        shown = torch.from_numpy(tokens).to(targets.device)
        memory = self.epd.encode(shown)
        point = self.epd.embed(memory)
        predicted = self.epd.predict(self._noisy(point[: len(targets)]))
        prediction = F.mse_loss(predicted, targets)
        if self.config.ranking:
            prediction = prediction + self.config.ranking * _ranking_loss(predicted, targets)
        rows = slice(-(self.config.decoded or len(shown)), None)
        logits = self.epd.decoder.teach(memory[rows], point[rows], shown[rows])
        return prediction, F.cross_entropy(logits.flatten(0, 1), shown[rows].flatten())

    def _noisy(self, point: Tensor) -> Tensor:
        if not self.config.point_noise or len(point) < 2:
            return point
        deviation = (point - point.mean(dim=0)).detach().square().mean().sqrt()
        scale = self.config.point_noise / math.sqrt(self.num_trials) * deviation
        return point + scale * torch.randn_like(point)

    def _random_tokens(self, count: int) -> Tokens:
        """``[count, L]`` uniform legal tokens."""
        mask = self.space.token_mask
        tokens: Tokens = (self.generator.random((count, *mask.shape)) * mask).argmax(axis=-1)
        return tokens


def _ranking_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Logistic loss of the pairs' order, -log sigmoid of the difference (Burges et al. 2005, RankNet)."""
    better = targets[:, None] > targets[None, :]
    losses = F.softplus(predicted[None, :] - predicted[:, None])
    return (losses * better).sum() / better.sum().clamp_min(1)


def _one_cycle(done: float) -> float:
    """Share of the highest learning rate after a share `done` of the steps: up for a tenth, then a half cosine."""
    warm = 0.1
    return (done + 0.01) / (warm + 0.01) if done < warm else 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
