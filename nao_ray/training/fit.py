"""One network at one fidelity -> Measurement.

Legend: `B` images of a batch, `C` channels, `H` `W` pixels, `K` classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray import rng
from nao_ray.errors import DataError
from nao_ray.training import resources
from nao_ray.training.augment import Normaliser, augment
from nao_ray.training.checkpoint import check_shapes, part
from nao_ray.training.data import DeviceImages, TrainingData
from nao_ray.training.recipe import Period, Recipe, period
from nao_ray.trial import Measurement

EVALUATION_BATCH = 512


@dataclass(frozen=True)
class Scores:
    """Of one pass over a split."""

    accuracy: float
    """In [0, 1]."""
    loss: float
    """Mean cross-entropy, in nats."""


@dataclass(frozen=True)
class Epoch:
    """What is told after each epoch."""

    done: int
    """Epochs trained, those before a resume too."""
    loss: float
    """Mean training loss, in nats."""
    scores: Scores | None
    """On the validation split; None where it has no images."""
    history: tuple[Scores, ...]
    """Those of all epochs, those before a resume too."""
    state: Callable[[], dict[str, Tensor]]
    """What the next epoch begins with: tensors named ``network.``, ``momentum.`` and ``generator.``; to be called
    before the next epoch begins."""


@dataclass(frozen=True)
class Start:
    """Where a training goes on."""

    epochs_done: int
    state: Mapping[str, Tensor]
    """What `Epoch.state` gave."""
    history: tuple[Scores, ...] = ()
    """`Epoch.history`, for a measurement of all epochs."""


def fit(
    network: nn.Module,
    data: TrainingData,
    recipe: Recipe,
    *,
    epochs: int,
    seed: int,
    start: Start | None = None,
    listener: Callable[[Epoch], None] = lambda _: None,
) -> Measurement:
    """Train `network` in place, on the device that holds the data; the score is its validation accuracy.

    Same network, data, recipe, epochs and seed: same measurement, to the device's arithmetic. A loss that is not finite
    ends the training at once with a NaN accuracy. A training that goes on where another was ends as that would have.

    Args:
        network: maps ``[B, C, H, W]`` to logits ``[B, K]``, in training mode perhaps to a pair, the auxiliary head's
            second. Its `set_step(step, total)`, where it has one, is told every step.
        data: on the device to train on.
        recipe: how.
        epochs: >= 1.
        seed: names the order of the images, their augmentation, and dropout.
        start: the state to go on from, of the same network, data, recipe, epochs and seed; the measurement is then of
            the epochs since, and those of its `history`, its times of those since alone.
        listener: told of every epoch whose loss is finite.

    Raises:
        DataError: `start` is of another network, or of another kind of device, or there are no two images to train on.
    """
    device = data.device
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True)
    with resources.watch(device) as usage, rng.torch_seeded(seed, "dropout"), cudnn:
        training = _Training(network, data, recipe, epochs, seed)
        if start is not None:
            training.restore(start.state)
        history: list[Scores] = [] if start is None else list(start.history)
        for epoch in range(start.epochs_done if start is not None else 0, epochs):
            loss = training.epoch(epoch)
            scores = None
            if len(data.valid):
                scores = evaluate(network, data.valid, data.normaliser, autocast=training.autocast())
            if not math.isfinite(loss) or (scores is not None and not math.isfinite(scores.loss)):
                history.append(Scores(math.nan, math.nan))
                break
            history += [scores] if scores is not None else []
            listener(Epoch(epoch + 1, loss, scores, tuple(history), training.state))
    if not history:
        chosen = None
    elif recipe.score == "last" or math.isnan(history[-1].accuracy):
        chosen = history[-1]
    else:
        chosen = max(history, key=lambda scores: scores.accuracy)
    return Measurement(
        valid_accuracy=None if chosen is None else chosen.accuracy,
        valid_loss=None if chosen is None else chosen.loss,
        curve=tuple(scores.accuracy for scores in history),
        wall_seconds=usage.wall_seconds,
        device_seconds=usage.device_seconds,
        peak_memory_bytes=usage.peak_memory_bytes,
        device=device_name(device),
    )


def evaluate(
    network: nn.Module,
    split: DeviceImages,
    normaliser: Normaliser,
    *,
    autocast: AbstractContextManager[object] | None = None,
) -> Scores:
    """Accuracy and loss on a split, without augmentation; one transfer at the end."""
    network.eval()
    correct = torch.zeros((), dtype=torch.int64, device=split.images.device)
    loss = torch.zeros(
        (), dtype=torch.float64 if correct.device.type != "mps" else torch.float32, device=correct.device
    )
    with torch.inference_mode(), autocast or nullcontext():
        for start in range(0, len(split), EVALUATION_BATCH):
            labels = split.labels[start : start + EVALUATION_BATCH]
            logits = network(normaliser(split.images[start : start + EVALUATION_BATCH])).float()
            correct += (logits.argmax(1) == labels).sum()
            loss += F.cross_entropy(logits, labels, reduction="sum")
    return Scores(correct.item() / len(split), loss.item() / len(split))


def learning_rate(recipe: Recipe, progress: float, epochs: int) -> float:
    """After `progress` epochs, a real number in [0, epochs]."""
    now = Period(0, recipe.cosine_epochs or epochs)
    if recipe.restart_factor is not None:
        now = period(progress, now.length, recipe.restart_factor)
    cosine = 0.5 * (1 + math.cos(math.pi * min((progress - now.start) / now.length, 1.0)))
    warm = min(progress / recipe.warmup_epochs, 1.0) if recipe.warmup_epochs else 1.0
    return (recipe.lr_end + (recipe.lr - recipe.lr_end) * cosine) * warm


def device_name(device: torch.device) -> str:
    """What a measurement's `device` says: `cpu`, or the accelerator's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def uses_bfloat16(recipe: Recipe, device: torch.device) -> bool:
    """Whether recipe and device want bfloat16 autocast."""
    if recipe.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(False)
    return recipe.precision == "bfloat16"


def training_loss(outputs: Tensor | tuple[Tensor, Tensor], labels: Tensor, recipe: Recipe) -> Tensor:
    """Cross-entropy of the logits ``[B, K]``, and of the auxiliary head's at its weight."""
    smoothing = recipe.label_smoothing
    if isinstance(outputs, Tensor):
        return F.cross_entropy(outputs, labels, label_smoothing=smoothing)
    main, auxiliary = (F.cross_entropy(logits, labels, label_smoothing=smoothing) for logits in outputs)
    return main + recipe.auxiliary_weight * auxiliary


class _Training:
    """The state of one training."""

    def __init__(self, network: nn.Module, data: TrainingData, recipe: Recipe, epochs: int, seed: int) -> None:
        device = data.device
        self.network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data, self.recipe, self.epochs = data, recipe, epochs
        self.order = rng.torch_generator(seed, "order")
        self.augmentation = rng.torch_generator(seed, "augmentation", device=str(device))
        self.parameters = list(network.parameters())
        self.optimiser = torch.optim.SGD(
            self.parameters,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov and recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        # An image alone in its batch has no batch statistics on a 1x1 map: a last batch of one is left out.
        whole, rest = divmod(len(data.train), recipe.batch)
        self.steps = whole + (rest > 1)
        if not self.steps:
            raise DataError(f"{len(data.train)} training image makes no step; give at least 2 (task.limit, data_share)")
        self.bfloat16 = uses_bfloat16(recipe, device)

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 where the recipe and the device want it."""
        return torch.autocast(self.data.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, apart from its number."""
        moments = {
            name: self.optimiser.state[parameter]["momentum_buffer"]
            for name, parameter in self.network.named_parameters()
            if self.optimiser.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        generators = {"order": self.order.get_state(), "augmentation": self.augmentation.get_state()}
        generators |= rng.torch_state(self.data.device)
        parts = {"network": self.network.state_dict(), "momentum": moments, "generator": generators}
        return {f"{prefix}.{name}": value for prefix, tensors in parts.items() for name, value in tensors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state` was called; raises DataError for that of another network or kind of device."""
        weights, moments, generators = (part(state, prefix) for prefix in ("network", "momentum", "generator"))
        named = dict(self.network.named_parameters())
        check_shapes(weights, self.network.state_dict())
        check_shapes(moments, {name: named[name] for name in moments if name in named})
        expected = {"order", "augmentation", *rng.torch_state(self.data.device)}
        if generators.keys() != expected:
            raise DataError(
                f"weights: a training that goes on needs the generators {', '.join(sorted(expected))}, there are "
                f"{', '.join(sorted(generators)) or 'none'}; was it begun on another kind of device?"
            )
        self.network.load_state_dict(weights)
        for name, moment in moments.items():
            self.optimiser.state[named[name]]["momentum_buffer"] = torch.zeros_like(named[name]).copy_(moment)
        self.order.set_state(generators.pop("order"))
        self.augmentation.set_state(generators.pop("augmentation"))
        rng.set_torch_state(self.data.device, generators)

    def epoch(self, epoch: int) -> float:
        """One pass over the training split; the mean loss."""
        self.network.train()
        train, batch = self.data.train, self.recipe.batch
        order = torch.randperm(len(train), generator=self.order).to(self.data.device)
        total = torch.zeros((), device=self.data.device)
        for step in range(self.steps):
            chosen = order[step * batch : (step + 1) * batch]
            total += self.step(epoch * self.steps + step, train.images[chosen], train.labels[chosen])
        return total.item() / self.steps

    def step(self, step: int, images: Tensor, labels: Tensor) -> Tensor:
        """One optimiser step; its loss, still on the device."""
        recipe = self.recipe
        if hasattr(self.network, "set_step"):
            self.network.set_step(step, self.steps * self.epochs)
        inputs = augment(
            images,
            self.augmentation,
            self.data.normaliser,
            padding=recipe.crop_padding,
            flip=recipe.flip,
            cutout=recipe.cutout,
        )
        with self.autocast():
            loss = training_loss(self.network(inputs), labels, recipe)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, recipe.clip_norm, foreach=True)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(recipe, (step + 0.5) / self.steps, self.epochs)
        self.optimiser.step()
        return loss.detach()
