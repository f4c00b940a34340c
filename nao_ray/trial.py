"""A trial is a value with a small state machine: RUNNING -> COMPLETED or FAILED, once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from nao_ray.metric import Goal, score_of
from nao_ray.spaces.base import Genotype
from nao_ray.standings import Standing


class TrialState(StrEnum):
    """Where a trial stands."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class FailureKind(StrEnum):
    """Why a trial failed. Failure kinds are data: a strategy is told them, a report counts them."""

    ERROR = "error"
    NAN = "nan"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    LOST = "lost"
    LIMIT = "limit"
    """Outside of the search's constraints, as was found where it would have been trained; it was not."""
    CANCELLED = "cancelled"
    """By the user."""
    ENVIRONMENT = "environment"
    """Data, device, installation, disk, permissions: no architecture's fault. Of an attempt; no trial is FAILED for it,
    it stays open."""


Sizes = tuple[tuple[str, int], ...]
"""How large a network is: its skeleton's numbers by name, in order of the names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How thoroughly one trial is trained; None where the evaluator has no such knob."""

    epochs: int | None = None
    size: Sizes = ()
    """Of the network that is trained."""
    data_share: float | None = None
    """Share of the training split, in (0, 1]."""
    weights_version: str | None = None
    """The shared weights a score belongs to; scores of two versions are never mixed."""
    valid_share: float | None = None
    """Share of the validation split that a score is taken on, in (0, 1]; None: what the evaluator's config says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of the training of shared weights: what a proposal that trains asks for."""

    version: str
    """Names the weights that come of it."""
    source: str | None
    """Version it goes on from; None: fresh weights."""
    first_epoch: int
    last_epoch: int
    """The first one that is not part of it."""
    genotypes: tuple[str, ...]
    """What its steps compute; may be empty where the phase's kind says it otherwise."""
    sampling: Literal["uniform", "size", "given"] = "uniform"
    """Each step draws one of the genotypes, evenly or in proportion to their parameters; `given`: the next in turn."""
    kind: str = "paths"
    """What is trained: `paths`, the weights that a genotype uses at each step; `alphas`, those of a relaxed supernet
    with its weights, as further words say (`evaluators/darts.py`); other kinds are between a strategy and an evaluator,
    which refuses those it does not know."""
    seed: int | None = None
    """Names every draw of the training that this is a stretch of, however many stretches there are; None, as in pools
    of before: the proposal's."""
    num_params: tuple[int, ...] | None = None
    """By genotype, what `sampling` by size goes by: of its network on its own, as large as the shared weights. None:
    whoever trains counts, as in pools of before."""


class Interim(NamedTuple):
    """What a training that is under way has come to."""

    trial_id: int
    epochs: int
    """That it has done, at least 1."""
    score: float
    """After them, higher is better; of its metric's unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What a strategy asks to have measured. A strategy gives the first block, its base class the second."""

    genotype: Genotype
    """Of a proposal that trains shared weights: a stand-in that names their version, no architecture."""
    phase: Phase | None = None
    """Given: train shared weights; nothing is scored."""
    embedding: tuple[float, ...] | None = None
    """The proposed point ``[H]`` in the controller's embedding space, where there is one."""
    predicted_score: float | None = None
    """Predicted score, in the unit of `Measurement.score`."""
    predicted_spread: float | None = None
    source_trial_id: int | None = None
    """The trial this proposal was derived from."""
    source_step_size: float | None = None
    """Length factor of the gradient step from the source (eta)."""
    round: int | None = None
    """Index of the controller's fit that made it; 0 for the seeds."""
    origin: Literal["control", "imported"] | None = None
    """`control`: drawn at random, to compare with what a search has found; no find of its own. `imported`: from a table
    of somebody else's results."""
    file_row: int | None = None
    """Of what was imported: its row in the file, from 1."""
    settings: str | None = None
    """JSON by name: settings of the recipe that this trial is trained with instead of the evaluator's; None: none."""
    retry_of: int | None = None
    """The failed trial that the user asked for once more; such a proposal is no strategy's, nor of the budget."""
    parent_trial_id: int | None = None
    """Of a further rung of a ladder: the trial of the rung below, whose training it goes on with; None: it begins."""

    trial_id: int = -1
    """0, 1, 2, ... in the order asked."""
    seed: int = 0
    fidelity: Fidelity = field(default_factory=Fidelity)
    tokens: tuple[int, ...] | None = None
    asked_after: int = 0
    """Number of finished trials the strategy had been told when it made this proposal, or that there were when the
    user asked for a retry."""
    heard: tuple[Interim, ...] = ()
    """Of trainings under way, what the strategy has been told since the proposal before this one, by trial id."""

    @property
    def rung(self) -> int:
        """Of a further rung of a ladder its epochs; 0: the first, or there is none."""
        return 0 if self.parent_trial_id is None else self.fidelity.epochs or 0

    @property
    def training_seed(self) -> int:
        """What names the draws of its training: for a phase that of the whole training of shared weights."""
        return self.seed if self.phase is None or self.phase.seed is None else self.phase.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What an evaluator returns. Times in seconds, memory in bytes."""

    valid_accuracy: float | None = None  # the names of these two are those of columns of version 1
    valid_perplexity: float | None = None
    valid_loss: float | None = None
    valid_score: float | None = None
    """What the trials are measured by, in its own unit, where that has no column of its own (`Metric.column`)."""
    goal: Goal | None = None
    """Of `valid_score`."""
    train_loss: float | None = None
    """Mean over the last epoch; of shared weights."""
    derived_genotype: str | None = None
    """Text of the architecture that a phase came to, where it came to one; in the space of its proposal."""
    derived_score: float | None = None
    """Where a table knows that architecture, its score there, in the unit of the metric: no search decides by it."""
    derived_rank: int | None = None
    """Likewise its rank in the table, 1 the best."""
    alphas: tuple[float, ...] | None = None
    """Where a phase trains alphas what they came to, role after role, edge after edge, before the softmax; with partial
    channels the last of each edge is its own."""
    alpha_eigenvalue: float | None = None
    """The largest of the Hessian of the validation loss in the alphas; where it was asked for."""
    supernet_score: float | None = None
    """Of the supernet that a phase trains, mixed by its alphas, on what those learn on; in the unit of the metric."""
    curve: tuple[float, ...] | None = None
    """The validation metric after each epoch."""
    num_params: int | None = None
    """Without the auxiliary head, as `macs`."""
    macs: int | None = None
    wall_seconds: float | None = None
    device_seconds: float | None = None
    """On a GPU from the first kernel to the last; where it has places for k workers a k-th of that, so that the trials
    on a GPU never add up to more than its time. On a CPU the process's CPU time. Training and validation."""
    latency_ms: float | None = None
    """Of a batch of one, before training, on the device that trains; where it is limited or aimed at."""
    peak_memory_bytes: int | None = None
    """On a GPU the most that PyTorch's allocator gave out at a time, to this process: neither what it keeps in reserve
    nor the CUDA context with the libraries' kernels is in it. On a CPU the process's largest resident size."""
    device: str | None = None
    execution: str | None = None
    """How the device ran the training's steps: `graph`, `eager`, or `eager: ` and why it is no graph."""
    shapes: tuple[tuple[str, str | int], ...] = ()
    """What the network that was counted had to fit, by name (`Shapes.recorded`); with its size it is built again."""

    @property
    def score(self) -> float:
        """What strategies maximise, as `score_of` says; NaN where nothing was measured."""
        score = score_of(self.valid_accuracy, self.valid_perplexity, self.valid_score, self.goal)
        return math.nan if score is None else score

    @property
    def course(self) -> dict[int, float]:
        """Scores by epochs done, as far as the curve has finite ones."""
        is_accuracy, is_perplexity = self.valid_accuracy is not None, self.valid_perplexity is not None
        scores = {
            done: score_of(value if is_accuracy else None, value if is_perplexity else None, value, self.goal)
            for done, value in enumerate(self.curve or (), 1)
            if value is not None and math.isfinite(value)  # a pool's nulls
        }
        return {done: score for done, score in scores.items() if score is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A proposal and what became of it."""

    proposal: Proposal
    state: TrialState = TrialState.RUNNING
    attempt: int = 0
    """Number of the attempt that gave the result, from 1; 0 while nothing was started."""
    measurement: Measurement | None = None
    failure_kind: FailureKind | None = None
    failure_message: str | None = None
    log_index: int | None = None
    """Position in the order of finished trials, which is the order a strategy is told them."""
    node: str | None = None
    asked_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    ends: tuple[str, ...] = ()
    """How the attempts at a trial that is not finished ended, as far as they count (`search.tries`)."""

    @property
    def trial_id(self) -> int:
        """The proposal's id."""
        return self.proposal.trial_id

    @property
    def genotype(self) -> Genotype:
        """The proposal's genotype."""
        return self.proposal.genotype

    @property
    def derived(self) -> Genotype | None:
        """The architecture that the phase came to; None where it came to none."""
        text = None if self.measurement is None else self.measurement.derived_genotype
        return None if text is None else Genotype(self.genotype.space, text)

    @property
    def score(self) -> float | None:
        """The score of a completed trial, higher is better; None otherwise, and for training of shared weights."""
        if self.state is not TrialState.COMPLETED or self.measurement is None or self.proposal.phase is not None:
            return None
        return self.measurement.score

    @property
    def standing(self) -> Standing | None:
        """Its place among the others; None without a score."""
        score = self.score
        fidelity = self.proposal.fidelity
        return None if score is None else Standing(score, self.trial_id, fidelity.weights_version, self.proposal.rung)

    def complete(self, measurement: Measurement, **facts: Any) -> Trial:  # noqa: ANN401
        """This trial, finished with a measurement; FAILED as `nan` if its score is not finite.

        Training shared weights has no score; it is FAILED if its loss is not finite.

        Raises:
            ValueError: the trial is already finished.
        """
        what, value = ("score", measurement.score) if self.proposal.phase is None else ("loss", measurement.train_loss)
        if value is None or not math.isfinite(value):
            return self._finish(
                state=TrialState.FAILED,
                measurement=measurement,
                failure_kind=FailureKind.NAN,
                failure_message=f"{what} is {value}",
                **facts,
            )
        return self._finish(state=TrialState.COMPLETED, measurement=measurement, **facts)

    def fail(self, kind: FailureKind, message: str, **facts: Any) -> Trial:  # noqa: ANN401
        """This trial, finished without a score.

        Raises:
            ValueError: the trial is already finished.
        """
        return self._finish(state=TrialState.FAILED, failure_kind=kind, failure_message=message, **facts)

    def _finish(self, **changes: Any) -> Trial:  # noqa: ANN401
        if self.state is not TrialState.RUNNING:
            raise ValueError(f"trial {self.trial_id} is already {self.state}")
        return replace(self, ends=(), **changes)


class Attempt(NamedTuple):
    """An attempt at a trial that is about to start."""

    trial_id: int
    number: int
    node: str | None
    """None: not known."""
    at: datetime
    before: str = ""
    """How the attempt before it ended; empty: there was none, or nobody was there to say."""


Diagnostics = Mapping[str, float | int | str | None]
"""One row a strategy writes about its own state, e.g. one controller fit."""
