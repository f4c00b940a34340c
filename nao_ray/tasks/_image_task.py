"""The base of every image task: read the rows a search may see, check, shrink and split them once."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nao_ray.errors import DataError
from nao_ray.tasks import _splits
from nao_ray.tasks.base import Images, Task, TaskConfig


class ImageTaskConfig(TaskConfig):
    """What every image task can be told."""

    split_seed: int = Field(default=0, ge=0)
    """Names the 90/10 split into training and validation rows, and the rows that `limit` keeps."""
    limit: int | None = Field(default=None, ge=10)
    """Training and validation rows together, classes in their proportions; None: all."""


C = TypeVar("C", bound=ImageTaskConfig)


class ImageTask(Task[C]):
    """Writes `load`, `load_test` and `data_hash`; a task writes `_training_rows` and `_test_rows`."""

    @abstractmethod
    def _training_rows(self) -> Images:
        """All rows a search may see, in a fixed order; may apply `limit` itself, and must not read test rows."""

    @abstractmethod
    def _test_rows(self) -> Images:
        """The test rows."""

    def load(self) -> tuple[Images, Images]:
        rows = self._checked(self._training_rows())
        kept = self._kept(rows.labels)
        return _splits.split_images(
            rows if kept is None else _splits.take(rows, kept), self.config.split_seed, self._where
        )

    def load_test(self) -> Images:
        return self._checked(self._test_rows())

    def data_hash(self) -> str:
        return self._data_hash

    @cached_property
    def _data_hash(self) -> str:
        return _splits.digest(*self.load())

    def _kept(self, labels: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Indices of the rows that `limit` keeps; None: all."""
        limit = self.config.limit
        if limit is None or limit >= len(labels):
            return None
        return _splits.stratified(labels, limit, self.config.split_seed, "limit")

    def _checked(self, rows: Images) -> Images:
        if not len(rows):
            raise DataError(f"{self._where}: no images")
        assert rows.images.shape == (len(rows), *self.image_shape), rows.images.shape
        _splits.check_labels(rows.labels, self.num_classes, self._where)
        return rows

    @property
    def _where(self) -> str:
        """Begins every error message; a task that reads files adds their place."""
        return f"task {self.name}"
