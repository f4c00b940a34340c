"""One training step of a child network against the same network in plain eager PyTorch.

NAONet-B at the size of the reference's search (N = 3, F = 20, batch 64, 32x32 pixels, auxiliary head with weight 0.4):
forward, both losses, backward, clip and SGD on tensors already prepared. Plain: `benchmarks/plain.py`, contiguous, a
module per operation. The two take turns, each in an own process, so that no setting of one touches the other. On a GPU
ours is launched and, as the trainer does it, replayed from a graph, all in float32 (TF32 where torch takes it).

Gradients are compared with equal weights on one batch. In float32 a ReLU or a max pool turns rounding into another
gradient (a number of 1e-7 may end on either side of zero), so any two orders of summation differ over a whole network;
how much is shown by moving the plain network's input by one part in ten million. The arithmetic itself is therefore
compared in float64, and in float32 with smooth functions in the place of ReLU and max pool in both networks.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain import PlainNetwork, copy_parameters
from nao_ray import registry, rng
from nao_ray.bench._device import check_device, peak, timed
from nao_ray.bench._process import Worker, answer
from nao_ray.bench._result import BenchResult, machine
from nao_ray.networks import fast
from nao_ray.networks.stacks import Stack
from nao_ray.skeletons.images.base import StackSize, image_shapes
from nao_ray.skeletons.nao import Nao
from nao_ray.spaces.base import ArchGraph
from nao_ray.training.capture import WARM_UP, Capture, Recorder
from nao_ray.training.recipe import ImageRecipe

AUXILIARY_WEIGHT = 0.4  # NAO reference recipe: weight of the auxiliary loss
CLIP = 5.0  # global norm
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.024, 0.9, 5e-4
GRADIENT_BATCH = 16
"""Images on which gradients are compared: double precision is slow."""
MODULE = "nao_ray.bench.child"
VARIANTS = ("plain", "plain, channels-last", "nao_ray")
GRAPH = "nao_ray, graph"
"""A variant on GPUs alone."""
CELLS = {"NAONet-B": "nao_cnn_small", "random": "nao_cnn"}
"""Networks that steps are measured of, and their spaces."""


def run(
    repeats: int = 7,
    threads: int = 2,
    batch: int = 64,
    cells_per_stage: int = 3,
    channels: int = 20,
    device: str = "cpu",
) -> BenchResult:
    """Time the step of each variant `repeats` times, in turns, and compare gradients.

    Args:
        repeats: timed steps per variant, after two that are not timed (on a GPU six).
        threads: torch's threads.
        batch: images per step.
        cells_per_stage: N.
        channels: F.
        device: cpu or cuda.

    Raises:
        ConfigError: there is no such device.
    """
    check_device("child", device)
    size: dict[str, int | str] = {"batch": batch, "cells_per_stage": cells_per_stage, "channels": channels}
    variants = (*VARIANTS, GRAPH) if device == "cuda" else VARIANTS
    workers = [Worker(MODULE, variant, threads, {**size, "device": device}) for variant in variants]
    try:
        for worker in (2 if device == "cpu" else WARM_UP + 3) * workers:
            worker.ask("step")  # not timed
        taken: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
        for _ in range(repeats):
            for worker in workers:
                taken[worker.variant].append(worker.ask("step"))
        memory = {worker.variant: worker.ask("memory") for worker in workers}
        how = {worker.variant: worker.ask("execution") for worker in workers}
        augment = workers[-1].ask("augment")
    finally:
        for worker in workers:
            worker.close()
    seconds, cpu = ({name: [step[what] for step in each] for name, each in taken.items()} for what in ("wall", "cpu"))
    medians, of_cpu = (
        {variant: statistics.median(times) for variant, times in each.items()} for each in (seconds, cpu)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    differences = gradient_differences(min(batch, GRADIENT_BATCH), cells_per_stage, channels, device)
    torch.set_num_threads(before)
    data = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_memory_bytes": memory,
        "gradients": differences,
        "augment_seconds": augment,
        "execution": how,
    }
    return BenchResult(
        name="child",
        columns=[
            *("training step", "median s", "min s", "times as fast", "median CPU s", "in CPU seconds"),
            *("peak memory, MB", "run"),
        ],
        rows=[
            [
                *(v, medians[v], min(seconds[v]), medians["plain"] / medians[v]),
                *(of_cpu[v], of_cpu["plain"] / of_cpu[v], round(memory[v] / 1e6), how[v]),
            ]
            for v in variants
        ],
        notes=[
            f"NAONet-B, N={cells_per_stage}, F={channels}, batch {batch}, 32x32, auxiliary head; n = {repeats} steps "
            f"each in turns, {threads} threads, {device}; plain = contiguous eager PyTorch on the same tensors.",
            _gradient_note(differences),
            f"Augmentation of the batch (crop, flip, normalise), apart: {augment * 1e3:.2f} ms.",
            machine(),
        ],
        data=data,
    )


def _gradient_note(differences: dict[str, float]) -> str:
    return (
        "Gradients, nao_ray against plain (norm of the difference / norm): "
        f"float64 {differences['float64']:.1e}; "
        f"float32 with smooth functions for ReLU and max pool, worst parameter {differences['float32_smooth']:.1e}; "
        f"float32 as it is {differences['float32']:.1e}, "
        f"where plain itself changes by {differences['float32_moved']:.1e} when its input moves by 1e-7."
    )


# -- networks and the step ------------------------------------------------------------------------------------


def graph_of(cell: str) -> ArchGraph:
    """One of `CELLS`."""
    space = registry.load("space", CELLS[cell])()
    graph: ArchGraph = space.lower(
        space.sample(rng.child(0, "bench child cell")) if cell == "random" else space.parse(cell)
    )
    return graph


def networks(
    batch: int, cells_per_stage: int, channels: int, cell: str = "NAONet-B", device: str = "cpu"
) -> tuple[Stack, PlainNetwork, Tensor, Tensor]:
    """Ours and the plain network with equal weights, and one batch: images ``[B, 3, 32, 32]``, labels ``[B]``."""
    graph = graph_of(cell)
    size, headed = StackSize(cells_per_stage=cells_per_stage, channels=channels), ImageRecipe(drop_path_keep=1.0)
    with rng.torch_seeded(0, "bench child weights"):
        ours = Nao().build(graph, image_shapes("cifar10"), size, headed)
        plain = PlainNetwork(graph, ours.config)
    copy_parameters(ours, plain)
    generator = rng.torch_generator(0, "bench child images")
    images = torch.randn(batch, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 10, (batch,), generator=generator)
    if device != "cpu":
        ours = ours.to(memory_format=torch.channels_last)  # as an objective places it
    return ours.to(device), plain.to(device), images.to(device), labels.to(device)


def loss_of(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy plus the auxiliary head's."""
    logits, auxiliary = network(images)
    return F.cross_entropy(logits, labels) + AUXILIARY_WEIGHT * F.cross_entropy(auxiliary, labels)


def stepper(
    network: nn.Module, drawn: Callable[[], tuple[Tensor, Tensor]], *, foreach: bool | None = None
) -> Callable[[], Tensor]:
    """A function that trains a network on a batch, images and labels, as it is done by hand; the loss."""
    optimiser = torch.optim.SGD(
        network.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, foreach=foreach
    )

    def step() -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(network, *drawn())
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), CLIP, foreach=foreach)
        optimiser.step()
        return loss.detach()

    return step


def stepper_of(
    variant: str,
    *,
    device: str = "cpu",
    recorder: Recorder | None = None,
    **size: Any,  # noqa: ANN401
) -> tuple[Callable[[], Tensor], Callable[[], str]]:
    """That of a variant, always on the same batch, and what says how it is run.

    Args:
        variant: one of `VARIANTS`, or `GRAPH`.
        device: cpu or cuda.
        recorder: of the device, where it is not CUDA's.
        size: as `networks`.
    """
    ours, plain, images, labels = networks(**size, device=device)
    is_ours = variant in ("nao_ray", GRAPH)
    network: nn.Module = ours if is_ours else plain
    if variant == "plain, channels-last":
        network, images = network.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    step = stepper(network, lambda: (images, labels), foreach=True if is_ours else None)
    if variant != GRAPH:
        return step, lambda: "eager"
    capture = Capture(torch.device(device), recorder=recorder)
    captured = capture.of(lambda _: step())
    return lambda: captured(labels), lambda: capture.execution


# -- gradients ------------------------------------------------------------------------------------------------


def gradient_differences(
    batch: int = GRADIENT_BATCH, cells_per_stage: int = 3, channels: int = 20, device: str = "cpu"
) -> dict[str, float]:
    """Norm of the gradients' difference over their norm, ours against plain, both launched; see the module's text.

    Returns:
        `float64`, on our float32 paths in double precision; `float32_smooth`, the worst parameter; `float32`;
        `float32_moved`, plain against plain with its input moved by 1e-7.
    """
    ours, plain, images, labels = networks(batch, cells_per_stage, channels, device=device)
    reference = _gradients(plain, images, labels)
    differences = {
        "float32": relative(_gradients(ours, images, labels), reference),
        "float32_moved": relative(_gradients(plain, images * (1 + 1e-7), labels), reference),
    }
    with without_kinks():
        pairs = zip(_gradients(ours, images, labels), _gradients(plain, images, labels), strict=True)
        differences["float32_smooth"] = max(relative([mine], [theirs]) for mine, theirs in pairs)
    with mock.patch.object(fast, "DTYPES", {torch.float64}):
        mine, theirs = (_gradients(network.double(), images.double(), labels) for network in (ours, plain))
    return {**differences, "float64": relative(mine, theirs)}


@contextmanager
def without_kinks() -> Iterator[None]:
    """ReLU and max pool give way to SiLU and average pool."""

    def average(x: Tensor, kernel: int, stride: int, padding: int, *_: object, **_options: object) -> Tensor:
        return F.avg_pool2d(x, kernel, stride, padding)

    def smooth(x: Tensor, **_options: object) -> Tensor:
        return F.silu(x)

    with mock.patch.object(F, "relu", smooth), mock.patch.object(F, "max_pool2d", average):
        yield


def _gradients(network: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    network.zero_grad()
    loss_of(network, images, labels).backward()  # type: ignore[no-untyped-call]
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def relative(gradients: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """Norm of the difference over the norm of the reference."""
    difference = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(gradients, reference, strict=True))
    return float((difference / sum(float(b.double().square().sum()) for b in reference)) ** 0.5)


# -- one process per variant ----------------------------------------------------------------------------------


def _augmentation(batch: int, device: str) -> Callable[[], Any]:
    from nao_ray.training.augment import Normaliser, augment
    from nao_ray.training.recipe import ImageRecipe

    generator = rng.torch_generator(0, "bench child augment", device=device)
    images = torch.randint(0, 256, (batch, 3, 32, 32), generator=generator, dtype=torch.uint8, device=device)
    normaliser = Normaliser.of(images)
    return lambda: augment(images, generator, normaliser, ImageRecipe())


def replies(variant: str, size: dict[str, Any]) -> Callable[[str], Any]:
    """Answers the questions of the measurement, in the process that is measured."""
    device = size["device"]
    step, execution = stepper_of(variant, **size)
    augmentation = _augmentation(size["batch"], device)

    def reply(question: str) -> Any:  # noqa: ANN401
        match question:
            case "step":
                return timed(step, device)
            case "augment":
                return statistics.median(timed(augmentation, device)["wall"] for _ in range(20))
            case "execution":
                return execution()
        return peak(device)

    return reply


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    answer(replies(sys.argv[1], json.loads(sys.argv[3])))
