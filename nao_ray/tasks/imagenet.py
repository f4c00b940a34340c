"""ImageNet (ILSVRC 2012; Russakovsky et al., 2015, arXiv 1409.0575): 1.28 million pictures in 1,000 classes.

What its authors call validation, 50,000 pictures whose labels are known, is what results are told of: the test split
here. A tenth of the training pictures validates, unless full training takes all (`data: all`).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from nao_ray.errors import DataError
from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.images.folder import Folder
from nao_ray.tasks.images.parquet import Table
from nao_ray.tasks.images.picture_task import PictureConfig, PictureTask
from nao_ray.tasks.images.shards import Shards
from nao_ray.tasks.images.sources import Source
from nao_ray.tasks.parts.layouts import NAMES, ROLES, Role, Wanted

_HOW = (
    "expected train/CLASS/*.JPEG and val/CLASS/*.JPEG, or train and validation files of Parquet, or such tar shards. "
    "ImageNet is given out at https://image-net.org/download, and as Parquet at "
    "https://huggingface.co/datasets/ILSVRC/imagenet-1k"
)


class ImageNetConfig(PictureConfig):
    """Where it is."""

    path: str = "imagenet"
    """A folder: of `train/CLASS/*.JPEG` and `val/CLASS/*.JPEG` as torchvision's, of Parquet files, or of tar shards; or
    an address of Parquet files."""
    places: ClassVar[frozenset[str]] = frozenset({"path"})
    hashed: ClassVar[frozenset[str]] = PictureConfig.hashed | {"unused_splits"}
    unused_splits: tuple[str, ...] = ("test",)
    """The pictures without labels."""
    image_shape: tuple[int, int, int] | None = (3, 224, 224)
    network: Literal["auto", "cifar10", "cifar100", "imagenet", "small"] = "imagenet"
    stream: Literal["auto"] | bool = True


class ImageNet(PictureTask[ImageNetConfig]):
    """ImageNet, or a part of it, in any form that it is had in."""

    Config: ClassVar[type[TaskConfig]] = ImageNetConfig

    name: ClassVar[str] = "imagenet"

    _tested: ClassVar[Role] = "validation"

    @property
    def full_training(self) -> str:
        return "nao_imagenet"

    def _open(self) -> Source:
        path, splits = self.config.path, self.config.splits
        if "://" in path:
            return Table(path, splits=splits)
        root = Path(path).expanduser()
        if not root.exists():
            raise DataError(f"{root.absolute()}: there is no ImageNet; task.path says where it is: {_HOW}")
        inside = next((root / name for role in ROLES for name in NAMES[role] if (root / name).is_dir()), None)
        if inside is None or any(inside.glob("*.parquet")) or any(inside.glob("*.tar")):
            return self._of_files(root, splits)
        return Folder(path, splits)

    def _of_files(self, root: Path, splits: Wanted) -> Source:
        endings = {root.suffix} if root.is_file() else {file.suffix for file in root.rglob("*.*")}
        if ".tar" in endings:
            return Shards(self.config.path, splits)
        if endings & {".parquet", ".pq", ".parq"}:
            return Table(self.config.path, splits=splits)
        raise DataError(f"{root.absolute()}: no ImageNet in it; {_HOW}")
