"""Look-up in a table of trained architectures: any Parquet or CSV file of a space, by configuration alone.

The table has one column of architecture texts and columns of measurements; the config says which is which. Rows of
one isomorphism class are one architecture: the class's first row stands for it, so a duplicate costs no second query.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from nao_ray import rng
from nao_ray.errors import DataError, GenotypeError
from nao_ray.evaluators.base import Evaluator, EvaluatorConfig
from nao_ray.spaces.base import Genotype
from nao_ray.trial import Fidelity, Measurement, Proposal


class TabularConfig(EvaluatorConfig):
    """Which file, and what its columns mean."""

    path: str
    """A Parquet or CSV file."""
    genotype: str = "arch_str"
    """Column of architecture texts."""
    dialect: str | None = None
    """Notation of that column, one of the space's dialects; the space's own by default."""
    valid: str | None = None
    """Column of the validation accuracy, e.g. `cifar10_valid_acc_200`: what is searched by."""
    test: str | None = None
    """Column of the test accuracy: reported, never searched by."""
    runs: tuple[str, ...] = ()
    """Columns of single runs: a query returns one of them, drawn by the trial's seed, instead of `valid`."""
    cost: str | None = None
    """Column of the training time in seconds, by which a simulated search's clock advances."""
    num_params: str | None = None
    macs: str | None = None
    unit: Literal["percent", "fraction"] = "percent"
    """Unit of the accuracies in the table; measurements are always in [0, 1]."""
    epochs: int | None = Field(default=None, ge=1)
    """Epochs behind the numbers, for the record."""

    @model_validator(mode="after")
    def _some_metric(self) -> Self:
        if self.valid is None and not self.runs:
            raise ValueError("give the column of the validation accuracy (valid), or of single runs (runs)")
        return self


class Tabular(Evaluator[TabularConfig]):
    """Scores a proposal by its row.

    Raises:
        DataError: the file cannot be read, or lacks a column of the config.
    """

    Config: ClassVar[type[EvaluatorConfig]] = TabularConfig

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
        if config.runs:
            values = np.array([self._columns[name][row] for name in config.runs])
            values = values[np.isfinite(values)]  # an architecture may have fewer runs than columns
            accuracy = float(rng.child(proposal.seed, "run").choice(values)) if len(values) else float("nan")
        else:
            accuracy = float(self._columns[str(config.valid)][row])
        return Measurement(
            valid_accuracy=self._fraction(accuracy),
            num_params=self._integer(config.num_params, row),
            macs=self._integer(config.macs, row),
            wall_seconds=float(self._columns[config.cost][row]) if config.cost else None,
            device_seconds=float(self._columns[config.cost][row]) if config.cost else None,
            device="table",
        )

    def test_accuracy(self, genotype: Genotype) -> float:
        """Test accuracy in [0, 1], for the report of a finished search alone.

        Raises:
            DataError: the config names no test column.
        """
        if self.config.test is None:
            raise DataError("this table's config names no test column: give evaluator.test")
        return self._fraction(float(self._columns[self.config.test][self.row(genotype)]))

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

    @property
    def best_valid(self) -> float:
        """The best validation accuracy over the table, in [0, 1]: what a finished study is judged against."""
        column = self._columns[self.config.valid or self.config.runs[0]]
        return self._fraction(float(np.nanmax(column[list(self._rows.values())])))

    def _fraction(self, accuracy: float) -> float:
        return accuracy / 100 if self.config.unit == "percent" else accuracy

    def _integer(self, column: str | None, row: int) -> int | None:
        return int(self._columns[column][row]) if column else None

    @cached_property
    def _rows(self) -> dict[str, int]:
        rows: dict[str, int] = {}
        for row, text in enumerate(self._table[self.config.genotype].to_pylist()):
            rows.setdefault(self.space.canonical(self.space.parse(str(text), self.config.dialect)).key, row)
        return rows

    @cached_property
    def _columns(self) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
        return {
            name: self._table[name].to_numpy().astype(np.float64)
            for name in self._names
            if name != self.config.genotype
        }

    @property
    def _names(self) -> list[str]:
        config = self.config
        names = (config.genotype, config.valid, config.test, *config.runs, config.cost, config.num_params, config.macs)
        return list(dict.fromkeys(name for name in names if name is not None))

    @cached_property
    def _table(self) -> pa.Table:
        path = Path(self.config.path)
        try:
            if path.suffix == ".csv":
                table = csv.read_csv(path)
            else:
                missing = sorted(set(self._names) - set(pq.read_schema(path).names))
                table = pq.read_table(path, columns=[name for name in self._names if name not in missing])
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"cannot read the table {path}: {' '.join(str(error).split())}") from None
        missing = sorted(set(self._names) - set(table.column_names))
        if missing:
            raise DataError(f"the table {path} has no column {', '.join(missing)}; say which in evaluator.*")
        return table
