"""What the trials of a search are measured by: a number with a name, a unit and a direction.

Inside a search every score is such that more is better (`Measurement.score`, predictions, rewards, standings); in the
pool's columns and before people a value stands in its own unit. `Metric` is the way from one to the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Goal = Literal["maximize", "minimize"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure of trials.

    Raises:
        ValueError: the goal is unknown, or an accuracy is minimised or a perplexity maximised.
    """

    name: str
    unit: str = ""
    """As it is shown after a value; of an accuracy none, it is in [0, 1]."""
    goal: Goal = "maximize"

    def __post_init__(self) -> None:
        expected = {"accuracy": "maximize", "perplexity": "minimize"}.get(self.name, self.goal)
        if self.goal not in ("maximize", "minimize") or self.goal != expected:
            choices = expected if self.name in ("accuracy", "perplexity") else "maximize or minimize"
            raise ValueError(f"the goal of metric {self.name} is {self.goal!r}, expected {choices}")

    @property
    def more_is_better(self) -> bool:
        """Whether the best value is the largest."""
        return self.goal == "maximize"

    @property
    def column(self) -> str:
        """The pool's column of its values."""
        return {"accuracy": "valid_accuracy", "perplexity": "valid_perplexity"}.get(self.name, "valid_score")

    @property
    def test_column(self) -> str:
        """The column of a full training's value on the test split."""
        return self.column.replace("valid", "test")

    @property
    def label(self) -> str:
        """``validation accuracy``, ``validation loss in nats``."""
        return f"validation {self.name}" + (f" in {self.unit}" if self.unit else "")

    def score(self, value: float) -> float:
        """A value as a score, of which more is better; and a score as a value."""
        return value if self.more_is_better else -value

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest value that there can be."""
        return {"accuracy": (0.0, 1.0), "perplexity": (1.0, math.inf)}.get(self.name, (-math.inf, math.inf))

    def possible(self, value: float) -> float:
        """The nearest value that there can be."""
        least, most = self.limits
        return min(most, max(least, value))

    def measured(self, value: float) -> dict[str, Any]:
        """The fields of a `Measurement` that hold a value."""
        return {self.column: value} | self._goal

    @property
    def _goal(self) -> dict[str, Any]:
        return {"goal": self.goal} if self.column == "valid_score" else {}

    def tested(self, value: float, loss: float, top5: float | None = None) -> dict[str, Any]:
        """The columns of a full training that hold what the test split gave.

        Args:
            value: in the metric's unit.
            loss: in nats.
            top5: share of examples whose class is among the five likeliest; None: there are few classes, or none.
        """
        beside = {} if top5 is None else {"test_top5": top5}
        return {self.test_column: value, **beside, "test_loss": loss} | self._goal

    def told(self, tested: Mapping[str, Any]) -> str:
        """Such columns in a line of words: ``0.7431, top-5 0.9180 (loss 1.0342)``."""
        top5 = tested.get("test_top5")
        beside = "" if top5 is None else f", top-5 {top5:.4f}"
        return f"{self.words(self.score(tested[self.test_column]))}{beside} (loss {tested['test_loss']:.4f})"

    def text(self, value: float) -> str:
        """A value as people read it, without the unit: ``0.9321``, ``80.12``, ``5.577``."""
        if self.name == "accuracy":
            return f"{value:.4f}"
        return f"{value:.2f}" if self.name == "perplexity" else f"{value:.5g}"

    def words(self, score: float) -> str:
        """A score in a line of words: ``0.9321``, ``perplexity 80.12``, ``loss 5.577 nats``."""
        text = self.text(self.score(score))
        return text if self.name == "accuracy" else " ".join(filter(None, (self.name, text, self.unit)))


ACCURACY = Metric("accuracy")
PERPLEXITY = Metric("perplexity", goal="minimize")
DEFAULT = ACCURACY
"""Where nobody says what is measured."""


BY_COLUMN = {metric.column: metric for metric in (ACCURACY, PERPLEXITY, Metric("score"))}
"""By the column of its values, how they are written; of the last one name and goal are not known."""
SCORED = (*BY_COLUMN, "goal")
"""Where `score_of` finds a score, in a `Measurement` and in the columns of the pool."""


def score_of(
    accuracy: float | None, perplexity: float | None, value: float | None, goal: Goal | str | None
) -> float | None:
    """The score in the fields or columns `SCORED`; None where there is none."""
    if accuracy is not None:
        return accuracy
    if perplexity is not None:
        return PERPLEXITY.score(perplexity)
    return -value if value is not None and goal == "minimize" else value


def to_plain(metric: Metric) -> dict[str, str]:
    """For a manifest."""
    return {"name": metric.name, "unit": metric.unit, "goal": metric.goal}


def from_plain(value: object) -> Metric:
    """From a manifest. Pools that are older than metrics hold accuracies."""
    if not isinstance(value, Mapping):
        return DEFAULT
    goal: Goal = "minimize" if value.get("goal") == "minimize" else "maximize"
    return Metric(str(value.get("name")), str(value.get("unit") or ""), goal)
