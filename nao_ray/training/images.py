"""Images in classes: both splits on a device, as bytes, so that a batch is a gather and no worker process is needed.

Legend: `n` images, `B` images of a batch, `C` channels, `H` `W` pixels, `K` classes, `G` genotypes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.errors import DataError
from nao_ray.metric import ACCURACY, Metric
from nao_ray.networks.one_shot import pool_logits
from nao_ray.tasks.images import splits
from nao_ray.tasks.images.base import Images
from nao_ray.training.augment import Normaliser, augment
from nao_ray.training.checkpoint import check_shapes, part
from nao_ray.training.devices import autocast, move
from nao_ray.training.objective import WHOLE, Batch, Carry, Network, Objective, Scores, Shard
from nao_ray.training.recipe import ImageRecipe, ImageRegularisation, Optimiser, Recipe, expect

EVALUATION_BATCH = 512
_SHARE_SEED = 0  # which rows a share of the training split keeps: the same for every trial of every search


@dataclass(frozen=True)
class DeviceImages:
    """One split on a device."""

    images: Tensor
    """``[n, C, H, W]``, uint8."""
    labels: Tensor
    """``[n]``, int64."""

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, split: Images, device: torch.device) -> DeviceImages:
        """Move a split."""
        return cls(move(split.images, device), move(split.labels, device))


@dataclass(frozen=True)
class ImageObjective(Objective):
    """Cross-entropy, also of an auxiliary head's logits at its weight; measured by accuracy.

    Raises:
        DataError: there are no two images to train on.
    """

    train: DeviceImages
    valid: DeviceImages
    """Without images where all of them train."""
    normaliser: Normaliser
    """Of the training images that count."""
    recipe: ImageRecipe
    rows: Tensor | None = None
    """``[n]``, the training images that count; None: all."""
    share: float = 1.0
    """Of the training split, that they are."""
    shard: Shard = WHOLE
    metric: Metric = ACCURACY

    def __post_init__(self) -> None:
        if not self.steps:
            few = self.num_train
            if self.shard.count > 1:
                raise DataError(f"{few} training images make no step of {self.shard.count} workers; give two for each")
            raise DataError(f"{few} training image makes no step; give at least 2 (task.limit, data_share)")

    @classmethod
    def of(cls, train: Images, valid: Images, device: torch.device, recipe: ImageRecipe) -> ImageObjective:
        """Move both splits, once."""
        moved = DeviceImages.of(train, device)
        scale = Normaliser.of(moved.images, by_image=recipe.standardise == "image")
        return cls(moved, DeviceImages.of(valid, device), scale, recipe)

    def under(self, recipe: Recipe, *, share: float = 1.0, shard: Shard = WHOLE) -> Self:
        told = expect(ImageRecipe, recipe, "a task of images")
        rows, normaliser = self.rows, replace(self.normaliser, by_image=told.standardise == "image")
        if share != self.share:
            kept = splits.share(self.train.labels.numpy(force=True), share, _SHARE_SEED)
            rows = None if kept is None else move(kept, self.device)
            kept_images = self.train.images if rows is None else self.train.images[rows]
            normaliser = Normaliser.of(kept_images, by_image=normaliser.by_image)
        return replace(self, recipe=told, rows=rows, share=share, normaliser=normaliser, shard=shard)

    def cut(self, order: torch.Generator, share: float = 0.5) -> tuple[Self, Self]:
        rows = torch.randperm(self.num_train, generator=order).to(self.device)
        rows = rows if self.rows is None else self.rows[rows]
        middle = int(len(rows) * (1 - share))
        return replace(self, rows=rows[:middle]), replace(self, rows=rows[middle:])

    def on_validation(self) -> Self:
        return replace(self, train=self.valid, rows=None, share=1.0)

    @property
    def device(self) -> torch.device:
        return self.train.images.device

    @property
    def num_train(self) -> int:
        """Training images that count."""
        return len(self.train if self.rows is None else self.rows)

    @property
    def num_valid(self) -> int:
        return len(self.valid)

    @property
    def steps(self) -> int:
        # An image alone in its batch has no batch statistics on a 1x1 map: a last batch that leaves one is left out.
        whole, rest = divmod(self.num_train, self.recipe.batch)
        return whole + (rest // self.shard.count > 1)

    def batches(self, order: torch.Generator, skip: int = 0) -> Iterator[Batch]:
        rows = torch.randperm(self.num_train, generator=order).to(self.device)
        rows = rows if self.rows is None else self.rows[rows]
        for batch in torch.split(rows, self.recipe.batch)[skip : self.steps]:
            chosen = batch[self.shard.rank :: self.shard.count]
            yield self.train.images[chosen], self.train.labels[chosen]

    def weight(self, index: int) -> float:
        return self.shard.weight(min(self.recipe.batch, self.num_train - index * self.recipe.batch))

    def loss(self, network: Network, batch: Batch, carry: Carry, generator: torch.Generator) -> tuple[Tensor, Carry]:
        """`batch`: uint8 ``[B, C, H, W]`` and labels ``[B]``."""
        images, labels = batch
        inputs = self._augmented(images, generator)
        with autocast(self.recipe, self.device):
            return training_loss(network(inputs), labels, self.recipe), carry

    def evaluate(self, network: nn.Module, forward: Network | None = None) -> Scores:
        return _scores(network, self.valid, self.normaliser, self.recipe, forward)

    def evaluate_training(self, network: Network, generator: torch.Generator) -> Scores:
        rows = torch.arange(self.num_train, device=self.device) if self.rows is None else self.rows
        batches = ((self.train.images[part], self.train.labels[part]) for part in torch.split(rows, EVALUATION_BATCH))
        return _summed(network, batches, lambda images: self._augmented(images, generator), self.recipe, self.device)

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return augment(images, generator, self.normaliser, self.recipe)

    def compare(
        self, network: nn.Module, choices: Sequence[Any], order: torch.Generator, *, batch: int, count: int
    ) -> list[Scores]:
        wanted = torch.randperm(len(self.valid), generator=order)[:count].to(self.device)
        chosen = [rows for rows in torch.split(wanted, batch) if len(rows) > 1 or len(wanted) == 1]
        correct = torch.zeros(len(choices), dtype=torch.int64, device=self.device)
        loss = torch.zeros(len(choices), device=self.device)
        with autocast(self.recipe, self.device):
            for rows in chosen:
                labels = self.valid.labels[rows]
                logits = pool_logits(network, self.normaliser(self.valid.images[rows]), choices).float()  # [G, B, K]
                correct += (logits.argmax(2) == labels).sum(1)
                expected = labels.expand(len(choices), -1)
                loss += F.cross_entropy(logits.transpose(1, 2), expected, reduction="none").sum(1)
        scored = sum(map(len, chosen))
        return [Scores(c / scored, total / scored) for c, total in zip(correct.tolist(), loss.tolist(), strict=True)]

    def constants(self) -> dict[str, Tensor]:
        return {"normaliser.mean": self.normaliser.mean, "normaliser.std": self.normaliser.std}

    def place(self, network: nn.Module) -> nn.Module:
        return _placed(network, self.device)


def training_loss(outputs: Tensor | tuple[Tensor, Tensor], labels: Tensor, recipe: ImageRegularisation) -> Tensor:
    """Cross-entropy of the logits ``[B, K]``, and of the auxiliary head's at its weight."""
    smoothing = recipe.label_smoothing
    if isinstance(outputs, Tensor):
        return F.cross_entropy(outputs, labels, label_smoothing=smoothing)
    main, auxiliary = (F.cross_entropy(logits, labels, label_smoothing=smoothing) for logits in outputs)
    return main + recipe.auxiliary_weight * auxiliary


def test_scores(
    network: nn.Module, split: Images, constants: Mapping[str, Tensor], device: torch.device, recipe: ImageRecipe
) -> Scores:
    """Of a trained network on a test split.

    Args:
        network: as it was trained.
        split: the test split.
        constants: of the objective it was trained on, perhaps among other tensors.
        device: where to.
        recipe: its precision and its `standardise` count.

    Raises:
        DataError: the constants are not of such images.
    """
    moved = DeviceImages.of(split, device)
    normaliser = part(constants, "normaliser")
    channels = torch.empty(moved.images.shape[1])
    check_shapes(normaliser, {"mean": channels, "std": channels})
    by_image = recipe.standardise == "image"
    scale = Normaliser(normaliser["mean"].to(device), normaliser["std"].to(device), by_image)
    return _scores(_placed(network, device), moved, scale, recipe)


def _scores(
    network: nn.Module,
    split: DeviceImages,
    normaliser: Normaliser,
    recipe: Optimiser,
    forward: Network | None = None,
) -> Scores:
    """Of every image, without augmentation."""
    network.eval()
    batches = zip(*(torch.split(each, EVALUATION_BATCH) for each in (split.images, split.labels)), strict=True)
    return _summed(forward or network, batches, normaliser, recipe, split.labels.device)


def _summed(
    forward: Network,
    batches: Iterable[tuple[Tensor, Tensor]],
    prepare: Callable[[Tensor], Tensor],
    recipe: Optimiser,
    device: torch.device,
) -> Scores:
    """Of all images and labels, prepared batch by batch; one transfer at the end."""
    correct = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    with torch.inference_mode(), autocast(recipe, device):
        for images, labels in batches:
            logits = forward(prepare(images)).float()
            correct += (logits.argmax(1) == labels).sum()
            loss += F.cross_entropy(logits, labels, reduction="sum")
            count += len(labels)
    return Scores(correct.item() / count, loss.item() / count)


def _placed(network: nn.Module, device: torch.device) -> nn.Module:
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
