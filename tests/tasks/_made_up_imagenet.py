"""A made-up ImageNet: noise and a coloured shape of each class, as JPEGs, in every form it is had in."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw


def names(classes):
    return [f"n{1440764 + 17 * number:08d}" for number in range(classes)]


def picture(number, index, split, side=48):
    """JPEG of one picture; the place, size and colour of its shape are its class's."""
    draws = np.random.default_rng([number, index, split == "val"])
    width, height = side + int(draws.integers(0, side // 2)), side
    base = Image.fromarray(draws.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)).resize((width, height))
    colour = tuple(int(value) for value in np.random.default_rng(number).integers(0, 255, 3))
    left, top = width * (number % 5) / 7, height * (number // 5 % 4) / 6
    draw = ImageDraw.Draw(base)
    (draw.ellipse if number % 2 else draw.rectangle)((left, top, left + width / 2.5, top + height / 2.5), fill=colour)
    buffer = io.BytesIO()
    base.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def pictures(split, classes, per_class, side=48):
    """(class, name of the file, JPEG), in torchvision's order."""
    for number, name in enumerate(names(classes)):
        for index in range(per_class):
            yield number, f"{name}_{index:04d}", picture(number, index, split, side)


def folders(place, classes=20, train=6, val=2, side=48):
    """`train/CLASS/*.JPEG` and `val/CLASS/*.JPEG`."""
    wnids = names(classes)
    for split, count in (("train", train), ("val", val)):
        for number, name, content in pictures(split, classes, count, side):
            folder = place / split / wnids[number]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.JPEG").write_bytes(content)
    return place


def parquet(place, classes=20, train=6, val=2, side=48):
    """As data hubs have it: two files of the training split, `image.bytes`, and `label` by number."""
    place.mkdir(parents=True, exist_ok=True)
    for split, count, files in (("train", train, 2), ("validation", val, 1)):
        rows = list(pictures(split if split == "train" else "val", classes, count, side))
        per_file = -(-len(rows) // files)
        for file in range(files):
            part = rows[file * per_file : (file + 1) * per_file]
            columns = {
                "image": [{"bytes": content, "path": name} for _, name, content in part],
                "label": [number for number, *_ in part],
            }
            path = place / f"{split}-{file:05d}-of-{files:05d}.parquet"
            pq.write_table(pa.table(columns), path, row_group_size=7)
    return place


def shards(place, classes=20, train=6, val=2, side=48, per_shard=50):
    """WebDataset's: `key.jpg` beside `key.cls`."""
    place.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("val", val)):
        rows = list(pictures(split, classes, count, side))
        for shard, start in enumerate(range(0, len(rows), per_shard)):
            with tarfile.open(place / f"made-{split}-{shard:06d}.tar", "w") as tar:
                for number, name, content in rows[start : start + per_shard]:
                    for ending, data in (("jpg", content), ("cls", str(number).encode())):
                        member = tarfile.TarInfo(f"{name}.{ending}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
    return place
