"""What the page draws of every trial, as columns of numbers: a fold over the rows of a pool in the order they come.

Rows never change once they are there, so that a page which has the first `n` asks for those from `n` on. Legend: `n`
rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nao_ray.metric import BY_COLUMN, Metric
from nao_ray.page.frames import TYPES, Column
from nao_ray.pool import TRIALS, Ids
from nao_ray.trial import TrialState

_PLAIN = {
    "trial_id": "i32", "log_index": "i32", "round": "i32", "epochs": "i32", "retry_of": "i32", "num_params": "f64",
    "macs": "f64", "predicted_spread": "f32", "wall_seconds": "f32",
}  # fmt: skip
"""Columns that are those of the pool."""
_LATER = {"latency_ms": "f32"}
"""As these, where the pool's schema has them."""
_TIMES = {"started": "started_at", "finished": "finished_at"}
_LABELS = ("origin", "failure_kind", "node", "device", "weights_version")
"""Columns of text, of which there are few different ones: each a number among the labels."""
_OPS = ("normal_ops", "reduction_ops")
_MOST_LABELS = 2**15 - 1
OP = "op:"
"""Begins the name of a column that counts an operation."""
UNKNOWN = 255
"""In such a column: nobody knows."""
PARSED = 50_000
"""Architectures of which operations are counted, in a space whose rows do not tell them."""

_OWN = [name for name in _LATER if name in TRIALS.names]
READ = (
    *_PLAIN, *_OWN, *_TIMES.values(), *_LABELS, *_OPS, *BY_COLUMN, "state", "phase", "predicted_score",
    "device_seconds", "source_trial_id", "parent_trial_id", "genotype",
)  # fmt: skip
"""The columns of the pool that it is made of."""

Count = Callable[[str], Sequence[str]]
"""The operations of a genotype's text."""


class Columns:
    """The columns of one pool so far."""

    def __init__(self, metric: Metric, count: Count, name_of: Callable[[str], str] = str) -> None:
        """As described above.

        Args:
            metric: of the pool.
            count: gives the operations of a genotype; asked where a row does not have them.
            name_of: what people call an operation.
        """
        self._metric, self._count, self._name_of = metric, count, name_of
        self._seen = Ids()
        self._blocks: list[dict[str, Column]] = []
        self._whole: dict[str, Column] = {}
        self.labels: dict[str, dict[str, int]] = {name: {} for name in _LABELS}
        self._ops: dict[str, int] = {}
        self._counted: dict[int, NDArray[np.uint8]] = {}
        self.rows = 0

    def add(self, data: pa.Table) -> None:
        """Take rows in, with the columns `READ`; those that are there already are passed over."""
        data = data.filter(pa.array(self._seen.add(data["trial_id"].to_numpy())))
        if not data.num_rows:
            return
        block = {name: _numbers(data[name], kind) for name, kind in (*_PLAIN.items(), *((n, _LATER[n]) for n in _OWN))}
        block |= {name: _seconds(data[column]) for name, column in _TIMES.items()}
        block |= {name: self._coded(name, data[name]) for name in _LABELS}
        is_phase = pc.is_valid(data["phase"]).to_numpy()
        block["is_phase"] = is_phase.astype(np.uint8)
        block["rung"] = np.where(pc.is_valid(data["parent_trial_id"]).to_numpy(), block["epochs"], -1).astype(np.int32)
        block["parent"] = _numbers(data["parent_trial_id"], "i32")
        block["source"] = _numbers(data["source_trial_id"], "i32")
        block["state"] = (pc.equal(data["state"], TrialState.FAILED.value).to_numpy()).astype(np.uint8)
        block["device_seconds"] = _numbers(pc.coalesce(data["device_seconds"], data["wall_seconds"]), "f32")
        values = _numbers(data[self._metric.column], "f64")
        values[is_phase | (block["state"] == 1)] = np.nan
        block["value"] = values
        block["predicted"] = _numbers(data["predicted_score"], "f32") * np.float32(self._metric.score(1.0))
        texts = data["genotype"].to_numpy()
        hashes = pd.util.hash_array(texts)
        block["architecture"] = (hashes & np.uint64(2**53 - 1)).astype(np.float64)
        block |= self._operations(data, texts, hashes, is_phase)
        self._blocks.append(block)
        self.rows += data.num_rows

    def since(self, first: int) -> tuple[dict[str, Column], dict[str, list[str]]]:
        """Columns of the rows from `first` on, without those that are all missing, and the labels."""
        whole = self._joined()
        found = {name: column[first:] for name, column in whole.items() if name.startswith(OP) or _has_any(column)}
        return found, {name: list(texts) for name, texts in self.labels.items()}

    def _joined(self) -> Mapping[str, Column]:
        if self._blocks:
            blocks = [self._whole, *self._blocks] if self._whole else self._blocks
            lengths = [len(block["trial_id"]) for block in blocks]
            names = dict.fromkeys(name for block in blocks for name in block)
            self._whole = {
                name: np.concatenate(
                    [b[name] if name in b else np.zeros(n, np.uint8) for b, n in zip(blocks, lengths, strict=True)]
                )
                for name in names
            }
            self._blocks = []
        return self._whole

    def _coded(self, name: str, column: pa.ChunkedArray) -> NDArray[np.int16]:
        """Texts as numbers of labels, which are added as they come."""
        found = pc.dictionary_encode(column).combine_chunks()
        labels = self.labels[name]
        numbers = [labels.setdefault(text, len(labels)) for text in found.dictionary.to_pylist()]
        codes = pc.fill_null(found.indices, len(numbers)).to_numpy()
        coded: NDArray[np.int16] = np.array([*(min(number, _MOST_LABELS) for number in numbers), -1], np.int16)[codes]
        return coded

    # -- operations ---------------------------------------------------------------------------------------

    def _operations(
        self, data: pa.Table, texts: NDArray[Any], hashes: NDArray[np.uint64], is_phase: NDArray[np.bool_]
    ) -> dict[str, Column]:
        told = np.logical_or.reduce([pc.is_valid(data[name]).to_numpy() for name in _OPS])
        found = np.zeros((len(texts), 0), np.uint8)
        for name in _OPS:
            found = self._add_told(found, data[name].combine_chunks())
        for row in np.flatnonzero(~told & ~is_phase):
            found = self._add_counted(found, int(row), str(texts[row]), int(hashes[row]))
        found = self._wide(found)
        found[is_phase] = UNKNOWN
        return {f"{OP}{name}": np.ascontiguousarray(found[:, place]) for name, place in self._ops.items()}

    def _add_told(self, found: NDArray[np.uint8], lists: pa.ListArray[Any]) -> NDArray[np.uint8]:
        coded = pc.dictionary_encode(pc.list_flatten(lists))
        places = np.array([self._place(op) for op in coded.dictionary.to_pylist()], np.int64)
        found = self._wide(found)
        if len(places):
            width = found.shape[1]
            at = pc.list_parent_indices(lists).to_numpy() * width + places[coded.indices.to_numpy()]
            counts = np.bincount(at, minlength=found.size).reshape(found.shape)
            found = found + np.minimum(counts, UNKNOWN - 1).astype(np.uint8)
        return found

    def _add_counted(self, found: NDArray[np.uint8], row: int, text: str, key: int) -> NDArray[np.uint8]:
        counts = self._counted.get(key)
        if counts is None and len(self._counted) < PARSED:
            places = [self._place(op) for op in self._count(text)]
            counts = np.minimum(np.bincount(places, minlength=len(self._ops)), UNKNOWN - 1).astype(np.uint8)
            self._counted[key] = counts
        found = self._wide(found)
        if counts is None:
            found[row] = UNKNOWN
        else:
            found[row, : len(counts)] = counts
        return found

    def _place(self, op: str) -> int:
        return self._ops.setdefault(self._name_of(op), len(self._ops))

    def _wide(self, found: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """With a column for each operation that is known by now."""
        missing = len(self._ops) - found.shape[1]
        return np.pad(found, ((0, 0), (0, missing))) if missing else found


def _numbers(column: pa.ChunkedArray, kind: str) -> Column:
    """Numbers, missing ones as -1 where there are integers alone, else as NaN."""
    missing: float = np.nan if kind[0] == "f" else -1
    values = pc.cast(column, pa.float64()) if kind[0] == "f" else column
    found: Column = pc.fill_null(values, missing).to_numpy().astype(TYPES[kind])
    return found


def _seconds(column: pa.ChunkedArray) -> Column:
    """Times as seconds since 1970."""
    return _numbers(pc.divide(pc.cast(pc.cast(column, pa.int64()), pa.float64()), 1e6), "f64")


def _has_any(column: Column) -> bool:
    """Whether a value is not missing."""
    if column.dtype.kind == "f":
        return bool(np.isfinite(column).any())
    return column.dtype == np.uint8 or bool((column != -1).any())
