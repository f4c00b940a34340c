"""A split of images as batches on a device: held there, or decoded on the way by processes of torch's DataLoader.

Legend: `n` images, `B` images of a batch, `C` channels, `H` `W` pixels.
"""

from __future__ import annotations

import multiprocessing.connection
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nao_ray import rng
from nao_ray.errors import DataError, RunError
from nao_ray.tasks.images.base import Images, Split
from nao_ray.tasks.images.streamed import Crops, StreamedImages
from nao_ray.training.augment import Normaliser
from nao_ray.training.augmentation import Augmentation
from nao_ray.training.devices import move

EVALUATION_BATCH = 512
_STREAMED_BATCH = 128  # of evaluation: such pictures are large
_MOST_LOADERS = 16

Pair = tuple[Tensor, Tensor]
"""Images ``[B, C, H, W]``, uint8, and labels ``[B]``, int64, on the device."""


class DeviceSplit(ABC):
    """One split, for a device."""

    labels: Tensor
    """``[n]``, int64; indices into the split are tensors where these are."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the batches are."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """C."""

    @abstractmethod
    def batches(self, chosen: Iterable[Tensor], crops: Crops | None = None) -> Iterator[Pair]:
        """Those of these indices each, as `crops` says, or as evaluation sees them.

        Raises:
            DataError: a picture cannot be read.
        """

    @abstractmethod
    def whole(self) -> Iterator[Pair]:
        """Every image once, as evaluation sees it."""

    @abstractmethod
    def normaliser(self, rows: Tensor | None, *, by_image: bool) -> Normaliser:
        """That of the images of these indices; None: of all."""

    def crops(self, generator: torch.Generator, recipe: Augmentation) -> Crops | None:
        """What an epoch's `batches` are asked with, drawn where they draw crops of their own."""
        return None

    def left(self, recipe: Augmentation) -> Augmentation:
        """What of the recipe is to be done on the device."""
        return recipe

    @staticmethod
    def of(split: Split, device: torch.device) -> DeviceSplit:
        """What a task has loaded: moved, or streamed."""
        if isinstance(split, StreamedImages):
            return StreamedSplit(split, device, torch.from_numpy(split.labels))
        assert isinstance(split, Images)
        return DeviceImages(move(split.images, device), move(split.labels, device))


@dataclass(frozen=True)
class DeviceImages(DeviceSplit):
    """One split on a device."""

    images: Tensor
    """``[n, C, H, W]``, uint8."""
    labels: Tensor

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    def batches(self, chosen: Iterable[Tensor], crops: Crops | None = None) -> Iterator[Pair]:
        return ((self.images[rows], self.labels[rows]) for rows in chosen)

    def whole(self) -> Iterator[Pair]:
        return zip(*(torch.split(each, EVALUATION_BATCH) for each in (self.images, self.labels)), strict=True)

    def normaliser(self, rows: Tensor | None, *, by_image: bool) -> Normaliser:
        return Normaliser.of(self.images if rows is None else self.images[rows], by_image=by_image)


@dataclass(frozen=True)
class StreamedSplit(DeviceSplit):
    """One split that is decoded on the way; the processes that do it live as long as an epoch."""

    rows: StreamedImages
    to: torch.device
    labels: Tensor
    """On the CPU."""

    @property
    def device(self) -> torch.device:
        return self.to

    @property
    def channels(self) -> int:
        return self.rows.size[0]

    @cached_property
    def loaders(self) -> int:
        """Processes that decode: on CUDA as many as this one has threads, unless they are told."""
        if self.rows.loaders is not None:
            return self.rows.loaders
        return min(_MOST_LOADERS, torch.get_num_threads()) if self.to.type == "cuda" else 0

    def batches(self, chosen: Iterable[Tensor], crops: Crops | None = None) -> Iterator[Pair]:
        loaded = _loaded(_Decoded(self.rows, crops), [rows.tolist() for rows in chosen], self.loaders, self.to)
        return _moved(loaded, self.to)

    def whole(self) -> Iterator[Pair]:
        return self.batches(torch.split(torch.arange(len(self)), _STREAMED_BATCH))

    def normaliser(self, rows: Tensor | None, *, by_image: bool) -> Normaliser:
        """A constant, for which no picture is read."""
        mean, std = (torch.tensor(values, device=self.to) for values in self.rows.scale)
        return Normaliser(mean, std, by_image)

    def crops(self, generator: torch.Generator, recipe: Augmentation) -> Crops:
        drawn = torch.randint(2**31 - 1, (), generator=generator, device=generator.device)
        return Crops(int(drawn), recipe.crop_area)

    def left(self, recipe: Augmentation) -> Augmentation:
        return recipe.model_copy(update={"crop_area": None})


class _Decoded(Dataset[Any]):
    """What a process of the DataLoader is asked: whole batches; a DataError comes back as its text."""

    def __init__(self, rows: StreamedImages, crops: Crops | None) -> None:
        self._rows, self._crops = rows, crops

    def __getitems__(self, chosen: Sequence[int]) -> Pair | str:
        try:
            images, labels = self._rows.read(chosen, self._crops)
        except DataError as error:
            return str(error)
        return torch.from_numpy(images), torch.from_numpy(labels)


def _loaded(decoded: _Decoded, batches: list[list[int]], loaders: int, device: torch.device) -> Iterator[Pair]:
    """The batches in their order, in memory that the device reads by itself."""
    loader = DataLoader(
        decoded,
        batch_sampler=batches,
        num_workers=loaders,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        multiprocessing_context=_forks() if loaders else None,
        worker_init_fn=_begin,
        generator=rng.torch_generator(0, "seeds of loaders"),  # not torch's global one, which dropout draws from
    )
    try:
        for batch in loader:
            if isinstance(batch, str):
                raise DataError(batch)
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise RunError(f"a process that decodes pictures is gone ({reason}); task.loaders=0 does without") from None


@cache
def _forks() -> Any:  # noqa: ANN401 - a context of multiprocessing
    """Processes are forked from one that has no threads, as none that has CUDA's or Arrow's may be; torch is there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 - a batch already
    return batch


def _begin(_: int) -> None:
    """Of a process that decodes: interrupts are for the one that trains, and it ends with that one, however that ended.

    torch looks at the parent, which is here the process that forks, and that one waits for its children.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trains = multiprocessing.parent_process()
    assert trains is not None
    threading.Thread(target=_end_with, args=(trains.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _moved(batches: Iterator[Pair], device: torch.device) -> Iterator[Pair]:
    """On the device; on CUDA the next batch is under way while one is used."""
    if device.type == "cpu":
        yield from batches
        return
    ahead: Pair | None = None
    for images, labels in batches:
        now = (images.to(device, non_blocking=True), labels.to(device, non_blocking=True))
        if ahead is not None:
            yield ahead
        ahead = now
    if ahead is not None:
        yield ahead
