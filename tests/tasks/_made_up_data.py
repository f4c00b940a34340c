"""Small data sets on disk in the forms people have, their test splits broken on request."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

PIXELS = 3 * 32 * 32


def images(count: int, seed: int, shape: tuple[int, ...] = (3, 32, 32)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(count, *shape), dtype=np.uint8)


def labels(count: int, classes: int) -> np.ndarray:
    return np.arange(count) % classes


def cifar_binary(folder: Path, *, hundred: bool = False, per_file: int = 20) -> Path:
    """The binary version; the test file is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["train.bin"] if hundred else [f"data_batch_{batch}.bin" for batch in range(1, 6)]
    classes = 100 if hundred else 10
    count = 200 if hundred else per_file
    for seed, name in enumerate(names):
        heads = labels(count, classes)[:, None].astype(np.uint8)
        if hundred:
            heads = np.hstack([heads // 5, heads])  # coarse, fine
        (folder / name).write_bytes(np.hstack([heads, images(count, seed).reshape(count, -1)]).tobytes())
    return folder


def python2_batch(data: np.ndarray, key: str, values: list[int]) -> bytes:
    """A pickle as Python 2 wrote CIFAR's: protocol 2, byte strings, an array built from its bytes."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    numbers = b"".join(b"K" + bytes([value]) for value in values)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04" + text(b"b") + b"\x87Rq\x05("
        + b"K\x01" + b"M" + struct.pack("<H", len(values)) + b"M\x00\x0c\x86q\x06cnumpy\ndtype\nq\x07" + text(b"u1")
        + b"K\x00K\x01\x87Rq\x08(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + text(data.tobytes()) + b"tb"
    )  # fmt: skip
    files = b"](" + b"".join(text(b"image_%d.png" % index) for index in range(len(values))) + b"e"
    return (
        b"\x80\x02}q\x01(" + text(b"data") + array + text(key.encode()) + b"](" + numbers + b"e"
        + text(b"batch_label") + text(b"training batch 1 of 5") + text(b"filenames") + files + b"u."
    )  # fmt: skip


def cifar_python(folder: Path, *, hundred: bool = False, python2: bool = True) -> Path:
    """The Python version, of 20 images a file (200 for CIFAR-100); the test file is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["train"] if hundred else [f"data_batch_{batch}" for batch in range(1, 6)]
    key, count = ("fine_labels", 200) if hundred else ("labels", 20)
    for seed, name in enumerate(names):
        data, values = images(count, seed).reshape(count, -1), labels(count, 100 if hundred else 10).tolist()
        content = (
            python2_batch(data, key, values)
            if python2
            else pickle.dumps({b"data": data.tobytes(), key.encode(): values, b"coarse_labels": [3] * count})
        )
        (folder / name).write_bytes(content)
    return folder


def fashion(folder: Path, count: int = 60) -> Path:
    """The two training files; the test files are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, magic, array in (
        ("train-images-idx3-ubyte", 0x0803, images(count, 0, (28, 28))),
        ("train-labels-idx1-ubyte", 0x0801, labels(count, 10).astype(np.uint8)),
    ):
        header = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
        (folder / f"{stem}.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return folder


def encoded(image: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    picture.save(buffer, form, **({"quality": 95} if form == "JPEG" else {}))
    return buffer.getvalue()


def table(
    path: Path,
    *,
    form: str = "PNG",
    train: int = 40,
    test: int = 10,
    classes: int = 4,
    shape: tuple[int, int, int] = (3, 12, 12),
    names: tuple[str, str, str] = ("image", "label", "split"),
    broken_test: bool = False,
    split_column: bool = True,
    struct_column: bool = False,
) -> np.ndarray:
    """A table of `train` + `test` rows, mixed; returns the training images in order."""
    count = train + test
    pixels = images(count, 0, shape)
    is_test = np.arange(count) % 5 == 4 if test else np.zeros(count, dtype=bool)
    cells: list[Any] = [image.tobytes() if form == "raw" else encoded(image, form) for image in pixels]
    if broken_test:
        cells = [b"broken" if broken else cell for cell, broken in zip(cells, is_test, strict=True)]
    if struct_column:
        cells = [{"bytes": cell, "path": None} for cell in cells]
    columns: dict[str, Any] = {names[0]: cells, names[1]: labels(count, classes)}
    if split_column:
        columns[names[2]] = np.where(is_test, "test", "train")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=16)
    return pixels[~is_test]


def folder(
    place: Path, *, per_class: int = 12, classes: tuple[str, ...] = ("bear", "cat", "dog"), seed: int = 0
) -> Path:
    """`class/picture.png`, 8x8 in colour."""
    for number, name in enumerate(classes):
        (place / name).mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images(per_class, seed * 100 + number, (3, 8, 8))):
            (place / name / f"{index}.png").write_bytes(encoded(image, "PNG"))
    return place


def text(folder, end="\n", ending=".txt"):
    """A folder of three texts of a few words, some of which are not in the training text."""
    words = ["the", "cat", "sat", "on", "mat", "<unk>"]
    for split, lines in (("train", 80), ("valid", 20), ("test", 20)):
        rows = [" ".join(words[(line * 7 + place) % 6] for place in range(5)) for line in range(lines)]
        rows[3] += "" if split == "train" else f" {split}ed"
        (folder / f"made.{split}{ending}").write_bytes("".join(f" {row} {end}" for row in rows).encode())
    return folder
