"""What the columns of a table of trained architectures mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from nao_ray.evaluators.base import EvaluatorConfig
from nao_ray.metric import Goal, Metric
from nao_ray.spaces.base import by_commas

Twins = Literal["merge", "distinct", "mean"]

_COLUMNS = frozenset({"valid", "test", "runs", "cost", "num_params", "macs", "latency_ms"})
"""Settings that name columns of numbers."""
_LESS_IS_BETTER = {
    "loss": "loss", "nll": "loss", "perplexity": "perplexity", "ppl": "perplexity", "error": "error", "err": "error",
    "latency": "latency", "mse": "mse", "rmse": "rmse", "mae": "mae", "wer": "wer", "cer": "cer", "bpc": "bpc",
}  # fmt: skip
"""Words in the name of a column, and the metric they say it is."""
_SCALES = ("percent", "fraction")


class TabularConfig(EvaluatorConfig):
    """Which file, and what its columns mean."""

    places: ClassVar[frozenset[str]] = frozenset({"path"})
    of_before: ClassVar[Mapping[str, Any]] = {"twins": "merge"}

    path: str
    """A Parquet or CSV file."""
    genotype: str = "arch_str"
    """Column of architecture texts."""
    dialect: str | None = None
    """Notation of that column, one of the space's dialects; the space's own by default."""
    dataset: str | None = None
    """What ``{dataset}`` in the name of a column stands for: one config serves a table of several data sets."""
    where: Mapping[str, str | int | float | bool] = {}
    """Column -> value: rows with other values are left out, e.g. of other data sets or fidelities."""
    valid: str | None = None
    """Column of what is searched by, e.g. `cifar10_valid_acc_200`: measured on the validation split."""
    test: str | None = None
    """Column of the same on the test split: reported, never searched by."""
    runs: Annotated[tuple[str, ...], BeforeValidator(by_commas)] = ()
    """Columns of single runs: a query returns one of them, drawn by the trial's seed, instead of `valid`."""
    draw: Literal["one", "mean"] = "one"
    """`mean`: a query returns the mean of `runs` instead."""
    cost: str | None = None
    """Column of the training time in seconds, by which a simulated search's clock advances."""
    num_params: str | None = None
    macs: str | None = None
    latency_ms: str | None = None
    goal: Goal = "maximize"
    """`minimize` for losses, errors, perplexities, times."""
    metric: str = Field(default="accuracy", min_length=1)
    """Name of what is measured. By default an accuracy, if it is maximised and in percent or a fraction; otherwise
    what the name of the column says."""
    unit: str = "percent"
    """Of an accuracy `percent` or `fraction`, measurements are always in [0, 1]; of anything else free, e.g. `nats`,
    and by default none: values stay as they are."""
    twins: Twins | None = None
    """How rows of equal cells (of one isomorphism class) are treated: `merge`, the first row stands for them; `mean`,
    the mean of them; `distinct`, each is an architecture of its own and the space is searched without merging. By
    default `merge` where they hold equal values, else `distinct`, or `mean` in a space that only merges."""
    partial: bool = False
    """Search although most of the space is not in the table; trials of what is not there fail."""
    epochs: int | None = Field(default=None, ge=1)
    """Epochs behind the numbers, for the record; ``{epochs}`` in the name of a column stands for it."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:  # noqa: ANN401
        """Columns named by a pattern, and what is measured."""
        if not isinstance(values, Mapping):
            return values
        known = {name: values[name] for name in ("dataset", "epochs") if values.get(name) is not None}
        filled = {key: _filled(value, known) if key in _COLUMNS else value for key, value in values.items()}
        is_accuracy = filled.get("goal", "maximize") == "maximize" and filled.get("unit", _SCALES[0]) in _SCALES
        filled.setdefault("metric", "accuracy" if is_accuracy else _name_of(filled.get("valid")))
        filled.setdefault("unit", _SCALES[0] if filled["metric"] == "accuracy" else "")
        return filled

    @model_validator(mode="after")
    def _some_metric(self) -> Self:
        if self.valid is None and not self.runs:
            raise ValueError("give the column of the validation accuracy (valid), or of single runs (runs)")
        if self.metric == "accuracy" and self.unit not in _SCALES:
            raise ValueError(
                f"unit of an accuracy is percent or fraction, not {self.unit!r}; else give metric its name"
            )
        _ = self.measure
        return self

    @property
    def measure(self) -> Metric:
        """What is measured."""
        return Metric(self.metric, "" if self.metric == "accuracy" else self.unit, self.goal)

    @property
    def in_percent(self) -> bool:
        """Whether the table's values are accuracies in percent, to be brought to [0, 1]."""
        return self.metric == "accuracy" and self.unit == "percent"

    @property
    def measured(self) -> tuple[str, ...]:
        """Columns in `unit`."""
        return tuple(name for name in (self.valid, self.test, *self.runs) if name is not None)

    @property
    def numbers(self) -> tuple[str, ...]:
        """All columns of numbers, each once."""
        others = (self.cost, self.num_params, self.macs, self.latency_ms)
        return tuple(dict.fromkeys((*self.measured, *(name for name in others if name is not None))))

    @property
    def doubt(self) -> str | None:
        """What is odd about the goal, by the names of the columns, in a line."""
        words = {name: less_is_better(name) for name in self.measured}
        suspect = next((name for name, word in words.items() if word is not None), None)
        if suspect is None or self.goal == "minimize":
            return None
        return (
            f"the column {suspect} is maximised, though by its name less is better ({words[suspect]}): "
            "set evaluator.goal=minimize, and evaluator.unit"
        )


def less_is_better(column: str) -> str | None:
    """What a column holds of which less is better, by the words in its name: ``val_loss`` -> ``loss``; else None."""
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", column).lower()
    return next((_LESS_IS_BETTER[word] for word in re.split(r"[^a-z]+", words) if word in _LESS_IS_BETTER), None)


def _name_of(column: object) -> str:
    name = str(column) if column else "score"
    return less_is_better(name) or name


def _filled(value: Any, known: Mapping[str, object]) -> Any:  # noqa: ANN401
    """A column's name with its ``{dataset}`` and ``{epochs}`` filled in; of a list, each."""
    if not isinstance(value, str):
        return [_filled(each, known) for each in value] if isinstance(value, list | tuple) else value
    for name in ("dataset", "epochs"):
        if (mark := f"{{{name}}}") in value:
            if name not in known:
                raise ValueError(f"the column {value} is named by its {name}: give {name}")
            value = value.replace(mark, str(known[name]))
    return value
