"""Training of shared weights: every step computes, and moves, one sampled genotype's alone.

NAO with weight sharing: Luo, Tian, Qin, Chen, Liu, NeurIPS 2018, arXiv 1808.07233 (V1: one cosine over the whole
training, genotypes drawn evenly), and Luo, Qin, Chen, arXiv 1909.10815 (V2: a fresh cosine every 50 epochs, genotypes
drawn in proportion to their parameters).

Every draw is named by seed and step, so epochs a to b from a checkpoint are those of a training in one go. Differs from
the official code: the learning rate falls with every step instead of every epoch; weights that no step has sampled
since are not moved by momentum and weight decay.

Legend: `B` images of a batch, `C` channels, `H` `W` pixels, `K` classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray import rng
from nao_ray.errors import DataError
from nao_ray.networks.one_shot import pool_logits
from nao_ray.networks.supernet import Supernet
from nao_ray.spaces.base import ArchGraph
from nao_ray.training.augment import augment
from nao_ray.training.checkpoint import check_shapes, pack, unpack
from nao_ray.training.data import TrainingData
from nao_ray.training.fit import Scores, training_loss, uses_bfloat16
from nao_ray.training.recipe import Recipe, period
from nao_ray.training.sampling import PathSampler

Parameters = dict[str, nn.Parameter]
ReduceGradients = Callable[[Parameters], Parameters]
"""Given the parameters that this worker's genotype used, their gradients set, and called before the clipping: puts the
gradients of all workers together and returns every parameter that any of them used, with its gradient set."""


@dataclass(frozen=True)
class Shard:
    """Which part of every batch is this worker's; each worker samples a genotype of its own."""

    rank: int = 0
    count: int = 1


class SharedTrainer:
    """SGD on the weights of a supernet, in place, on the device that holds the data.

    Args:
        net: with drop path, dropout and auxiliary head as the recipe wants them.
        data: on the device to train on.
        recipe: how; its `cosine_epochs` is the length of the first period.
        epochs: length of the first period where the recipe has none.
        restart_factor: each period is that many times as long as the last; 1: all are equal. Learning rate and drop
            path begin anew with each.
        seed: names the order of the images, their augmentation, the genotypes and dropout.
        shard: this worker's part.
        reduce_gradients: puts the workers' gradients together; None: there is one worker.
    """

    def __init__(
        self,
        net: Supernet,
        data: TrainingData,
        recipe: Recipe,
        *,
        epochs: int,
        seed: int,
        restart_factor: int = 1,
        shard: Shard | None = None,
        reduce_gradients: ReduceGradients | None = None,
        average_loss: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.net = net.to(device=data.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data, self.recipe, self.seed = data, recipe, seed
        self.epochs_done = 0
        self._first_period, self._factor = recipe.cosine_epochs or epochs, restart_factor
        self._shard, self._reduce, self._average = shard or Shard(), reduce_gradients, average_loss
        self._momentum: dict[str, Tensor] = {}
        self._bfloat16 = uses_bfloat16(recipe, data.device)
        # An image alone in its batch has no batch statistics: a last batch that leaves a worker with one is left out.
        whole, rest = divmod(len(data.train), recipe.batch)
        self.steps_per_epoch = whole + (rest // self._shard.count > 1)
        if not self.steps_per_epoch:
            raise DataError(
                f"{len(data.train)} training images make no step of {self._shard.count} workers; give two for each"
            )

    # -- training -------------------------------------------------------------------------------------------------

    def train(self, epochs: int, sampler: PathSampler) -> list[float]:
        """The next `epochs` epochs on genotypes of `sampler`; the mean loss of each, NaN where it was not finite.

        A loss that is not finite ends the training at once.
        """
        losses: list[float] = []
        for _ in range(epochs):
            losses.append(self._epoch(self.epochs_done, sampler))
            self.epochs_done += 1
            if not math.isfinite(losses[-1]):
                break
        return losses

    def _epoch(self, epoch: int, sampler: PathSampler) -> float:
        self.net.train()
        train, batch, device = self.data.train, self.recipe.batch, self.data.device
        order = torch.randperm(len(train), generator=rng.torch_generator(self.seed, "order", epoch)).to(device)
        total = torch.zeros((), device=device)
        for index in range(self.steps_per_epoch):
            chosen = order[index * batch : (index + 1) * batch][self._shard.rank :: self._shard.count]
            step = epoch * self.steps_per_epoch + index
            total += self.step(step, train.images[chosen], train.labels[chosen], sampler)
        if self._average is not None:  # one for all, so that all go on or none
            total = self._average(total)
        mean = total.item() / self.steps_per_epoch
        return mean if math.isfinite(mean) else math.nan

    def step(self, step: int, images: Tensor, labels: Tensor, sampler: PathSampler) -> Tensor:
        """One optimiser step on uint8 images ``[B, C, H, W]``; its loss, still on the device."""
        recipe, device = self.recipe, self.data.device
        now = period(step // self.steps_per_epoch, self._first_period, self._factor)
        start, total = now.start * self.steps_per_epoch, now.length * self.steps_per_epoch
        self.net.set_step(step - start, total)
        turn = step * self._shard.count + self._shard.rank
        graph = sampler.draw(rng.child(self.seed, self._purpose("sampled genotype"), step), turn)
        inputs = augment(
            images,
            rng.torch_generator(self.seed, self._purpose("augmentation"), step, device=str(device)),
            self.data.normaliser,
            padding=recipe.crop_padding,
            flip=recipe.flip,
            cutout=recipe.cutout,
        )
        autocast = torch.autocast(device.type, torch.bfloat16) if self._bfloat16 else nullcontext()
        with autocast, rng.torch_seeded(self.seed, self._purpose("dropout"), step):
            loss = training_loss(self.net(inputs, graph), labels, recipe)
        loss.backward()  # type: ignore[no-untyped-call]
        warm = (step + 0.5) / (self.steps_per_epoch * recipe.warmup_epochs) if recipe.warmup_epochs else 1.0
        self.update(self.net.used_parameters(graph), self._rate((step - start + 0.5) / total) * min(warm, 1.0))
        return loss.detach()

    def _purpose(self, name: str) -> str:
        return f"{name} of worker {self._shard.rank}"

    def _rate(self, progress: float) -> float:
        """Learning rate at a share of a period."""
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.recipe.lr_end + (self.recipe.lr - self.recipe.lr_end) * cosine

    def update(self, used: Parameters, rate: float) -> None:
        """Put the workers' gradients together, clip and move the parameters used, then forget their gradients."""
        recipe = self.recipe
        if self._reduce is not None:
            used = self._reduce(used)
        moved = {name: parameter for name, parameter in used.items() if parameter.grad is not None}
        parameters: list[Tensor] = list(moved.values())
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, recipe.clip_norm, foreach=True)
        for name, parameter in moved.items():
            if name not in self._momentum:
                self._momentum[name] = torch.zeros_like(parameter)
        with torch.no_grad():
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            momentum = [self._momentum[name] for name in moved]
            torch._foreach_add_(gradients, parameters, alpha=recipe.weight_decay)
            torch._foreach_mul_(momentum, recipe.momentum)
            torch._foreach_add_(momentum, gradients)
            if recipe.nesterov:
                torch._foreach_add_(gradients, momentum, alpha=recipe.momentum)
            torch._foreach_add_(parameters, gradients if recipe.nesterov else momentum, alpha=-rate)
        for parameter in moved.values():
            parameter.grad = None

    # -- one-shot scores ------------------------------------------------------------------------------------------

    def evaluate(self, graphs: Sequence[ArchGraph], *, batch: int = 500, images: int = 500) -> list[Scores]:
        """Of each genotype on the same validation images, with the statistics of each batch.

        Args:
            graphs: genotypes of the supernet's space.
            batch: images per batch, at most.
            images: how many, at least 1; always the same ones, whatever the weights.
        """
        valid, device = self.data.valid, self.data.device
        order = torch.randperm(len(valid), generator=rng.torch_generator(self.seed, "one-shot validation"))
        wanted = order[:images].to(device)
        chosen = [part for part in torch.split(wanted, batch) if len(part) > 1 or len(wanted) == 1]
        correct = torch.zeros(len(graphs), dtype=torch.int64, device=device)
        loss = torch.zeros(len(graphs), device=device)
        with torch.autocast(device.type, torch.bfloat16) if self._bfloat16 else nullcontext():
            for part in chosen:
                labels = valid.labels[part]
                logits = pool_logits(self.net, self.data.normaliser(valid.images[part]), graphs).float()
                correct += (logits.argmax(2) == labels).sum(1)
                expected = labels.expand(len(graphs), -1)
                loss += F.cross_entropy(logits.transpose(1, 2), expected, reduction="none").sum(1)
        count = sum(map(len, chosen))
        return [Scores(c / count, total / count) for c, total in zip(correct.tolist(), loss.tolist(), strict=True)]

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def pack(self) -> bytes:
        """Weights, statistics of batch norm, momentum and the epochs done, as a safetensors file."""
        return pack(dict(self._tensors()) | {"epochs_done": torch.tensor(self.epochs_done)})

    def unpack(self, data: bytes) -> None:
        """Continue where `pack` was called.

        Raises:
            DataError: the bytes are malformed, or of another network.
        """
        tensors = unpack(data)
        if "epochs_done" not in tensors:
            raise DataError("weights: no epochs_done among them; they were not written by a training of shared weights")
        self.epochs_done = int(tensors.pop("epochs_done"))
        weights = {name.removeprefix("net."): value for name, value in tensors.items() if name.startswith("net.")}
        check_shapes(weights, self.net.state_dict())
        self.net.load_state_dict(weights)
        named = dict(self.net.named_parameters())
        moments = {name.removeprefix("momentum."): v for name, v in tensors.items() if name.startswith("momentum.")}
        check_shapes(moments, {name: named[name] for name in moments if name in named})
        self._momentum = {name: torch.zeros_like(named[name]).copy_(value) for name, value in moments.items()}

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from ((f"net.{name}", value) for name, value in self.net.state_dict().items())
        yield from ((f"momentum.{name}", value) for name, value in self._momentum.items())
