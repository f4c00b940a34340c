"""Files of other people's tables, as Arrow reads them: CSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from nao_ray.errors import DataError

_SEPARATORS = (",", ";", "\t")


def read_table(path: Path) -> pa.Table:
    """The whole file; of a CSV all values as text, so that nothing of a genotype is taken for a number.

    Args:
        path: ends in .csv, .tsv, .parquet, .jsonl, .ndjson or .json, also .gz.

    Raises:
        DataError: it ends otherwise, is not there, or cannot be read.
    """
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    readers = {"csv": _csv, "tsv": _csv, "parquet": "read_parquet(?)"}
    reader = readers | dict.fromkeys(("json", "jsonl", "ndjson"), "read_json_auto(?, maximum_object_size=67108864)")
    if kind not in reader:
        raise DataError(f"{path}: expected a file that ends in .csv, .tsv, .parquet, .jsonl or .json")
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    source, values = reader[kind], [re.sub(r"([*?\[])", r"[\1]", str(path))]
    try:
        if callable(source):
            source, values = source(path, values)
        with duckdb.connect(":memory:") as connection:
            return connection.sql(f"SELECT * FROM {source}", params=values).to_arrow_table()
    except (duckdb.Error, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}") from None


def _csv(path: Path, values: list[Any]) -> tuple[str, list[Any]]:
    """Genotypes have commas, bars and blanks in them, so the separator is the one that the header has most of."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        header = file.readline().decode("utf-8-sig").rstrip("\r\n")
    separator = max(_SEPARATORS, key=header.count)
    names = next(csv.reader([header], delimiter=separator), [])
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        raise DataError(
            f"{path}: its first line names no columns" if not names else f"{path} has two columns {twice[0]!r}"
        )
    options = "delim=?, columns=?, header=true, auto_detect=false, quote='\"', escape='\"'"
    return f"read_csv(?, {options})", [*values, separator, dict.fromkeys(names, "VARCHAR")]
