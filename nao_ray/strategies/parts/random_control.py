"""The control of a search: random architectures, trained alone alike, for as long as all of the search took."""

from __future__ import annotations

from dataclasses import dataclass, field

from nao_ray.trial import Trial, TrialState

_TABLE = "table"  # `device` of what was looked up


@dataclass
class Account:
    """What was told of a kind of trial, and the device seconds it took."""

    told: int = 0
    measured: int = 0
    """Of those told, the ones whose time is known."""
    scored: int = 0
    seconds: float = 0.0
    """Of those measured."""
    lost: float = 0.0
    """Seconds from start to end of those that failed without a measurement: about what they took."""
    best: float | None = None

    def add(self, trial: Trial) -> None:
        """Take in a trial that ended."""
        self.told += 1
        seconds = _seconds(trial)
        if seconds is not None:
            self.measured += 1
            self.seconds += seconds
        elif trial.started_at is not None and trial.finished_at is not None and trial.measurement is None:
            self.lost += (trial.finished_at - trial.started_at).total_seconds()
        if trial.state is TrialState.COMPLETED and trial.score is not None:
            self.scored += 1
            self.best = trial.score if self.best is None else max(self.best, trial.score)


@dataclass
class RandomControl:
    """What has been spent on a search and on its control, and whether that has paid for one more random cell."""

    most: int | None
    """Random cells; None: as many as are paid for."""
    search: Account = field(default_factory=Account)
    """Phases."""
    derived: Account = field(default_factory=Account)
    """Cells that were found, trained alone."""
    random: Account = field(default_factory=Account)
    """Cells of the control."""
    asked: int = 0
    """Random cells so far."""

    @property
    def is_due(self) -> bool:
        """Whether a random cell is to be asked for now."""
        if not self.search.told or (self.most is not None and self.asked >= self.most):
            return False
        cost = self.cost
        if self._costs_nothing:  # a table without times: one for each that was found, or as many as were wanted
            return self.asked < (self.derived.told if self.most is None else self.most)
        if cost is None or not self.asked:
            return not self.asked
        running = self.asked - self.random.measured  # or failed, which took as long, for all that is known
        return self.random.seconds + (running + 1) * cost <= self.spent

    @property
    def spent(self) -> float:
        """Device seconds that the search has taken, with what it lost."""
        return sum(account.seconds + account.lost for account in (self.search, self.derived))

    @property
    def cost(self) -> float | None:
        """Mean device seconds of an architecture trained alone; None: not known."""
        known = self.random.measured + self.derived.measured
        return (self.random.seconds + self.derived.seconds) / known if known else None

    @property
    def _costs_nothing(self) -> bool:
        """Architectures are scored, and take no time, or none that is known."""
        return bool(self.random.scored + self.derived.scored) and not self.cost

    def seconds_to_come(self, epochs: int, cells: int) -> float | None:
        """Device seconds of what has not been told, with the random cells that will be paid for; None: not known.

        As long as no architecture was trained alone it counts as long as an epoch.

        Args:
            epochs: phases of the search that have not ended.
            cells: architectures found, or yet to be found, that have not been trained alone.
        """
        if not self.search.measured:
            return None
        epoch = self.search.seconds / self.search.measured
        if self._costs_nothing or not epoch:
            return epochs * epoch
        cost = self.cost or epoch
        found = epochs * epoch + cells * cost
        failed = self.random.told - self.random.measured  # each is counted as a whole one
        affordable = int((self.spent + found - self.random.seconds) / cost) - failed
        if self.most is not None:
            affordable = min(affordable, self.most - self.random.told)
        return found + max(0, affordable) * cost

    def expected(self, epochs: int, epochs_done: int, cells: int) -> int:
        """Random cells there will be in the end, as far as can be told.

        Args:
            epochs: phases of the search.
            epochs_done: those of them that ended.
            cells: architectures found.
        """
        cost = self.cost
        if cost:
            lost = self.search.lost + self.derived.lost
            paid = self.search.seconds * epochs / max(1, epochs_done) + lost + cells * cost
            found = int(paid / cost)
        else:  # as if a cell took as long as an epoch: their number is a guess, and the time left is right
            found = cells if self._costs_nothing else epochs + cells
        return found if self.most is None else min(found, self.most)

    def summary(self) -> dict[str, float | int | str | None]:
        """What was found beside the control, when both are over."""
        return {
            "best_derived": self.derived.best,
            "best_control": self.random.best,
            "num_derived": self.derived.told,
            "num_control": self.random.told,
            "search_seconds": self.search.seconds + self.search.lost,
            "derived_seconds": self.derived.seconds + self.derived.lost,
            "control_seconds": self.random.seconds,
        }


def _seconds(trial: Trial) -> float | None:
    measured = trial.measurement
    if measured is None or (measured.device == _TABLE and measured.device_seconds is None):  # to look up is no training
        return None
    return measured.wall_seconds if measured.device_seconds is None else measured.device_seconds
