"""Look-up in a table of trained architectures: any Parquet or CSV file of a space, by configuration alone.

The table has one column of architecture texts and columns of measurements; the config says which is which. Rows of
one isomorphism class are one architecture: the class's first row stands for it, so a duplicate costs no second query.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, model_validator

from nao_ray import rng
from nao_ray.errors import DataError, GenotypeError
from nao_ray.evaluators.base import Evaluator, EvaluatorConfig
from nao_ray.spaces.base import Genotype
from nao_ray.trial import Fidelity, Measurement, Proposal

Column = NDArray[np.float64]
_COLUMNS = frozenset({"valid", "test", "runs", "cost", "num_params", "macs"})
"""Settings that name columns of numbers."""


class TabularConfig(EvaluatorConfig):
    """Which file, and what its columns mean."""

    path: str
    """A Parquet or CSV file."""
    places: ClassVar[frozenset[str]] = frozenset({"path"})
    genotype: str = "arch_str"
    """Column of architecture texts."""
    dialect: str | None = None
    """Notation of that column, one of the space's dialects; the space's own by default."""
    dataset: str | None = None
    """What ``{dataset}`` in the name of a column stands for: one config serves a table of several data sets."""
    where: Mapping[str, str | int | float | bool] = {}
    """Column -> value: rows with other values are left out, e.g. of other data sets or fidelities."""
    valid: str | None = None
    """Column of the validation accuracy, e.g. `cifar10_valid_acc_200`: what is searched by."""
    test: str | None = None
    """Column of the test accuracy: reported, never searched by."""
    runs: tuple[str, ...] = ()
    """Columns of single runs: a query returns one of them, drawn by the trial's seed, instead of `valid`."""
    draw: Literal["one", "mean"] = "one"
    """`mean`: a query returns the mean of `runs` instead."""
    cost: str | None = None
    """Column of the training time in seconds, by which a simulated search's clock advances."""
    num_params: str | None = None
    macs: str | None = None
    unit: Literal["percent", "fraction"] = "percent"
    """Unit of the accuracies in the table; measurements are always in [0, 1]."""
    epochs: int | None = Field(default=None, ge=1)
    """Epochs behind the numbers, for the record; ``{epochs}`` in the name of a column stands for it."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:  # noqa: ANN401
        """Columns named by a pattern."""
        if not isinstance(values, Mapping):
            return values
        known = {name: values[name] for name in ("dataset", "epochs") if values.get(name) is not None}

        def fill(text: Any) -> Any:  # noqa: ANN401
            if not isinstance(text, str):
                return [fill(each) for each in text] if isinstance(text, (list, tuple)) else text
            for name in ("dataset", "epochs"):
                if (mark := f"{{{name}}}") in text:
                    if name not in known:
                        raise ValueError(f"the column {text} is named by its {name}: give {name}")
                    text = text.replace(mark, str(known[name]))
            return text

        return {key: fill(value) if key in _COLUMNS else value for key, value in values.items()}

    @model_validator(mode="after")
    def _some_metric(self) -> Self:
        if self.valid is None and not self.runs:
            raise ValueError("give the column of the validation accuracy (valid), or of single runs (runs)")
        return self

    @property
    def accuracies(self) -> tuple[str, ...]:
        """Columns in `unit`."""
        return tuple(name for name in (self.valid, self.test, *self.runs) if name is not None)

    @property
    def numbers(self) -> tuple[str, ...]:
        """All columns of numbers, each once."""
        others = (self.cost, self.num_params, self.macs)
        return tuple(dict.fromkeys((*self.accuracies, *(name for name in others if name is not None))))


class Tabular(Evaluator[TabularConfig]):
    """Scores a proposal by its row; the table is opened and checked at the first use.

    Raises:
        DataError: the file cannot be read, lacks a column of the config, or holds what it should not.
    """

    Config: ClassVar[type[EvaluatorConfig]] = TabularConfig
    needs_task: ClassVar[bool] = False

    @classmethod
    def fidelity(cls, config: TabularConfig) -> Fidelity:
        return Fidelity(epochs=config.epochs)

    def evaluate(self, proposal: Proposal) -> Measurement:
        """The row's numbers.

        Raises:
            GenotypeError: the architecture is not in the table.
        """
        row = self.row(proposal.genotype)
        config = self.config
        if config.runs and config.draw == "one":
            values = np.array([self._columns[name][row] for name in config.runs])
            accuracy = float(rng.child(proposal.seed, "run").choice(values[np.isfinite(values)]))
        else:
            accuracy = float(self._mean[row] if config.runs else self._truth[row])
        seconds = float(self._columns[config.cost][row]) if config.cost else None
        return Measurement(
            valid_accuracy=self._fraction(accuracy),
            num_params=self._integer(config.num_params, row),
            macs=self._integer(config.macs, row),
            wall_seconds=seconds,
            device_seconds=seconds,
            device="table",
        )

    def data_hash(self) -> str:
        len(self)  # opens and checks
        return hashlib.sha256(Path(self.config.path).read_bytes()).hexdigest()

    # -- for the study of a finished search ---------------------------------------------------------------

    def valid_accuracy(self, genotype: Genotype) -> float:
        """Validation accuracy without noise, in [0, 1]: of `valid`, or the mean of `runs`.

        Raises:
            GenotypeError: the architecture is not in the table.
        """
        return self._fraction(float(self._truth[self.row(genotype)]))

    def test_accuracy(self, genotype: Genotype) -> float:
        """Test accuracy in [0, 1], for the report of a finished search alone.

        Raises:
            DataError: the config names no test column.
            GenotypeError: the architecture is not in the table.
        """
        if self.config.test is None:
            raise DataError("this table's config names no test column: give evaluator.test")
        return self._fraction(float(self._columns[self.config.test][self.row(genotype)]))

    @cached_property
    def best_valid(self) -> float:
        """The best `valid_accuracy` over the table: what a finished study is judged against."""
        return self._fraction(float(np.max(self._truth[list(self._rows.values())])))

    @cached_property
    def best_test(self) -> float:
        """The best `test_accuracy` over the table.

        Raises:
            DataError: the config names no test column.
        """
        if self.config.test is None:
            raise DataError("this table's config names no test column: give evaluator.test")
        return self._fraction(float(np.nanmax(self._columns[self.config.test][list(self._rows.values())])))

    def genotypes(self) -> list[Genotype]:
        """Every distinct architecture of the table, in the order of its rows; for measurements, not for a search."""
        return [Genotype(self.space.name, key) for key in self._rows]

    def row(self, genotype: Genotype) -> int:
        """Row of an architecture: its class's first.

        Raises:
            GenotypeError: the architecture is not in the table.
        """
        try:
            return self._rows[self.space.canonical(genotype).key]
        except KeyError:
            raise GenotypeError(f"not in the table {self.config.path}: {genotype.key}") from None

    def __len__(self) -> int:
        """Number of distinct architectures in the table."""
        return len(self._rows)

    # -- the table ----------------------------------------------------------------------------------------

    def _fraction(self, accuracy: float) -> float:
        return accuracy / 100 if self.config.unit == "percent" else accuracy

    def _integer(self, column: str | None, row: int) -> int | None:
        return int(self._columns[column][row]) if column else None

    @cached_property
    def _truth(self) -> Column:
        return self._mean if self.config.valid is None else self._columns[self.config.valid]

    @cached_property
    def _mean(self) -> Column:
        """Mean of the runs; an architecture may have fewer runs than there are columns."""
        mean: Column = np.nanmean(np.stack([self._columns[name] for name in self.config.runs]), axis=0)
        return mean

    @cached_property
    def _rows(self) -> dict[str, int]:
        """First row of each architecture, by its canonical key."""
        self._check(self._columns)
        rows: dict[str, int] = {}
        exact: dict[str, int] = {}
        for row, text in enumerate(self._table[self.config.genotype].to_pylist()):
            try:
                genotype = self.space.parse(str(text), self.config.dialect)
            except GenotypeError as error:
                raise self._fault(row, self.config.genotype, str(error)) from None
            if (other := exact.setdefault(genotype.key, row)) != row:
                what = f"the architecture of row {other} again: one row each is expected; evaluator.where selects rows"
                raise self._fault(row, self.config.genotype, what)
            rows.setdefault(self.space.canonical(genotype).key, row)
        return rows

    def _check(self, columns: Mapping[str, Column]) -> None:
        config = self.config
        if not self._table.num_rows:
            raise DataError(f"the table {config.path} has no rows" + (" like evaluator.where" if config.where else ""))
        top = 100.0 if config.unit == "percent" else 1.0
        for name in config.accuracies:
            values = columns[name]
            odd = np.isinf(values) | (values < 0) | (values > top)
            if name == config.valid:
                odd |= np.isnan(values)
            if odd.any():
                row = int(np.argmax(odd))
                expected = f"expected an accuracy in 0..{top:g}; evaluator.unit is {config.unit}"
                raise self._fault(row, name, f"{values[row]:g}, {expected}")
            if config.unit == "percent" and np.nanmax(values, initial=0.0) <= 1:
                raise DataError(
                    f"the table {config.path}, column {name}: no value is over 1, so its unit is not percent; "
                    "set evaluator.unit to fraction"
                )
        if config.runs:
            none = np.isnan(np.stack([columns[name] for name in config.runs])).all(axis=0)
            if none.any():
                raise self._fault(int(np.argmax(none)), ", ".join(config.runs), "no run has a value")
        for name in [name for name in config.numbers if name not in config.accuracies]:
            if (odd := ~(columns[name] >= 0) | np.isinf(columns[name])).any():
                row = int(np.argmax(odd))
                raise self._fault(row, name, f"{columns[name][row]:g}, expected a finite number >= 0")

    def _fault(self, row: int, column: str, what: str) -> DataError:
        return DataError(f"the table {self.config.path}, row {row}, column {column}: {what}")

    @cached_property
    def _columns(self) -> dict[str, Column]:
        columns = {}
        for name in self.config.numbers:
            try:
                columns[name] = self._table[name].cast(pa.float64()).to_numpy()
            except pa.ArrowException as error:
                raise DataError(f"the table {self.config.path}, column {name}: not numbers: {_line(error)}") from None
        return columns

    @cached_property
    def _table(self) -> pa.Table:
        path, config = Path(self.config.path), self.config
        names = list(dict.fromkeys((config.genotype, *config.numbers, *config.where)))
        try:
            if path.suffix == ".csv":
                table = csv.read_csv(path)
                missing = [name for name in names if name not in table.column_names]
            else:
                missing = [name for name in names if name not in pq.read_schema(path).names]
                table = pq.read_table(path, columns=[name for name in names if name not in missing])
            if missing:
                raise DataError(f"the table {path} has no column {', '.join(missing)}; say which in evaluator.*")
            for name, value in config.where.items():
                table = table.filter(pc.field(name) == value)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"cannot read the table {path}: {_line(error)}; give evaluator.path") from None
        return table


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
