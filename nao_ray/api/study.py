"""Ask and tell: for whoever trains elsewhere, without Ray and without a config."""

from __future__ import annotations

import math
import platform
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nao_ray.addresses import absolute
from nao_ray.api.pool import Pool
from nao_ray.errors import ConfigError, NothingToAskError, PoolError
from nao_ray.metric import DEFAULT
from nao_ray.search.budget import Budget
from nao_ray.search.executor import Completion, Failure
from nao_ray.service.hosting.manifest import metric_of
from nao_ray.service.told import Space, Told, open_told
from nao_ray.trial import FailureKind, Interim, Measurement, Trial

_RETRY_SECONDS = 0.5  # between two tries to record that a trial begins, in a pool that cannot be written


class Study:
    """A strategy that is asked for architectures and told what they are worth; its pool is a pool like any other.

        study = nao_ray.Study("nas_bench_201", "nao", pool="pools/mine", seed=1)
        for _ in range(50):
            trial = study.ask()
            study.tell(trial, accuracy_of(trial.genotype.key))

    Everything is in the pool before it is given away: a study of the same settings on the same pool goes on, first with
    the trials that were asked for and never told. Proposals follow from the seed and from what was told. Threads may
    tell while others ask. One study at a time has a pool; `close`, or the end of the process, gives it free.
    """

    def __init__(
        self,
        space: Space,
        strategy: str | Mapping[str, Any] = "nao",
        pool: str | Path | None = None,
        *,
        seed: int = 0,
        metric: str = DEFAULT.name,
        minimize: bool | None = None,
        trials: int | None = None,
    ) -> None:
        """As described above.

        Args:
            space: its name, a mapping with `name` and its settings, one of your own as ``package.module:Class``, or a
                class or an instance.
            strategy: its name, or a mapping with `name` and its settings; none that trains shared weights.
            pool: folder or URL, made if it is missing; None: a folder that goes with the study.
            seed: names every draw of the strategy, in [0, 2**63).
            metric: what is told, by name. `accuracy` is in [0, 1], `perplexity` at least 1, others are any number; a
                `loss` is in the pool's column `valid_loss` too.
            minimize: whether less is better; None: of `perplexity` alone.
            trials: that may be asked, over all studies of the pool; None: as many as are wanted.

        Raises:
            ConfigError: there is no such space or strategy, or a setting is wrong.
            PoolError: the pool is of another search, or another driver has it.
        """
        is_less_better = metric == "perplexity" if minimize is None else minimize
        told = Told(space, strategy, seed, metric, "minimize" if is_less_better else "maximize", trials)
        search = told.search("Study")
        with ExitStack() as stack:
            url = absolute(str(pool)) if pool is not None else stack.enter_context(_folder())
            self._session, left = open_told(url, search, lambda *_: Budget(trials=trials, seconds=None), stack)
            stack = stack.pop_all()
        self._close = weakref.finalize(self, stack.close)  # at the end of the process too
        self._metric, self._left = metric_of(search.config), left
        self._given: dict[int, Trial] = {}
        self._changed = threading.Condition()
        self.pool = Pool.open(url)
        """What was asked and told, to read: see `nao_ray.Pool`."""

    def ask(self, *, wait: float = 0.0) -> Trial:
        """The next trial: its `genotype` (``genotype.key`` is the text), `trial_id` and `proposal.seed`.

        Args:
            wait: seconds to wait where the strategy wants to be told more first, for another thread to tell it.

        Raises:
            ConfigError: it is closed.
            NothingToAskError: the strategy wants to be told more first, or the study `is_over`.
            RunError: the strategy sees no hope, or the pool could not be written for ten minutes.
            FencedError: another driver has taken over the pool.
        """
        if not self._close.alive:
            raise ConfigError(f"the study of {self.pool.url} is closed: make it again, it goes on")
        give_up = time.monotonic() + wait
        while True:
            with self._changed:
                finished = self._session.finished
                left = self._left.pop(0) if self._left else None
            asked = left or next(iter(self._session.ask(1)), None)
            if asked is not None:
                return self._begun(asked)
            if self.is_over or not self._is_told_more(finished, give_up - time.monotonic()):
                raise self._nothing()

    def tell(
        self,
        trial: Trial | int,
        value: float | None = None,
        *,
        failed: str | None = None,
        epochs: int | None = None,
        curve: Sequence[float] | None = None,
        seconds: float | None = None,
        num_params: int | None = None,
    ) -> Trial:
        """How a trial ended; returns it as it was recorded.

        Args:
            trial: as it was asked, or its id.
            value: in the metric's own unit; one that is not finite makes the trial FAILED.
            failed: instead of a value: why there is none.
            epochs: that it was trained for.
            curve: the metric after each epoch.
            seconds: that its training took; None: since it was asked.
            num_params: of its network.

        Raises:
            ConfigError: there is neither or both of `value` and `failed`, or no such value can be.
            PoolError: the trial is not open: it was told before, or never asked here.
        """
        trial_id = trial if isinstance(trial, int) else trial.trial_id
        outcome = self._outcome(value, failed)
        if isinstance(outcome, Measurement):
            course = None if curve is None else tuple(map(float, curve))
            outcome = replace(outcome, curve=course, wall_seconds=seconds, num_params=num_params)
        with self._changed:
            given = self._given.pop(trial_id, None)
            if given is None:
                raise PoolError(f"trial {trial_id} is not open in this study: it was told before, or not asked here")
        completion = Completion(
            trial_id=trial_id,
            attempt=given.attempt,
            outcome=outcome,
            node=given.node,
            started_at=given.started_at,
            finished_at=datetime.now(UTC),
        )
        fidelity = given.proposal.fidelity
        ended = self._session.tell(completion, fidelity if epochs is None else replace(fidelity, epochs=epochs))
        assert ended is not None
        with self._changed:
            self._changed.notify_all()
        return ended

    def report(self, trial: Trial | int, value: float, *, epochs: int) -> None:
        """What the training of a trial has come to so far: a strategy may go by it in what it asks for next.

        Args:
            trial: as it was asked, or its id.
            value: in the metric's own unit.
            epochs: that the training has done, at least 1.

        Raises:
            ConfigError: no such value can be, or no such number of epochs.
            PoolError: the trial is not open: it was told before, or never asked here.
        """
        trial_id = trial if isinstance(trial, int) else trial.trial_id
        so_far = self._outcome(value, None)
        if epochs < 1:
            raise ConfigError(f"report: epochs is {epochs}, expected those that the training has done, at least 1")
        assert isinstance(so_far, Measurement)
        if not self._session.hear(Interim(trial_id, epochs, so_far.score)):
            raise PoolError(f"trial {trial_id} is not open in this study: it was told before, or not asked here")

    @property
    def open(self) -> list[Trial]:
        """Trials that were asked here and not told yet, by id."""
        with self._changed:
            return [self._given[trial_id] for trial_id in sorted(self._given)]

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be asked: `trials` were, or the strategy is done."""
        return not self._left and self._session.may_ask == 0

    def close(self) -> None:
        """Give the pool free; what is open is asked first by the next study of it. Harmless a second time."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Study of {self.pool.url}: {self._session.finished} told, {len(self._given)} open>"

    def _begun(self, asked: Trial) -> Trial:
        while (trial := self._session.begin(asked.trial_id, platform.node())) is None:
            time.sleep(_RETRY_SECONDS)
        with self._changed:
            self._given[trial.trial_id] = trial
        return trial

    def _is_told_more(self, finished: int, seconds: float) -> bool:
        """Whether more than `finished` trials have ended, within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._session.finished != finished, max(0.0, seconds))

    def _outcome(self, value: float | None, failed: str | None) -> Measurement | Failure:
        if (value is None) == (failed is None):
            raise ConfigError("tell wants either a value or failed='why'")
        if value is None:
            return Failure(FailureKind.ERROR, str(failed))
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{self._metric.name} is {value!r}, expected a number") from None
        if math.isfinite(number) and self._metric.possible(number) != number:
            low, high = self._metric.limits
            raise ConfigError(f"{self._metric.name} is {number:g}, expected a number in [{low:g}, {high:g}]")
        beside = {"valid_loss": number} if self._metric.name == "loss" else {}
        return Measurement(**(self._metric.measured(number) | beside))

    def _nothing(self) -> NothingToAskError:
        if self.is_over:
            return NothingToAskError(
                f"the study is over: {self._session.finished} trials were told, and nothing is left to ask"
            )
        return NothingToAskError(
            f"the strategy wants to be told more first: {len(self._given)} trials are open; tell one of them, or let "
            "other threads do so and give ask(wait=SECONDS)"
        )


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="nao-ray-study-", ignore_cleanup_errors=True)
