"""Columns as bytes that a browser reads as typed arrays without a copy.

bytes 0-3    NRC1
bytes 4-7    length of the header, uint32
header       JSON, padded with spaces so that what follows begins at a multiple of 8
arrays       little endian, each at a multiple of 8; their places count from the end of the header
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"NRC1"
TYPES = {"f64": "<f8", "f32": "<f4", "i32": "<i4", "i16": "<i2", "u8": "u1"}
"""Kinds of arrays, and numpy's names of them."""
_NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}
_ALIGNED = 8

Column = NDArray[Any]


def encode(header: Mapping[str, Any], columns: Mapping[str, Column]) -> bytes:
    """Columns of one length, with a header to which `rows` and `columns` (name, type, offset) are added.

    Raises:
        ValueError: columns differ in length, or one is of a type that is not in `TYPES`.
    """
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"columns of {sorted(lengths)} rows: expected one length")
    told, body, offset = [], [], 0
    for name, column in columns.items():
        if column.dtype not in _NAMES:
            raise ValueError(f"column {name} is of type {column.dtype}, expected one of {', '.join(TYPES)}")
        told.append({"name": name, "type": _NAMES[column.dtype], "offset": offset})
        data = column.tobytes() + b"\0" * (-column.nbytes % _ALIGNED)
        body.append(data)
        offset += len(data)
    rows = lengths.pop() if lengths else 0
    head = json.dumps({**header, "rows": rows, "columns": told}, allow_nan=False).encode()
    head += b" " * (-(len(MAGIC) + 4 + len(head)) % _ALIGNED)
    return b"".join([MAGIC, np.uint32(len(head)).astype("<u4").tobytes(), head, *body])


def decode(data: bytes) -> tuple[dict[str, Any], dict[str, Column]]:
    """The header and the columns of `encode`.

    Raises:
        ValueError: these are no such bytes.
    """
    if data[:4] != MAGIC:
        raise ValueError(f"columns begin with {data[:4]!r}, expected {MAGIC!r}")
    start = 8 + int(np.frombuffer(data, "<u4", 1, 4)[0])
    header: dict[str, Any] = json.loads(data[8:start])
    rows = header["rows"]
    found = {
        told["name"]: np.frombuffer(data, TYPES[told["type"]], rows, start + told["offset"])
        for told in header["columns"]
    }
    return header, found
