"""A table of trained architectures: opened, checked, and how its twins are treated.

Twins are texts of one isomorphism class: equal networks. Authors count them once or train each; `TabularConfig.twins`
says which, and by default the table's own values do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nao_ray.errors import DataError, GenotypeError
from nao_ray.evaluators.parts.table_config import TabularConfig, Twins
from nao_ray.spaces.base import Genotype, SearchSpace

Column = NDArray[np.float64]

_FEWEST = 0.5
"""Share of the space that a table must hold, unless it is said to be partial."""
_WORDS: Mapping[Twins, str] = {
    "merge": "the first row stands for its twins",
    "mean": "the mean of their rows stands for twins",
    "distinct": "each row is an architecture of its own",
}


class Table:
    """Rows by architecture; opened at the first use.

    Raises:
        DataError: the file cannot be read, lacks a column of the config, or holds what it should not.
    """

    def __init__(
        self,
        space: SearchSpace[Any],
        config: TabularConfig,
        also: Callable[[], Collection[str]] = tuple,
        whole: Table | None = None,
    ) -> None:
        """Of a file.

        Args:
            space: of its architectures.
            config: its columns are those of one number of epochs (`TabularConfig.at`).
            also: says, when it is opened, which other columns of numbers are wanted.
            whole: the table of the same rows at all epochs, which knows their architectures and twins.
        """
        self.space, self.config, self._also, self._whole = space, config, also, whole

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each architecture by its key, in the order of the table; of merged twins the first."""
        if self.twins == "distinct":
            return {genotype.key: row for row, genotype in enumerate(self._genotypes)}
        return {key: members[0] for key, members in self._classes.items()}

    def key(self, genotype: Genotype) -> str:
        """Under which an architecture stands in `rows`."""
        return genotype.key if self.twins == "distinct" else self.space.twin_key(genotype)

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns of numbers, as they are; where twins stand together by their mean, it is in the first row."""
        columns = self._checked
        if self.twins != "mean":
            return columns
        whole = {self.config.num_params, self.config.macs}
        columns = {name: values if name in whole else values.copy() for name, values in columns.items()}
        for members in self._classes.values():
            for name, values in columns.items():
                if len(members) > 1 and name not in whole and np.isfinite(values[members]).any():
                    values[members[0]] = np.nanmean(values[members])
        return columns

    @cached_property
    def twins(self) -> Twins:
        """How twins are treated: as the config says, or as the values do."""
        if self._whole is not None:
            return self._whole.twins
        if self.config.twins is not None:
            return self.config.twins
        if not self._num_differing:
            return "merge"
        return "distinct" if self.space.may_be_distinct else "mean"

    # -- what is told, and refused --------------------------------------------------------------------------

    @property
    def summary(self) -> str:
        """How many rows there are, and how their twins are treated."""
        several = sum(len(members) > 1 for members in self._classes.values())
        line = f"the table {self.config.path}: {len(self._genotypes):,} rows, "
        if not several:
            return line + "each another network"
        return line + (
            f"{len(self._classes):,} different networks; in {self._num_differing:,} of the {several:,} groups of equal "
            f"ones (twins) the values differ; {_WORDS[self.twins]} (evaluator.twins={self.twins})"
        )

    @property
    def odd(self) -> tuple[str, ...]:
        """What a person should know before a score is believed."""
        missing = self._size - len(self.rows)
        partly = f"{missing:,} of the space's {self._size:,} are not in it, and trials of those fail"
        doubt = self.config.doubt
        return (*((partly,) if missing > 0 else ()), *((doubt,) if doubt else ()))

    def check_coverage(self) -> None:
        """Refuse a table of which a search would mostly miss.

        Raises:
            DataError: most of the space is not in it; says what to set.
        """
        if self.config.partial or len(self.rows) >= _FEWEST * self._size:
            return
        hint = "give the space that the table is of"
        used = self._ops_used
        if used is not None and len(used) < len(self.space.config.ops):
            hint = f"no row has the operations {', '.join(op for op in self.space.config.ops if op not in used)}: set "
            hint += f"space.ops=[{', '.join(used)}]"
        raise DataError(
            f"the table {self.config.path} holds {len(self.rows):,} of the {self._size:,} architectures of the space "
            f"{self.space.name}, so most trials would fail; {hint}, or evaluator.partial=true to search it all the same"
        )

    @property
    def _size(self) -> int:
        """Architectures of the space."""
        return self.space.num_genotypes if self.twins == "distinct" else self.space.num_classes

    @property
    def _ops_used(self) -> list[str] | None:
        """The operations of the space that some row has; None where the space has no such setting."""
        ops = getattr(self.space.config, "ops", None)
        if ops is None:
            return None
        used = np.unique(np.stack([self.space.encode(genotype) for genotype in self._genotypes])) - 1
        return [ops[index] for index in used]

    @cached_property
    def _num_differing(self) -> int:
        """Groups of twins whose rows do not all hold the same values."""
        values = np.stack([self._checked[name] for name in self.config.measured])
        groups = (values[:, members] for members in self._classes.values() if len(members) > 1)
        return sum(not np.array_equal(found, np.repeat(found[:, :1], found.shape[1], 1), True) for found in groups)

    # -- reading --------------------------------------------------------------------------------------------

    @cached_property
    def _classes(self) -> dict[str, list[int]]:
        """Rows of each isomorphism class."""
        if self._whole is not None:
            return self._whole._classes
        classes: dict[str, list[int]] = {}
        for row, genotype in enumerate(self._genotypes):
            classes.setdefault(self.space.twin_key(genotype), []).append(row)
        return classes

    @cached_property
    def _genotypes(self) -> list[Genotype]:
        """Of each row; no two are the same text."""
        if self._whole is not None:
            return self._whole._genotypes
        _ = self._checked
        found: dict[str, Genotype] = {}
        column = self.config.genotype
        for row, text in enumerate(self._table[column].to_pylist()):
            try:
                genotype = self.space.parse(str(text), self.config.dialect)
            except GenotypeError as error:
                raise self._fault(row, column, str(error)) from None
            if genotype.key in found:
                other = list(found).index(genotype.key)
                what = f"the architecture of row {other} again: one row each is expected; evaluator.where selects rows"
                raise self._fault(row, column, what)
            found[genotype.key] = genotype
        return list(found.values())

    @cached_property
    def _checked(self) -> dict[str, Column]:
        config, columns = self.config, self._numbers
        if not self._table.num_rows:
            raise DataError(f"the table {config.path} has no rows" + (" like evaluator.where" if config.where else ""))
        for name in config.measured:
            self._check_measured(name, columns[name])
        if config.runs:
            none = np.isnan(np.stack([columns[name] for name in config.runs])).all(axis=0)
            if none.any():
                raise self._fault(int(np.argmax(none)), ", ".join(config.runs), "no run has a value")
        for name in [name for name in config.numbers if name not in config.measured]:  # the others are as they are
            if (odd := ~(columns[name] >= 0) | np.isinf(columns[name])).any():
                row = int(np.argmax(odd))
                raise self._fault(row, name, f"{columns[name][row]:g}, expected a finite number >= 0")
        return columns

    def _check_measured(self, name: str, values: Column) -> None:
        config = self.config
        odd, expected = np.isinf(values), "expected a finite number"
        if config.metric == "accuracy":
            top = 100.0 if config.in_percent else 1.0
            odd |= (values < 0) | (values > top)
            expected = f"expected an accuracy in 0..{top:g}; evaluator.unit is {config.unit}"
            if word := config.doubt:
                expected = f"{expected}; {word}"
        if name == config.valid:
            odd |= np.isnan(values)
        if odd.any():
            row = int(np.argmax(odd))
            raise self._fault(row, name, f"{values[row]:g}, {expected}")
        if config.in_percent and np.nanmax(values, initial=0.0) <= 1:
            raise DataError(
                f"the table {config.path}, column {name}: no value is over 1, so its unit is not percent; "
                "set evaluator.unit to fraction"
            )

    def _fault(self, row: int, column: str, what: str) -> DataError:
        return DataError(f"the table {self.config.path}, row {row}, column {column}: {what}")

    @cached_property
    def _numbers(self) -> dict[str, Column]:
        columns = {}
        for name in self._names:
            try:
                columns[name] = _values(self._table, name)
            except pa.ArrowException as error:
                raise DataError(f"the table {self.config.path}, column {name}: not numbers: {_line(error)}") from None
        return columns

    @property
    def _names(self) -> list[str]:
        """Of columns of numbers."""
        return list(dict.fromkeys((*self.config.numbers, *self._also())))

    @cached_property
    def _table(self) -> pa.Table:
        path, config = Path(self.config.path), self.config
        names = list(dict.fromkeys((config.genotype, *(_place(name)[0] for name in self._names), *config.where)))
        try:
            if path.suffix == ".csv":
                table = csv.read_csv(path)
                missing = [name for name in names if name not in table.column_names]
            else:
                missing = [name for name in names if name not in pq.read_schema(path).names]
                table = pq.read_table(path, columns=[name for name in names if name not in missing])
            if missing:
                raise DataError(
                    f"the table {path} has no column {', '.join(missing)}; say which in evaluator.* and constraints"
                )
            for name, value in config.where.items():
                table = table.filter(pc.field(name) == value)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"cannot read the table {path}: {_line(error)}; give evaluator.path") from None
        return table


def _place(name: str) -> tuple[str, int | None]:
    """The column of ``val_losses[12]``, and which value of its lists, from 1; of another name it, and None."""
    found = re.fullmatch(r"(.+)\[(\d+)\]", name)
    return (name, None) if found is None else (found[1], int(found[2]))


def _values(table: pa.Table, name: str) -> Column:
    """``[rows]``; NaN where a list ends before its value."""
    column, number = _place(name)
    if number is None:
        found: Column = table[column].cast(pa.float64()).to_numpy()
        return found
    lists = table[column].cast(pa.list_(pa.float64())).to_pylist()
    values = [values[number - 1] if values is not None and 0 < number <= len(values) else None for values in lists]
    return np.array(values, dtype=np.float64)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
