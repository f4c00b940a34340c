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
_OF_RUNGS = frozenset({"valid", "cost"})
"""Those of them that differ from rung to rung."""
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
    """Epochs behind the numbers: what ``{epochs}`` in the name of a column stands for. A trial that asks for fewer, as
    a rung of a ladder does, gets the column of those: `cifar10_valid_acc_{epochs}`. A column of lists, one value an
    epoch, is told by ``val_losses[{epochs}]``."""
    by_epochs: Mapping[int, Mapping[str, str]] = {}
    """Epochs -> setting -> column, where the names of columns follow no pattern: ``{2: {valid: half_valid_acc}}``. The
    `cost` of fewer epochs is their share of the whole one's, unless its name has ``{epochs}`` or it stands here."""
    tells: Annotated[tuple[int, ...], BeforeValidator(by_commas)] = ()
    """Epochs, ascending and fewer than `epochs`, after which a training that is under way tells its score, as real ones
    do after each: that of the columns of so many epochs, after their share of the time."""
    resumes: bool = False
    """What a trial costs that goes on from a lower rung: the seconds beyond that one's, as with a table whose fewer
    epochs are the beginning of the whole training; by default all of its own, as if it began anew."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:  # noqa: ANN401
        """Columns named by a pattern, and what is measured."""
        if not isinstance(values, Mapping):
            return values
        columns = {key: value for key, value in values.items() if key in _COLUMNS}
        filled = {**values, **{key: _filled(value, "dataset", values.get("dataset")) for key, value in columns.items()}}
        is_accuracy = filled.get("goal", "maximize") == "maximize" and filled.get("unit", _SCALES[0]) in _SCALES
        filled.setdefault("metric", "accuracy" if is_accuracy else _name_of(filled.get("valid")))
        filled.setdefault("unit", _SCALES[0] if filled["metric"] == "accuracy" else "")
        return filled

    @model_validator(mode="after")
    def _some_metric(self) -> Self:
        if self.valid is None and not self.runs:
            raise ValueError("give the column of the validation accuracy (valid), or of single runs (runs)")
        if wrong := [key for columns in self.by_epochs.values() for key in columns if key not in _OF_RUNGS]:
            raise ValueError(
                f"by_epochs: {wrong[0]} has no column for fewer epochs; {', '.join(sorted(_OF_RUNGS))} may"
            )
        if (self.by_epochs or self.resumes) and self.epochs is None:
            raise ValueError("by_epochs and resumes are of fewer epochs than the whole training's: give epochs")
        if list(self.tells) != sorted(set(self.tells)) or (self.tells and not 0 < max(self.tells) < (self.epochs or 0)):
            raise ValueError("tells: give numbers of epochs, ascending, each at least 1 and fewer than epochs")
        if self.metric == "accuracy" and self.unit not in _SCALES:
            raise ValueError(
                f"unit of an accuracy is percent or fraction, not {self.unit!r}; else give metric its name"
            )
        _ = self.measure
        return self

    def at(self, epochs: int | None) -> Self:
        """With the columns of so many epochs.

        Raises:
            ValueError: nothing says which those are.
        """
        given = dict(self.by_epochs.get(epochs or 0, {}))
        fewer = epochs != self.epochs
        if (
            fewer
            and "valid" not in given
            and not any("{epochs}" in str(getattr(self, key)) for key in ("valid", "runs"))
        ):
            raise ValueError(
                f"nothing says which columns are of {epochs} epochs: write {{epochs}} in the name of evaluator.valid, "
                f"or give evaluator.by_epochs={{{epochs}: {{valid: COLUMN}}}}"
            )
        columns = {key: given.get(key, getattr(self, key)) for key in _COLUMNS}
        if fewer:
            columns |= {"runs": ()} if "valid" in given else {}
            columns |= dict.fromkeys(_COLUMNS - {*_OF_RUNGS, "runs"})  # they are read in the whole one's
        return self.model_copy(update={key: _filled(value, "epochs", epochs) for key, value in columns.items()})

    def share_of_cost(self, epochs: int | None) -> float:
        """Of the seconds in the column that is the `cost` of so many epochs, those that they take."""
        own = "{epochs}" in (self.cost or "") or "cost" in self.by_epochs.get(epochs or 0, {})
        return 1.0 if own or epochs is None or self.epochs is None else epochs / self.epochs

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


def _filled(value: object, name: str, known: object) -> object:
    """A column's name with its ``{dataset}`` or ``{epochs}`` filled in; of a list, each."""
    if isinstance(value, list | tuple):
        return type(value)(_filled(each, name, known) for each in value)
    if not isinstance(value, str):
        return value
    mark = f"{{{name}}}"
    if mark in value and known is None:
        raise ValueError(f"the column {value} is named by its {name}: give {name}")
    return value.replace(mark, str(known))
