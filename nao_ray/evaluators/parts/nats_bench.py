"""NATS-Bench's own files of the topology space as a table for `tabular`.

Dong, Liu, Musial, Gabrys, "NATS-Bench", 2021, arXiv 2009.00437; the format is that of its code
(nats_bench/api_utils.py: `pickle_save`, `ArchResults.state_dict`, `ResultsCount.state_dict`; AutoDL-Projects,
exps/NATS-Bench/tss-collect.py, which wrote the files):

    NATS-tss-v1_0-3ffb9-simple/meta.pickle.pbz2      {"meta_archs": [text, ...], ...}
    NATS-tss-v1_0-3ffb9-simple/000000.pickle.pbz2    {"12": results, "200": results}
    NATS-tss-v1_0-3ffb9.pickle.pbz2                  both in one: {"meta_archs": ..., "arch2infos": {0: {"12": ...}}}
    results    {"arch_str": text, "dataset_seed": {data set: [seed, ...]}, "all_results": {(data set, seed): run}}
    run        {"epochs": n, "eval_acc1es": {"x-valid@11": percent}, "train_times": {0: seconds}, "params": millions,
                "flop": millions, ...}

Pickles can run any code when they are read. These are read by an unpickler that knows dictionaries, lists, texts and
numbers and refuses everything else, by name.
"""

from __future__ import annotations

import bz2
import io
import math
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nao_ray.errors import DataError, GenotypeError
from nao_ray.spaces.nas_bench_201 import NasBench201

EXTENSION = ".pickle.pbz2"
EPOCHS = ("12", "200")
"""The two trainings of every architecture."""
RUNS = 3
"""Most runs of one training; the seeds are 777, 888 and 999."""
_TRAININGS = {  # prefix of the table's columns -> data set of the file, and its evaluation sets by column
    "cifar10_valid": ("cifar10-valid", {"cifar10_valid": "x-valid", "cifar10_valid_run_test": "ori-test"}),
    "cifar10": ("cifar10", {"cifar10_test": "ori-test"}),
    "cifar100": ("cifar100", {"cifar100_valid": "x-valid", "cifar100_test": "x-test"}),
    "ImageNet16-120": ("ImageNet16-120", {"ImageNet16-120_valid": "x-valid", "ImageNet16-120_test": "x-test"}),
}
_SIZES = {"cifar10": "cifar10-valid", "cifar100": "cifar100", "ImageNet16-120": "ImageNet16-120"}
"""Suffix of the columns of multiply-adds -> data set of the file."""

Columns = dict[str, list[Any]]


def convert(
    source: Path, target: Path, *, partial: bool = False, watch: Callable[[int, int], None] | None = None
) -> int:
    """Write the table; returns its number of rows.

    Columns: `index`, `arch_str`, `params` (CIFAR-10 head), ``macs_m_*`` in millions; per data set and training of 12 or
    200 epochs ``<data set>_valid_acc_200`` and ``<data set>_test_acc_200`` in percent (means of the runs), the runs'
    validation as ``<data set>_valid_acc_200_run0``, ``cifar10_valid_train_time_200_s`` and the like in seconds.

    Args:
        source: the folder of the files, or the one file.
        target: Parquet file to write.
        partial: take the architectures that are there; otherwise all must be.
        watch: is told how many architectures of how many are done.

    Raises:
        DataError: the source is not what it should be.
    """
    total, entries = _open(source, partial)
    columns: Columns = {}
    rows = 0
    for index, text, where, entry in entries:
        row = {"index": index, "arch_str": text, **_row(entry, text, where)}
        if not columns:
            columns = {name: [] for name in row}
        for name, values in columns.items():
            values.append(row[name])
        rows += 1
        if watch is not None:
            watch(rows, total)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror}") from None
    return rows


# -- files ------------------------------------------------------------------------------------------------------

Entry = tuple[int, str, str, Any]
"""Index, text, where it was read, and what was read."""


def _open(source: Path, partial: bool) -> tuple[int, Iterator[Entry]]:
    """How many architectures there are, and each of them."""
    if source.is_dir():
        meta_path = source / f"meta{EXTENSION}"
        texts = _texts(_read(meta_path), str(meta_path))
        paths = {index: source / f"{index:06d}{EXTENSION}" for index in range(len(texts))}
        there = {index: path for index, path in paths.items() if path.is_file()}
        _check_complete(len(there), len(texts), str(source), partial)
        return len(there), ((index, texts[index], str(path), _read(path)) for index, path in there.items())
    if not source.is_file():
        raise DataError(
            f"there is no {source}: expected NATS-Bench's folder NATS-tss-...-simple or its {EXTENSION} file"
        )
    data = _read(source)
    texts = _texts(data, str(source))
    infos = data.get("arch2infos")
    if not isinstance(infos, Mapping):
        raise DataError(f"{source} holds no results (arch2infos): give the folder that it belongs to")
    _check_complete(len(infos), len(texts), str(source), partial)
    return len(infos), (
        (index, texts[index], f"{source}, architecture {index}", infos[index]) for index in sorted(infos)
    )


def _texts(meta: Any, where: str) -> list[str]:  # noqa: ANN401
    texts = meta.get("meta_archs") if isinstance(meta, Mapping) else None
    if not isinstance(texts, list) or not texts:
        raise DataError(f"{where} lists no architectures (meta_archs): it is not NATS-Bench's")
    try:
        NasBench201().parse(str(texts[0]))
    except GenotypeError as error:
        raise DataError(f"{where} is not of the topology space: {error}") from None
    return texts


def _check_complete(there: int, expected: int, where: str, partial: bool) -> None:
    if there < expected and not (partial and there):
        raise DataError(f"{where} has {there} of {expected} architectures; --partial takes those that are there")


def _read(path: Path) -> Any:  # noqa: ANN401
    try:
        content = bz2.decompress(path.read_bytes())
        return _PlainUnpickler(io.BytesIO(content)).load()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split()) or type(error).__name__}") from None


class _PlainUnpickler(pickle.Unpickler):
    """Dictionaries, lists, tuples, sets, texts, numbers, and numpy's numbers; nothing that runs code."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        found = _KNOWN.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            hint = "; weights are not read, give the folder -simple" if module.startswith("torch") else ""
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is neither a number nor a container{hint}")
        return found

    def persistent_load(self, pid: Any) -> Any:  # noqa: ANN401
        raise pickle.UnpicklingError("it refers to objects outside the file")


class _Dtype:
    """Stands for ``numpy.dtype`` while a number is read; plain numbers alone."""

    def __init__(self, name: str, *_: object) -> None:
        if name not in {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}:
            raise pickle.UnpicklingError(f"it holds numbers of type {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


def _scalar(kind: _Dtype, content: bytes) -> float | int | bool:
    number: float | int | bool = np.frombuffer(content, kind.dtype, count=1)[0].item()
    return number


_KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
}


# -- one architecture -------------------------------------------------------------------------------------------


def _row(entry: Any, text: str, where: str) -> dict[str, Any]:  # noqa: ANN401
    try:
        found = {entry[epochs]["arch_str"] for epochs in EPOCHS}
        if found != {text}:
            raise DataError(f"{where} is of {', '.join(sorted(map(str, found)))}, the list says {text}")
        row = _sizes(entry[EPOCHS[-1]])
        for epochs in EPOCHS:
            row |= _accuracies(entry[epochs], epochs, where)
        return row
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{where} is not laid out as NATS-Bench's results: {type(error).__name__}: {error}") from None


def _sizes(results: Mapping[str, Any]) -> dict[str, Any]:
    sizes: dict[str, Any] = {"params": None}
    for suffix, dataset in _SIZES.items():
        runs = _runs(results, dataset)
        if runs and suffix == "cifar10":
            sizes["params"] = round(runs[0]["params"] * 1e6)
        sizes[f"macs_m_{suffix}"] = float(runs[0]["flop"]) if runs else None
    return sizes


def _accuracies(results: Mapping[str, Any], epochs: str, where: str) -> dict[str, float | None]:
    row: dict[str, float | None] = {}
    for training, (dataset, sets) in _TRAININGS.items():
        runs = _runs(results, dataset)
        for prefix, evaluated in sets.items():
            values = [_last(run, evaluated, where) for run in runs]
            row[f"{prefix}_acc_{epochs}"] = math.fsum(values) / len(values) if values else None
            if evaluated == "x-valid":
                padded = [*values, *[None] * RUNS][:RUNS]
                row |= {f"{prefix}_acc_{epochs}_run{number}": value for number, value in enumerate(padded)}
        times = [math.fsum(run["train_times"].values()) for run in runs if run["train_times"]]
        row[f"{training}_train_time_{epochs}_s"] = math.fsum(times) / len(times) if times else None
    return row


def _runs(results: Mapping[str, Any], dataset: str) -> list[Mapping[str, Any]]:
    return [results["all_results"][dataset, seed] for seed in sorted(results["dataset_seed"].get(dataset, ()))]


def _last(run: Mapping[str, Any], evaluated: str, where: str) -> float:
    """Accuracy after the last epoch, in percent."""
    value = float(run["eval_acc1es"][f"{evaluated}@{run['epochs'] - 1}"])
    if not 0 <= value <= 100:
        raise DataError(f"{where}: accuracy {value} on {evaluated}, expected 0 to 100")
    return value
