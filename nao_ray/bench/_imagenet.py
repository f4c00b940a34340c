"""A made-up ImageNet: noise and a coloured shape of each class, as JPEGs, in every form that ImageNet is had in."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from nao_ray import rng

SPLITS = ("train", "val")


def wnids(classes: int) -> list[str]:
    """Names of the folders of classes."""
    return [f"n{1440764 + 17 * number:08d}" for number in range(classes)]


def picture(number: int, index: int, split: str, size: tuple[int, int] | None = None) -> bytes:
    """JPEG of one picture; the place, kind and colour of its shape are its class's.

    Args:
        number: of its class.
        index: within its class.
        split: `train` or `val`.
        size: width and height, in pixels; None: some 60 by 48, of each another.
    """
    draws = rng.child(number, f"picture of {split}", index)
    width, height = size or (48 + int(draws.integers(0, 24)), 48)
    noise = draws.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    base = Image.fromarray(noise).resize((width, height))
    grain = np.asarray(base, dtype=np.int16) + draws.integers(-12, 13, (height, width, 3), dtype=np.int16)
    base = Image.fromarray(grain.clip(0, 255).astype(np.uint8))
    red, green, blue = (int(value) for value in rng.child(number, "colour").integers(0, 255, 3))
    left, top = width * (number % 5) / 7, height * (number // 5 % 4) / 6
    draw = ImageDraw.Draw(base)
    outline = (left, top, left + width / 2.5, top + height / 2.5)
    (draw.ellipse if number % 2 else draw.rectangle)(outline, fill=(red, green, blue))
    buffer = io.BytesIO()
    base.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def pictures(split: str, classes: int, count: int, size: tuple[int, int] | None) -> Iterator[tuple[int, str, bytes]]:
    """(class, name, JPEG) of `count` pictures a class, in torchvision's order."""
    for number, name in enumerate(wnids(classes)):
        for index in range(count):
            yield number, f"{name}_{index:04d}", picture(number, index, split, size)


def folders(place: Path, classes: int = 20, train: int = 6, val: int = 2, size: tuple[int, int] | None = None) -> Path:
    """`train/CLASS/*.JPEG` and `val/CLASS/*.JPEG`."""
    names = wnids(classes)
    for split, count in zip(SPLITS, (train, val), strict=True):
        for number, name, content in pictures(split, classes, count, size):
            folder = place / split / names[number]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.JPEG").write_bytes(content)
    return place


def parquet(
    place: Path, classes: int = 20, train: int = 6, val: int = 2, size: tuple[int, int] | None = None, rows: int = 7
) -> Path:
    """As data hubs have it: two files of the training split, `image.bytes`, and `label` by number."""
    place.mkdir(parents=True, exist_ok=True)
    for split, name, count, files in zip(SPLITS, ("train", "validation"), (train, val), (2, 1), strict=True):
        made = list(pictures(split, classes, count, size))
        per_file = -(-len(made) // files)
        for file in range(files):
            part = made[file * per_file : (file + 1) * per_file]
            cells = [{"bytes": content, "path": stem} for _, stem, content in part]
            table = pa.table({"image": cells, "label": [number for number, *_ in part]})
            pq.write_table(table, place / f"{name}-{file:05d}-of-{files:05d}.parquet", row_group_size=rows)
    return place


def shards(
    place: Path,
    classes: int = 20,
    train: int = 6,
    val: int = 2,
    size: tuple[int, int] | None = None,
    per_shard: int = 50,
) -> Path:
    """WebDataset's: `key.jpg` beside `key.cls`."""
    place.mkdir(parents=True, exist_ok=True)
    for split, count in zip(SPLITS, (train, val), strict=True):
        made = list(pictures(split, classes, count, size))
        for shard, start in enumerate(range(0, len(made), per_shard)):
            with tarfile.open(place / f"made-{split}-{shard:06d}.tar", "w") as tar:
                for number, name, content in made[start : start + per_shard]:
                    for ending, data in (("jpg", content), ("cls", str(number).encode())):
                        member = tarfile.TarInfo(f"{name}.{ending}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
    return place


FORMS: dict[str, Callable[..., Path]] = {"folders": folders, "parquet": parquet, "shards": shards}
