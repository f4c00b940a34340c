"""The base of every image task: read the rows a search may see, check, shrink and split them once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nao_ray.errors import DataError
from nao_ray.metric import ACCURACY, Metric
from nao_ray.tasks.base import Facts, Shapes, Task, TaskConfig
from nao_ray.tasks.images import splits
from nao_ray.tasks.images.base import Images, ImageShapes, Split
from nao_ray.tasks.parts.identity import FileIdentity, facts_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from nao_ray.training.objective import Objective, Scores
    from nao_ray.training.recipe import Recipe

_MANY = 100  # classes of which the five likeliest are told too
_NAMED = 10  # at most that many classes are told by name


class ImageTaskConfig(TaskConfig):
    """What every image task can be told."""

    split_seed: int = Field(default=0, ge=0)
    """Names the 90/10 split into training and validation rows, where the data have none, and the rows that `limit`
    keeps."""
    limit: int | None = Field(default=None, ge=10)
    """Training and validation rows together, classes in their proportions; None: all."""


C = TypeVar("C", bound=ImageTaskConfig)


class ImageTask(Task[C]):
    """Images in classes. Writes a task's methods; a task writes its shapes, `training_rows` and `test_rows`."""

    Config: ClassVar[type[TaskConfig]] = ImageTaskConfig

    metric: ClassVar[Metric] = ACCURACY
    num_classes: int
    image_shape: tuple[int, int, int]
    """``(C, H, W)``."""
    network: str
    """The stem its networks have: `cifar10`, `cifar100`, `imagenet` or `small`."""

    @property
    def shapes(self) -> Shapes:
        return ImageShapes(*self.image_shape, num_classes=self.num_classes, network=self.network)

    @property
    def full_training(self) -> str:
        return f"nao_{self.network}" if self.network in ("cifar10", "cifar100") else "short"

    @abstractmethod
    def training_rows(self) -> Split:
        """All training rows, in a fixed order; may apply `limit` itself, and must not read test rows."""

    def validation_rows(self) -> Split | None:
        """The same of the validation split; None: the data have none, and a tenth of the training rows is it."""
        return None

    @abstractmethod
    def test_rows(self) -> Split:
        """The test rows."""

    def _files(self) -> list[FileIdentity] | None:
        """The files that `load` reads; None: that cannot be told, or reading them costs nothing."""
        return None

    def _layout(self) -> tuple[str, tuple[str, ...]]:
        """How the splits are told apart, in words, and what is odd about them."""
        return "", ()

    @property
    def class_names(self) -> Sequence[str]:
        """``[num_classes]``."""
        return tuple(map(str, range(self.num_classes)))

    def load(self) -> tuple[Split, Split]:
        train, valid = self._checked(self.training_rows(), "training"), self.validation_rows()
        if valid is None:
            train, valid = splits.split_images(self._limited(train, "train"), self.config.split_seed, self._where)
        else:
            sizes = (len(train), len(valid))
            valid = self._limited(self._checked(valid, "validation"), "validation", sizes)
            train = self._limited(train, "train", sizes)
        if len(train) < 2:
            raise DataError(f"{self._where}: {len(train)} training image makes no step of training; at least 2")
        if len(np.unique(train.labels)) < 2:
            raise DataError(f"{self._where}: every training image has one label; there is nothing to tell apart")
        return train, valid

    def too_few(self, examples: int, recipe: Recipe, where: str, do: str = "train", workers: int = 1) -> str:
        del where
        least = min(recipe.batch, 2 * workers)  # a batch may be larger than all of them
        if examples >= least:
            return ""
        return (
            f"{self._where}: {examples} image{'s' * (examples != 1)} {do}, and a step takes "
            f"{f'2 for each of {workers} workers' if workers > 1 else '2'}; give more (task.limit)"
            f"{', or take fewer workers' * (workers > 1)}"
        )

    def objective(self, device: torch.device, recipe: Recipe, *, all_data: bool = False) -> Objective:
        from nao_ray.training.images import ImageObjective
        from nao_ray.training.recipe import ImageRecipe, expect

        train, valid = self.load()
        if all_data:
            train, valid = train.joined(valid), valid.take(np.zeros(0, dtype=np.int64))
        told = expect(ImageRecipe, recipe, f"task {self.name}")
        return ImageObjective.of(train, valid, device, told, top5=self._tells_top5)

    def test_scores(
        self, network: nn.Module, constants: Mapping[str, Tensor], device: torch.device, recipe: Recipe
    ) -> Scores:
        from nao_ray.training.images import test_scores
        from nao_ray.training.recipe import ImageRecipe, expect

        told = expect(ImageRecipe, recipe, f"task {self.name}")
        return test_scores(network, self.load_test(), constants, device, told, top5=self._tells_top5)

    @property
    def _tells_top5(self) -> bool:
        """Where accuracy is told by five guesses too: many classes, or ImageNet's networks."""
        return self.num_classes >= _MANY or (self.network == "imagenet" and self.num_classes > 5)

    def load_test(self) -> Split:
        return self._read_test()

    def check_test(self) -> tuple[str, ...]:
        test, (train, valid) = self._read_test(), self.load()
        odd, shared = self.odd_test(), _shared(test, train, valid)
        if shared:
            odd = (*odd, f"{shared:,} of {len(test):,} test images are training or validation images too")
        return odd

    def _read_test(self) -> Split:
        try:
            return self._checked(self.test_rows(), "test")
        except DataError as error:
            raise DataError(f"the test split cannot be used: {error}") from None

    def data_hash(self) -> str:
        return self._facts.digest

    def facts(self) -> Facts:
        return self._facts

    @cached_property
    def _facts(self) -> Facts:
        about = {"task": self.name, **self.config.model_dump(mode="json")}
        return facts_of(about, self._files, lambda: self._read_facts(*self.load()))

    def _read_facts(self, train: Split, valid: Split) -> Facts:
        layout, odd = self._layout()
        place = f"{self._where}{f' ({layout})' if layout else ''}"
        own = "" if self._validation_is_given else f", drawn by split_seed {self.config.split_seed}"
        summary = (
            f"{place}: {len(train):,} images train, {len(valid):,} validate{own}; "
            f"{_count_classes(train.labels, self.class_names)}"
        )
        odd = (*odd, *self._missing(train.labels, "training"), *self._missing(valid.labels, "validation"))
        if shared := _shared(valid, train):
            odd = (*odd, f"{shared:,} of {len(valid):,} validation images are training images too")
        return Facts(self._digest(train, valid), summary, odd, len(train), len(valid))

    def _digest(self, train: Split, valid: Split) -> str:
        """Names what is read."""
        assert isinstance(train, Images)
        assert isinstance(valid, Images)
        return splits.digest(train, valid)

    def _missing(self, labels: NDArray[np.int64], split: str) -> tuple[str, ...]:
        absent = np.setdiff1d(np.arange(self.num_classes), labels)
        names = [self.class_names[label] for label in absent[:3]]
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        return (f"no {split} image of class {', '.join(names)}{more}",) if len(absent) else ()

    @property
    def _validation_is_given(self) -> bool:
        """Whether the data have a validation split of their own."""
        return False

    def _kept(
        self, labels: NDArray[np.int64], split: str = "train", sizes: tuple[int, int] | None = None
    ) -> NDArray[np.int64] | None:
        """Indices of the rows that `limit` keeps; None: all.

        Args:
            labels: of all rows of the split.
            split: `train` or `validation`.
            sizes: of both splits, where the data have both: the limit is shared in their proportion.
        """
        limit = self.config.limit
        if limit is None or limit >= (sum(sizes) if sizes else len(labels)):
            return None
        if sizes is not None:
            valid = min(max(1, round(limit * sizes[1] / sum(sizes))), limit - 1)
            limit = min(valid if split == "validation" else limit - valid, len(labels))
        return splits.stratified(labels, limit, self.config.split_seed, "limit")

    def _limited(self, rows: Split, split: str, sizes: tuple[int, int] | None = None) -> Split:
        kept = self._kept(rows.labels, split, sizes)
        return rows if kept is None else rows.take(kept)

    def _checked(self, rows: Split, split: str) -> Split:
        where = f"{self._where}, {split} rows"
        if not len(rows):
            raise DataError(f"{where}: no images")
        assert rows.shape == (len(rows), *self.image_shape), rows.shape
        splits.check_labels(rows.labels, self.num_classes, where)
        return rows

    @property
    def _where(self) -> str:
        """Begins every error message; a task that reads files adds their place."""
        return f"task {self.name}"


def _shared(rows: Split, *others: Split) -> int:
    """How many have pixels that one of the others has too; of what is not in memory nobody looks."""
    known = [split for split in (rows, *others) if isinstance(split, Images)]
    return splits.count_shared(*known) if len(known) == 1 + len(others) else 0


def _count_classes(labels: NDArray[np.int64], names: Sequence[str]) -> str:
    """``3 classes (cat 20, dog 20, fox 18)``: training images of each."""
    counts = np.bincount(labels, minlength=len(names))
    if len(names) > _NAMED or all(name.isdigit() for name in names):
        least, most = f"{counts.min():,}", f"{counts.max():,}"
        return f"{len(names)} classes of {least if least == most else f'{least} to {most}'} training images"
    pairs = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))
    return f"{len(names)} classes ({pairs} training images)"
