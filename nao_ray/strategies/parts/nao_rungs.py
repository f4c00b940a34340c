"""The results of a ladder of fidelities for NAO's process: each rung by itself, the lower ones as sources of the next.

A score after a few epochs is no score after many. The process stands on the highest rung that has enough results; the
rung below gives its prior mean, as an earlier pool would (`controllers/transfer.py`): by ranks, with the weight under
which the scores of the higher rung are likeliest when left out, or not at all. The rung below that is a source of the
rung below, and so on. A paused architecture's own score is an observation of its rung's process, so that what is
predicted of it at the higher rung goes by it, and by its neighbours.

Which to ask for, one more at the first rung or a paused one at the next, is one choice: the highest bound at the
process's rung. A result at the first rung shrinks the spread of its own bound and of its neighbours', so new ones are
asked for as long as one of them may be better than all that is paused.

The chain of fidelities, one correlation a step, is that of Kennedy, O'Hagan, "Predicting the output from a complex
computer code when fast approximations are available", Biometrika 2000, section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nao_ray.controllers.gp import Floats, GaussianProcess, normal_scores
from nao_ray.controllers.gp_controller import GpConfig, GpController, features_of, representatives, views_of
from nao_ray.controllers.kernels import View
from nao_ray.controllers.measures import rank_correlation
from nao_ray.controllers.pretraining import Pretrained
from nao_ray.controllers.transfer import Process, Source, Transfer, transferred
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.parts.nao_round import Observation
from nao_ray.trial import Trial

ENOUGH = 3
"""Results from which on the process stands on a rung."""
FEWEST = 6
"""Results of a rung from which on the process may send on one of them."""
TRUST = 1.0
"""Log odds that speak for the rung below before there are results: it is of the same networks on the same data."""


@dataclass(frozen=True, slots=True)
class Foundation:
    """What the processes of a search stand on."""

    features: Callable[[Sequence[Genotype]], Tensor]
    """``[N, D]``."""
    views: Sequence[View]
    """Of these features."""
    most: int
    """Results of a rung that are learnt from."""


def foundation(space: SearchSpace[Any], pretrained: Pretrained, config: GpConfig) -> Foundation:
    """That of a config."""

    def features(genotypes: Sequence[Genotype]) -> Tensor:
        tokens = np.stack([space.encode(genotype) for genotype in genotypes])
        return features_of(space, pretrained, tokens, config)

    return Foundation(features, views_of(pretrained, config), config.most)


class Rungs:
    """Completed trials by their rung."""

    def __init__(self, completed: Sequence[Observation]) -> None:
        by_epochs: dict[int, list[Observation]] = {}
        for seen in completed:
            by_epochs.setdefault(seen.epochs or 0, []).append(seen)
        self._by_epochs = dict(sorted(by_epochs.items()))
        enough = [epochs for epochs, found in self._by_epochs.items() if len(found) >= ENOUGH]
        self.base = max(enough, default=min(by_epochs, default=0))
        """Epochs of the rung that the process stands on."""
        self._steps: list[Transfer] = []

    def __len__(self) -> int:
        return len(self._by_epochs)

    @property
    def of_base(self) -> list[Observation]:
        """The results that the process is conditioned on, in their order."""
        return self._by_epochs.get(self.base, [])

    @property
    def paused(self) -> list[Observation]:
        """Of each architecture that has no result at the base rung its highest one, by trial id."""
        found = {seen.genotype.key: seen for epochs in self._below for seen in self._by_epochs[epochs]}
        done = {seen.genotype.key for seen in self.of_base}
        return sorted((seen for key, seen in found.items() if key not in done), key=lambda seen: seen.trial_id)

    @property
    def _below(self) -> list[int]:
        return [epochs for epochs in self._by_epochs if epochs < self.base]

    def judges(self, epochs: int) -> bool:
        """Whether the process can tell who is to go on from the rung of so many epochs: it stands there, or higher."""
        return epochs <= self.base and len(self._by_epochs.get(epochs, ())) >= FEWEST

    def sources(self, foundation: Foundation) -> list[Source]:
        """The rung below the base, learnt with those below it; [] where there is none."""
        source: Source | None = None
        self._steps = []
        for epochs in self._below:
            found = self._by_epochs[epochs]
            scores = np.array([seen.score for seen in found], dtype=np.float64)
            rows = representatives(scores, foundation.most)
            features = foundation.features([found[row].genotype for row in rows])
            targets = torch.from_numpy(normal_scores(scores[rows]))
            process: Process = GaussianProcess(features, targets, foundation.views)
            if source is not None:
                assert isinstance(process, GaussianProcess)
                process, step = transferred(process, foundation.views, [source])
                self._steps.append(step)
            source = Source(_name(epochs), process, TRUST)
        return [] if source is None else [source]

    def row(self, transfer: Transfer | None) -> dict[str, str | int]:
        """Columns of a fit's diagnostics; `transfer`: what came of the sources of the base rung."""
        weights = [step.weight for step in self._steps]
        if self._below:
            used = transfer is not None and transfer.source == _name(self._below[-1])
            weights.append(transfer.weight if used and transfer is not None else 0.0)
        steps = list(pairwise([*self._below, self.base]))
        correlations = [self._correlation(*step) for step in steps]
        return {
            "rung": self.base,
            "rung_trials": " ".join(f"{epochs}:{len(found)}" for epochs, found in self._by_epochs.items()),
            "rung_weights": " ".join(f"{a}>{b}:{w:g}" for (a, b), w in zip(steps, weights, strict=True)),
            "rung_correlations": " ".join(f"{a}>{b}:{c:.2f}" for (a, b), c in zip(steps, correlations, strict=True)),
        }

    def _correlation(self, lower: int, upper: int) -> float:
        below, above = ({seen.genotype.key: seen.score for seen in self._by_epochs[rung]} for rung in (lower, upper))
        both = [key for key in above if key in below]
        return rank_correlation(_floats([below[key] for key in both]), _floats([above[key] for key in both]))

    def predicts(self, controller: GpController, trials: Sequence[Trial]) -> bool:
        """Whether the base rung's scores are ranked better by the process, without them, than by those of `trials`."""
        below = {trial.genotype.key: trial.score for trial in trials}
        found = [self.of_base[row] for row in controller.rows]
        rows = [row for row, seen in enumerate(found) if seen.genotype.key in below]
        truth = _floats([found[row].score for row in rows])
        by_process = rank_correlation(truth, controller.left_out()[rows])
        by_score = rank_correlation(truth, _floats([below[found[row].genotype.key] for row in rows]))
        return by_process > by_score or (np.isnan(by_score) and not np.isnan(by_process))


def _name(epochs: int) -> str:
    return f"the rung of {epochs} epoch{'s' * (epochs != 1)}"


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array(values, dtype=np.float64)
