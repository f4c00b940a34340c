"""Fashion-MNIST from its four gzipped IDX files.

Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017, arXiv 1708.07747. Debian and Ubuntu ship it: `apt-get install
dataset-fashion-mnist`.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nao_ray.errors import DataError, MissingDataError
from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.images import splits
from nao_ray.tasks.images.base import Images
from nao_ray.tasks.images.image_task import ImageTask, ImageTaskConfig
from nao_ray.tasks.parts.identity import FileIdentity

_GIVEN_OUT = "https://github.com/zalandoresearch/fashion-mnist"


class FashionMnistConfig(ImageTaskConfig):
    """Where the files are."""

    folder: str = "/usr/share/datasets/fashion-mnist"
    """Folder of `train-images-idx3-ubyte.gz` and the rest; the default is where Debian's package puts them."""
    places: ClassVar[frozenset[str]] = frozenset({"folder"})
    image_size: Literal[14, 28] = 28
    """Side of the images, in pixels. At 14 each pixel is the mean of a square and a child costs a third."""


class FashionMnist(ImageTask[FashionMnistConfig]):
    """Ten kinds of clothing, grey, 28x28: 60,000 images for train and validation, 10,000 for test."""

    Config: ClassVar[type[TaskConfig]] = FashionMnistConfig

    name: ClassVar[str] = "fashion_mnist"
    num_classes = 10
    network = "small"

    def __init__(self, config: FashionMnistConfig) -> None:
        super().__init__(config)
        self.image_shape = (1, config.image_size, config.image_size)

    def training_rows(self) -> Images:
        return splits.shrink(self._read("train"), self.config.image_size)

    def test_rows(self) -> Images:
        return splits.shrink(self._read("t10k"), self.config.image_size)

    def _files(self) -> list[FileIdentity] | None:
        return [FileIdentity.of(self._path(f"train-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1")]

    def _read(self, part: str) -> Images:
        images = self._idx(f"{part}-images-idx3-ubyte", (28, 28))
        labels = self._idx(f"{part}-labels-idx1-ubyte", ())
        if len(images) != len(labels):
            raise DataError(f"{self._where}: {len(images)} {part} images but {len(labels)} labels")
        return Images(images[:, None], labels.astype(np.int64))

    def _idx(self, stem: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """``[n, *shape]`` from an IDX file, gzipped or not: magic number, sizes (big-endian), bytes."""
        path = self._path(stem)
        try:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: cannot be read: {error}") from None
        header = 4 * (2 + len(shape))
        magic, *sizes = np.frombuffer(data[:header], dtype=">u4").tolist() or [0]
        if magic != 0x0801 + len(shape) or tuple(sizes[1:]) != shape:  # 08: unsigned bytes; then the number of sizes
            raise DataError(f"{path}: not an IDX file of unsigned bytes ({' x '.join(map(str, ('n', *shape)))})")
        if len(data) != header + int(np.prod(sizes)):
            raise DataError(f"{path}: has {len(data) - header} bytes of data, its header says {int(np.prod(sizes))}")
        return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(sizes)

    def _path(self, stem: str) -> Path:
        folder = Path(self.config.folder).expanduser()
        for path in (folder / f"{stem}.gz", folder / stem):
            if path.is_file():
                return path
        raise MissingDataError(
            f"{self._where}: no file {stem}.gz; task.folder says where it is; given out at {_GIVEN_OUT} and as "
            "Debian's package dataset-fashion-mnist"
        )

    @property
    def _where(self) -> str:
        return f"task {self.name}, folder {self.config.folder}"
