"""Look-up in a table of trained architectures: any Parquet or CSV file of a space, by configuration alone.

The table has one column of architecture texts and columns of measurements; the config says which is which, what is
measured and whether more of it is better.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nao_ray.errors import ConfigError, DataError, GenotypeError
from nao_ray.evaluators.base import Evaluator, EvaluatorConfig
from nao_ray.evaluators.parts.table import Column, Table
from nao_ray.evaluators.parts.table_config import TabularConfig
from nao_ray.evaluators.parts.table_rungs import Rung
from nao_ray.limits import Limits
from nao_ray.metric import Metric
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.tasks.base import Facts, Shapes, Task
from nao_ray.trial import Fidelity, Interim, Measurement, Proposal


class Tabular(Evaluator[TabularConfig]):
    """Scores a proposal by its row; the table is opened and checked at the first use.

    Raises:
        DataError: the file cannot be read, lacks a column of the config, or holds what it should not.
    """

    Config: ClassVar[type[EvaluatorConfig]] = TabularConfig
    needs_task: ClassVar[bool] = False
    keeps_states: ClassVar[bool] = False

    def __init__(self, space: SearchSpace[Any], task: Task[Any] | None, config: TabularConfig) -> None:
        super().__init__(space, task, _at(config, config.epochs))
        self._settings = config
        self._table = Table(space, self.config, lambda: self._bounded.values())
        self._whole = Rung(self._table)
        self._rungs: dict[int | None, Rung] = {None: self._whole, config.epochs: self._whole}

    @classmethod
    def fidelity(cls, config: TabularConfig) -> Fidelity:
        return Fidelity(epochs=config.epochs)

    @classmethod
    def metric(cls, config: TabularConfig, task: Task[Any] | None) -> Metric:  # noqa: ARG003
        return config.measure

    @classmethod
    def check(cls, space: SearchSpace[Any], shapes: Shapes | None, config: TabularConfig) -> None:  # noqa: ARG003
        for epochs in (config.epochs, *config.tells):
            _at(config, epochs)

    @classmethod
    def check_rungs(cls, config: TabularConfig, epochs: Sequence[int]) -> None:
        for each in epochs:
            _at(config, each)

    def evaluate(self, proposal: Proposal) -> Measurement:
        """The row's numbers.

        Raises:
            GenotypeError: the architecture is not in the table.
        """
        self.limits.refuse(self.figures(proposal.genotype))
        row = self.row(proposal.genotype)
        config, rung = self.config, self._rung(proposal.fidelity.epochs)
        seconds = rung.seconds(row)
        if seconds is not None and config.resumes and (before := self.epochs_before(proposal)):
            seconds -= self._rung(before).seconds(row) or 0.0
        return Measurement(
            **config.measure.measured(self._scaled(rung.value(row, proposal.seed))),
            num_params=self._integer(config.num_params, row),
            macs=self._integer(config.macs, row),
            latency_ms=float(self._table.columns[config.latency_ms][row]) if config.latency_ms else None,
            wall_seconds=seconds,
            device_seconds=seconds,
            device="table",
        )

    def course(self, proposal: Proposal, measured: Measurement) -> list[tuple[float, Interim]]:
        row, whole = self.row(proposal.genotype), measured.wall_seconds or 0.0
        epochs = proposal.fidelity.epochs or self.config.epochs or 0
        return [
            (whole * told / epochs, Interim(proposal.trial_id, told, self._score(self._rung(told), row, proposal.seed)))
            for told in self.config.tells
            if told < epochs
        ]

    def _score(self, rung: Rung, row: int, seed: int) -> float:
        return self.measure.score(self._scaled(rung.value(row, seed)))

    def _rung(self, epochs: int | None) -> Rung:
        """The table after so many epochs; None: after all."""
        if epochs not in self._rungs:
            table = Table(self.space, _at(self._settings, epochs), whole=self._table)
            self._rungs[epochs] = Rung(table, self._settings.share_of_cost(epochs))
        return self._rungs[epochs]

    @classmethod
    def check_limits(cls, config: TabularConfig, limits: Limits) -> None:
        """Any column of the table may be limited: whether there is one is seen when it is opened."""

    @classmethod
    def recorded(cls, config: TabularConfig) -> tuple[str, ...]:
        return tuple(name for name in ("num_params", "macs", "latency_ms") if getattr(config, name) is not None)

    @property
    def _bounded(self) -> dict[str, str]:
        """Columns by the name of a limit or an aim: that of a setting (`num_params`), or the column's own."""
        config = self.config
        own = {"num_params": config.num_params, "macs": config.macs, "latency_ms": config.latency_ms}
        return {name: own.get(name) or name for name in (*self.limits.by_name, *self.aims)}

    def figures(self, genotype: Genotype) -> Mapping[str, float]:
        """As the table has them; NaN, which no limit allows, of what is not in it."""
        bounded = self._bounded
        if not bounded:
            return {}
        row = self._table.rows.get(self._table.key(genotype))
        return {
            name: math.nan if row is None else float(self._table.columns[column][row])
            for name, column in bounded.items()
        }

    def data_hash(self) -> str:
        return self.facts().digest

    def facts(self) -> Facts:
        return self._facts

    @cached_property
    def _facts(self) -> Facts:
        self._table.check_coverage()  # opens and checks
        digest = hashlib.sha256(Path(self.config.path).read_bytes()).hexdigest()
        return Facts(digest, self._table.summary, self._table.odd)

    def settled(self) -> Mapping[str, Mapping[str, Any]]:
        """How twins are treated, in the table and in the space.

        Raises:
            ConfigError: they are to be distinct, in a space that only merges them.
        """
        twins = self._table.twins
        if twins != "distinct":
            return {"evaluator": {"twins": twins}}
        if not self.space.may_be_distinct:
            raise ConfigError(f"evaluator.twins: the space {self.space.name} merges twins; choose merge or mean")
        return {"evaluator": {"twins": twins}, "space": {"twins": twins}}

    # -- for the study of a finished search ---------------------------------------------------------------

    def valid(self, genotype: Genotype) -> float:
        """What is searched by, without noise: of `valid`, or the mean of `runs`; accuracies in [0, 1].

        Raises:
            GenotypeError: the architecture is not in the table.
        """
        return self._scaled(float(self._whole.truth[self.row(genotype)]))

    def test(self, genotype: Genotype) -> float:
        """The same on the test split, for the report of a finished search alone.

        Raises:
            DataError: the config names no test column.
            GenotypeError: the architecture is not in the table.
        """
        return self._scaled(float(self._test[self.row(genotype)]))

    def seconds(self, genotype: Genotype) -> float | None:
        """Of its whole training; None: the table has none.

        Raises:
            GenotypeError: the architecture is not in the table.
        """
        return self._whole.seconds(self.row(genotype))

    def rank(self, genotype: Genotype) -> int:
        """Of its `valid` in the table, 1 the best.

        Raises:
            GenotypeError: the architecture is not in the table.
        """
        return self.rank_of(self.valid(genotype))

    def rank_of(self, value: float) -> int:
        """1 plus how many architectures of the table are better than a `valid`."""
        if math.isnan(value):
            return len(self) + 1
        known = self._ordered
        if self.measure.more_is_better:
            return 1 + len(known) - int(np.searchsorted(known, value, side="right"))
        return 1 + int(np.searchsorted(known, value, side="left"))

    @cached_property
    def _ordered(self) -> Column:
        """`valid` of all architectures that have one, ascending."""
        values = np.array([self._scaled(float(self._whole.truth[row])) for row in self._table.rows.values()])
        return np.sort(values[~np.isnan(values)])

    @cached_property
    def best_valid(self) -> float:
        """The best `valid` of the table: what a finished study is judged against."""
        return self._best(self._whole.truth)

    @property
    def median_valid(self) -> float:
        """The median `valid` of the table's architectures."""
        return float(np.median(self._ordered))

    def genotypes(self) -> list[Genotype]:
        """Every distinct architecture of the table, in the order of its rows; for measurements, not for a search."""
        return [Genotype(self.space.name, key) for key in self._table.rows]

    def row(self, genotype: Genotype) -> int:
        """Row of an architecture; of merged twins the first.

        Raises:
            GenotypeError: the architecture is not in the table.
        """
        try:
            return self._table.rows[self._table.key(genotype)]
        except KeyError:
            raise GenotypeError(f"not in the table {self.config.path}: {genotype.key}") from None

    def __len__(self) -> int:
        """Number of distinct architectures in the table."""
        return len(self._table.rows)

    # -- columns ------------------------------------------------------------------------------------------

    def _scaled(self, value: float) -> float:
        return value / 100 if self.config.in_percent else value

    def _best(self, values: Column) -> float:
        best = np.nanmax if self.config.measure.more_is_better else np.nanmin
        return self._scaled(float(best(values[list(self._table.rows.values())])))

    def _integer(self, column: str | None, row: int) -> int | None:
        return int(self._table.columns[column][row]) if column else None

    @property
    def _test(self) -> Column:
        if self.config.test is None:
            raise DataError("this table's config names no test column: give evaluator.test")
        return self._table.columns[self.config.test]


def _at(config: TabularConfig, epochs: int | None) -> TabularConfig:
    """`TabularConfig.at`, its complaint as one of the configuration."""
    try:
        return config.at(epochs)
    except ValueError as error:
        raise ConfigError(f"evaluator: {error}", "evaluator") from None
