"""A pool in memory with the loop's part of the interface, and a search over the closed form."""

import errno
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from nao_ray.errors import PoolWriteError
from nao_ray.evaluators.base import Evaluator, EvaluatorConfig, Group, SharedEvaluator
from nao_ray.evaluators.closed_form import ClosedForm, ClosedFormConfig
from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.loop import SearchLoop, Snapshot
from nao_ray.search.overseer import Overseer
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.simulated import SimulatedExecutor
from nao_ray.search.tolerance import Tolerance
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.strategies.shared_random_search import SharedRandomSearch, SharedRandomSearchConfig
from nao_ray.trial import Attempt, Fidelity, Measurement, Proposal, Trial, TrialState


class MemoryPool:
    """Refuses what a pool never sees: a result nobody asked for, a second result, a gap in the log."""

    def __init__(self) -> None:
        self.asked: dict[int, Trial] = {}
        self.attempts: list[tuple[int, int]] = []
        self.finished: list[Trial] = []
        self.fits: list[Any] = []
        self.weights: dict[str, bytes] = {}
        self.budgets: list[tuple[int | None, float | None]] = []
        self.logs: dict[tuple[int, int], str] = {}
        self.calls: list[str] = []
        self.left: list[Attempt] = []
        self.broken: Callable[[str], bool] = lambda _: False

    def _call(self, name: str) -> None:
        if self.broken(name):
            raise PoolWriteError(f"cannot write: [Errno {errno.ENOSPC}] no space left on device")
        self.calls.append(name)

    def record_asked(self, proposals: Sequence[Proposal], asked_at: datetime, attempts: Sequence[Attempt] = ()) -> None:
        self._call("asked")
        for proposal in proposals:
            assert proposal.trial_id == len(self.asked)
            self.asked[proposal.trial_id] = Trial(proposal=proposal, asked_at=asked_at)
        self._note_attempts(attempts)

    def record_attempts(self, rows: Sequence[Attempt]) -> None:
        self._call("attempts")
        self._note_attempts(rows)

    def _note_attempts(self, rows: Sequence[Attempt]) -> None:
        for trial_id, attempt, *_ in rows:
            assert attempt == 1 + max((a for t, a in self.attempts if t == trial_id), default=0)
            self.attempts.append((trial_id, attempt))

    def record_finished(self, trials: Sequence[Trial]) -> list[Trial]:
        self._call("finished")
        for trial in trials:
            assert trial.trial_id in self.asked
            assert trial.trial_id not in {known.trial_id for known in self.finished}
            assert trial.log_index == len(self.finished)
            assert trial.state is not TrialState.RUNNING
            self.finished.append(trial)
        return list(trials)

    def record_fits(self, rows: Sequence[Any]) -> None:
        self._call("fits")
        self.fits.extend(rows)

    def record_left(self, rows: Sequence[Attempt]) -> None:
        self._call("left")
        self.left += rows

    def record_log(self, trial_id: int, attempt: int, text: str) -> None:
        if self.broken("log"):
            raise PoolWriteError("cannot write")
        assert attempt == max(a for t, a in self.attempts if t == trial_id)
        self.logs[trial_id, attempt] = text

    def record_budget(self, before: tuple[int | None, float | None], now: tuple[int | None, float | None]) -> None:
        self._call("budget")
        self.budgets.append(now)

    def write_weights(self, version: str, weights: bytes, training: int | None = None) -> None:
        self._call("weights")
        self.weights[version] = weights

    def read_weights(self, version: str) -> bytes:
        return self.weights[version]

    def log(self) -> list[Trial]:
        finished = {trial.trial_id: trial for trial in self.finished}
        attempts: dict[int, int] = {}
        for trial_id, attempt in self.attempts:
            attempts[trial_id] = max(attempt, attempts.get(trial_id, 0))
        return [
            finished.get(trial_id, replace(trial, attempt=attempts.get(trial_id, 0)))
            for trial_id, trial in self.asked.items()
        ]


class Greedy(Strategy[StrategyConfig]):
    """Mutates the best trial it was told of, so that what it proposes shows what it was told."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(NaoCnnSmall(), StrategyConfig(), seed, Fidelity())
        self.best: Trial | None = None

    def propose(self, k: int, rng: Any) -> Proposal | None:
        if self.best is None or k < 5:
            return Proposal(genotype=self.space.sample(rng))
        return Proposal(genotype=self.space.mutate(self.best.genotype, rng), source_trial_id=self.best.trial_id)

    def observe(self, trial: Trial) -> None:
        if trial.score is not None and (self.best is None or trial.score > (self.best.score or 0)):
            self.best = trial


def closed_form(**settings: Any) -> ClosedForm:
    return ClosedForm(NaoCnnSmall(), None, ClosedFormConfig(**settings))


class SharedForm(SharedEvaluator[EvaluatorConfig]):
    """Shared weights that are the names of their versions; scores depend on them."""

    scored_at_once = 1
    trained_by = 8

    def __init__(self) -> None:
        super().__init__(NaoCnnSmall(), None, EvaluatorConfig())
        self.weights = b""

    @classmethod
    def fidelity(cls, config: EvaluatorConfig) -> Fidelity:
        return Fidelity()

    def train(self, proposal: Proposal, source: bytes | None, group: Group) -> tuple[Measurement, bytes]:
        phase = proposal.phase
        assert phase is not None
        assert (source or b"fresh").decode().endswith(phase.source or "fresh")
        measurement = Measurement(train_loss=1.0, wall_seconds=5.0)
        return measurement, (source or b"") + f" {proposal.seed} {phase.version}".encode()

    def use(self, version: str, weights: bytes) -> None:
        assert weights.decode().endswith(version)
        self.weights = weights

    def evaluate_together(self, proposals: Sequence[Proposal]) -> list[Measurement]:
        return [self.evaluate(proposal) for proposal in proposals]

    def evaluate(self, proposal: Proposal) -> Measurement:
        version = proposal.fidelity.weights_version
        assert version is None or self.weights.decode().endswith(version)
        text = proposal.genotype.key + ("" if version is None else self.weights.decode())
        return Measurement(valid_accuracy=zlib.crc32(text.encode()) / 2**32, wall_seconds=1.0)


def shared_search(**settings: Any) -> Strategy[Any]:
    """Two versions and four scores in each of two rounds, then two to five networks of their own."""
    given = {"rounds": 2, "epochs": 2, "epochs_per_version": 1, "paths": 3, "scored": 4, "finalists": 2, "audited": 3}
    return SharedRandomSearch(NaoCnnSmall(), SharedRandomSearchConfig(**{**given, **settings}), 3, Fidelity())


def facts(pool: MemoryPool) -> list[tuple[Any, ...]]:
    """What an unbroken and a resumed run have in common."""
    return [
        (trial.log_index, trial.state, trial.failure_kind, trial.score, trial.proposal)
        for trial in sorted(pool.finished, key=lambda trial: trial.trial_id)
    ]


def beside(**options: Any) -> dict[str, Any]:
    """Arguments of a loop: what it bears, and who stands beside it, by the names of their fields."""
    tolerance = {name: options.pop(name) for name in ("retry", "limits", "patience") if name in options}
    return {"tolerance": Tolerance(**tolerance), "overseer": Overseer(**options)}


def simulate(
    pool: MemoryPool,
    *,
    strategy: Strategy[Any] | None = None,
    evaluator: Evaluator[Any] | None = None,
    trials: int | None = 30,
    seconds: float | None = None,
    workers: int = 1,
    fault: Any = lambda _: None,
    **options: Any,
) -> tuple[SearchLoop, Callable[[], Snapshot]]:
    """A loop in virtual time over what the pool holds, and what runs it."""
    log = pool.log()
    clock = VirtualClock(max((t.finished_at for t in log if t.finished_at), default=VirtualClock.START))
    executor = SimulatedExecutor(evaluator or closed_form(noise=0.05), clock, workers, fault=fault, weights=pool)
    proposer = LocalProposer(strategy or Greedy(), log)
    budget = Budget(trials=trials, seconds=seconds)
    loop = SearchLoop(pool, proposer, executor, budget, clock=clock, **beside(**options))
    return loop, lambda: loop.run(log)
