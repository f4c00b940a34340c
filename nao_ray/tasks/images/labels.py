"""Labels as they are given (integers, text, truth values) and the classes they name.

Classes are the distinct labels of the training rows in their order: numbers by size, text by its code points. Integers
0, 1, ..., n-1 are therefore the classes of those numbers. Where the config gives `num_classes`, labels are the numbers
of classes themselves, and some may have no row.

Legend: `n` rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nao_ray.errors import DataError

MOST_CLASSES = 100_000
"""ImageNet-21k has 21,841."""
_SHOWN = 5

Label = int | str


@dataclass(frozen=True)
class Labels:
    """A column of labels: which of the distinct `values` each row has."""

    codes: NDArray[np.int64]
    """``[n]``, indices into `values`."""
    values: tuple[Label, ...]

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def of_column(cls, column: Any, name: str, where: str) -> Labels:  # noqa: ANN401
        """From an Arrow column of integers, text or truth values.

        Raises:
            DataError: it is of another type, or has empty labels.
        """
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        kind = column.type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        if not (is_text or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            raise DataError(f"{where}: column {name} is {kind}, expected integers or text, one label a row")
        empty = column.null_count + (pc.sum(pc.equal(column, "")).as_py() or 0 if is_text else 0)
        if empty:
            raise DataError(f"{where}: column {name} has {empty} empty labels")
        encoded = column.combine_chunks().dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return cls(codes, tuple(map(_plain, encoded.dictionary.to_pylist())))

    @classmethod
    def of_names(cls, names: Sequence[str]) -> Labels:
        """From one name for each row."""
        values, codes = np.unique(np.array(names, dtype=object), return_inverse=True)
        return cls(codes.astype(np.int64), tuple(map(str, values)))


@dataclass(frozen=True)
class Classes:
    """What labels mean: the class of `values[k]` is k."""

    values: tuple[Label, ...]

    @classmethod
    def of(cls, labels: Labels, where: str, count: int | None = None) -> Classes:
        """The classes of training rows.

        Args:
            labels: of the rows.
            where: begins messages.
            count: how many classes there are to be: numbers are then those of classes.

        Raises:
            DataError: one class alone, more than there may be, or labels that look like none; texts that are not so
                many.
        """
        values = labels.values
        if count is not None:
            if not any(isinstance(value, str) for value in values):
                return cls.numbered(count)
            if len(values) != count:
                raise DataError(
                    f"{where}: {len(values):,} classes, {_list(_sorted(values))}, and task.num_classes is {count:,}; "
                    "leave it out, or point task.path at the data that are meant"
                )
        if negative := [value for value in values if isinstance(value, int) and value < 0]:
            row = int(np.flatnonzero(labels.codes == values.index(negative[0]))[0])
            raise DataError(
                f"{where}: label {negative[0]} in row {row}, expected 0 or more; leave out rows without a label"
            )
        if len(values) == 1:
            raise DataError(f"{where}: every image has the label {values[0]!r}; there is nothing to tell apart")
        if len(values) > min(MOST_CLASSES, max(2, len(labels) // 2)):
            raise DataError(
                f"{where}: {len(values):,} distinct labels in {len(labels):,} rows, e.g. {_list(_sorted(values))}: not "
                f"classes; at most {MOST_CLASSES:,}, and two rows of each"
            )
        return cls(_sorted(values))

    @classmethod
    def numbered(cls, count: int) -> Classes:
        """Labels that are numbers of classes already."""
        return cls(tuple(range(count)))

    @property
    def names(self) -> tuple[str, ...]:
        """As text."""
        return tuple(map(str, self.values))

    def __len__(self) -> int:
        return len(self.values)

    def numbers(self, labels: Labels, where: str) -> NDArray[np.int64]:
        """The class of each row, ``[n]``.

        Raises:
            DataError: a label is of no class; says which row.
        """
        known = {value: number for number, value in enumerate(self.values)}
        wrong = [code for code, value in enumerate(labels.values) if value not in known]
        if wrong:
            row = int(np.flatnonzero(np.isin(labels.codes, wrong))[0])
            value = labels.values[labels.codes[row]]
            is_range = self.values == tuple(range(len(self)))
            expected = f"0..{len(self) - 1}" if is_range else f"one of the training labels {_list(self.values)}"
            raise DataError(
                f"{where}: label {value!r} in row {row}, expected {expected}: {len(self):,} classes are learnt; leave "
                "out rows of others, or point task.path at the data that are meant"
            )
        return np.array([known[value] for value in labels.values], dtype=np.int64)[labels.codes]


def check_numbering(names: tuple[str, ...] | None, expected: tuple[str, ...] | None, where: str) -> None:
    """Refuse data that number classes otherwise than the training rows; None: they do not say.

    Raises:
        DataError: they do; says which class.
    """
    if names is None or expected is None or names == expected:
        return
    if len(names) != len(expected):
        what = f"{len(names):,} classes, expected {len(expected):,}"
    else:
        number = next(number for number, pair in enumerate(zip(names, expected, strict=True)) if pair[0] != pair[1])
        what = f"label {number} is {names[number]!r}, expected {expected[number]!r}"
    raise DataError(
        f"{where} number their classes otherwise than the training rows: {what}; point task.path at data of the same "
        "classes"
    )


def _plain(value: Label) -> Label:
    """Truth values as the text they are written as."""
    return str(value).lower() if isinstance(value, bool) else value


def _sorted(values: Sequence[Label]) -> tuple[Label, ...]:
    return tuple(sorted(values))  # of one column, so of one type


def _list(values: Sequence[Label]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(map(repr, values[:_SHOWN])) + more
