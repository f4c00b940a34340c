"""The shared supernet against plain eager PyTorch: a training step, the one-shot scores of a pool, memory; epochs.

`nao_cnn_small` at the size of the reference (N = 3, F = 20, batch 64, 32x32 pixels, no auxiliary head). Step: forward,
loss, backward, clip and SGD on tensors already prepared, one genotype per step, the same ones for both. Plain:
`benchmarks/plain_supernet.py`, contiguous, one convolution per call, every genotype of the pool by itself. The
two take turns, each in an own process; gradients and logits are compared in float64. On a GPU both are launched step by
step, for each step has a path of its own.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain_supernet import PlainSupernet, copy_shared_parameters
from nao_ray import registry, rng
from nao_ray.bench._device import check_device, peak, timed
from nao_ray.bench._process import Worker, answer
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench.child import relative
from nao_ray.networks import fast
from nao_ray.networks.cell_supernet import CellSupernet
from nao_ray.networks.one_shot import pool_logits
from nao_ray.networks.supernet import batch_statistics
from nao_ray.skeletons.images.base import StackSize, image_shapes
from nao_ray.skeletons.nao import Nao
from nao_ray.spaces.base import ArchGraph
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.training.recipe import ImageRecipe
from nao_ray.training.streams import ByStep
from nao_ray.training.trainer import Trainer

CLIP, RATE, MOMENTUM, WEIGHT_DECAY = 5.0, 0.025, 0.9, 3e-4  # NAO_pytorch V1
VARIANTS = ("plain", "nao_ray")
MODULE = "nao_ray.bench.supernet"


def run(
    repeats: int = 9,
    threads: int = 2,
    batch: int = 64,
    pool: int = 100,
    pool_batch: int = 500,
    cells_per_stage: int = 3,
    channels: int = 20,
    memory_batches: Sequence[int] = (16, 32, 64, 128),
    epoch_images: int = 1280,
    epochs: int = 2,
    device: str = "cpu",
) -> BenchResult:
    """Time steps of both variants in turns, then the evaluation of a pool by each, and compare results.

    At last, on a CPU, epochs of our own on Ray: two workers together, one, and one with both CPUs.

    Args:
        repeats: timed steps per variant, after two (on a GPU ten) that are not timed; each has another genotype.
        threads: torch's threads.
        batch: images per step.
        pool: genotypes that are evaluated.
        pool_batch: images that each is evaluated on.
        cells_per_stage: N.
        channels: F.
        memory_batches: images of the steps whose memory is measured, at least two sizes.
        epoch_images: training images of an epoch.
        epochs: timed epochs per number of workers, after one that is not timed; 0: none, and no Ray.
        device: cpu or cuda.

    Raises:
        ConfigError: there is no such device.
    """
    check_device("supernet", device)
    numbers = {"batch": batch, "pool": pool, "pool_batch": pool_batch, "n": cells_per_stage, "f": channels}
    size: dict[str, int | str] = {**numbers, "device": device}
    taken: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    workers = {variant: Worker(MODULE, variant, threads, size) for variant in VARIANTS}
    try:
        for index in range(-2 if device == "cpu" else -10, repeats):
            for variant, worker in workers.items():
                took = worker.ask(f"step {index if index >= 0 else repeats - index}")
                taken[variant] += [took] if index >= 0 else []
        how = {variant: worker.ask("execution") for variant, worker in workers.items()}
        evaluation = {variant: worker.ask("pool") for variant, worker in workers.items()}
        alone = workers["nao_ray"].ask("alone")
    finally:
        for worker in workers.values():
            worker.close()
    memory = {
        variant: [_memory(variant, threads, {**size, "batch": b}) for b in memory_batches] for variant in VARIANTS
    }
    per_image = {variant: _slope(memory_batches, used) for variant, used in memory.items()}
    waits: dict[tuple[int, int], list[float]] = {}
    if epochs and device == "cpu":
        from nao_ray.bench._epoch import seconds_of_epochs  # it loads Ray, which no variant's process needs

        waits = seconds_of_epochs(epoch_images, epochs, batch, cells_per_stage, channels)
    seconds, cpu = ({name: [step[what] for step in each] for name, each in taken.items()} for what in ("wall", "cpu"))
    medians, of_cpu = ({name: statistics.median(times) for name, times in each.items()} for each in (seconds, cpu))
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    differences = float64_differences(cells_per_stage, channels, device)
    return BenchResult(
        name="supernet",
        columns=["measurement", "plain", "nao_ray", "ratio"],
        rows=[
            ["step, median s", *medians.values(), medians["plain"] / medians["nao_ray"]],
            ["step, median CPU s", *of_cpu.values(), of_cpu["plain"] / of_cpu["nao_ray"]],
            ["step, run", *how.values(), ""],
            [f"{pool} genotypes on {pool_batch} images, s", *evaluation.values(), _share(evaluation)],
            *(
                [f"memory of a step of {b}, MB", *(round(memory[v][i] / 1e6) for v in VARIANTS), _share(memory, i)]
                for i, b in enumerate(memory_batches)
            ),
            ["memory of a step per image, MB", *(used / 1e6 for used in per_image.values()), _share(per_image)],
            *_epoch_rows(waits, epoch_images),
        ],
        notes=[
            f"N={cells_per_stage}, F={channels}, batch {batch}, 32x32; n = {repeats} steps each in turns, every one "
            f"another genotype, {threads} threads, {device}; ratio of a step: plain / nao_ray, over single steps "
            f"{min(ratios):.2f} to {max(ratios):.2f}, and so of an epoch; other ratios: nao_ray / plain.",
            f"The same pool with our supernet, one genotype after the other: {alone:.3g} s.",
            "Memory: growth of the peak of a fresh process over its size before the first step, two steps, on a GPU of "
            "the most that was allocated; per image: the slope of the line through the sizes.",
            *([f"Epochs: n = {epochs}, wall time with the weights' way to the workers and back."] if waits else []),
            f"float64, norm of the difference / norm: gradients {differences['gradients']:.1e}, "
            f"logits of a pool {differences['logits']:.1e}.",
            machine(),
        ],
        data={
            "seconds": seconds,
            "cpu_seconds": cpu,
            "pool_seconds": {**evaluation, "alone": alone},
            "memory_bytes": memory,
            "epoch_seconds": {f"{workers} x {cpus} CPUs": times for (workers, cpus), times in waits.items()},
            **differences,
        },
    )


def _slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Of the line of least squares."""
    return float(np.polyfit(np.asarray(sizes, dtype=np.float64), np.asarray(values), 1)[0])


def _epoch_rows(waits: Mapping[tuple[int, int], Sequence[float]], images: int) -> list[list[object]]:
    """Two workers against one: in the column of what is compared with, the time of the one."""
    if not waits:
        return []
    median = {plan: statistics.median(times) for plan, times in waits.items()}
    ours = median[2, 1]
    return [
        [f"epoch of {images:,}, s: 2 workers against 1 of {cpus} CPU", median[1, cpus], ours, median[1, cpus] / ours]
        for cpus in (1, 2)
    ]


def _share(figures: dict[str, Any], index: int | None = None) -> float:
    plain, ours = (figures[variant] if index is None else figures[variant][index] for variant in VARIANTS)
    return float(ours / plain)


def _memory(variant: str, threads: int, size: dict[str, int | str]) -> float:
    worker = Worker(MODULE, variant, threads, size)
    try:
        before = worker.ask("memory")
        worker.ask("step 0")
        worker.ask("step 1")
        return float(worker.ask("memory") - before)
    finally:
        worker.close()


# -- networks -------------------------------------------------------------------------------------------------


def networks(n: int, f: int, device: str = "cpu") -> tuple[CellSupernet, PlainSupernet]:
    """Ours and the plain supernet with equal weights."""
    space = registry.load("space", "nao_cnn_small")()
    with rng.torch_seeded(0, "bench supernet weights"):
        ours = Nao().supernet(space, image_shapes("cifar10"), StackSize(cells_per_stage=n, channels=f))
    assert isinstance(ours, CellSupernet)
    plain = PlainSupernet(space.ops, ours.config)
    copy_shared_parameters(ours, plain)
    if device != "cpu":
        ours = ours.to(memory_format=torch.channels_last)  # as an objective places it
    return ours.to(device), plain.to(device)


def genotype(index: int) -> ArchGraph:
    """A random genotype."""
    space = registry.load("space", "nao_cnn_small")()
    graph: ArchGraph = space.lower(space.sample(rng.child(0, "bench supernet", index)))
    return graph


def images(count: int) -> Tensor:
    """``[B, 3, 32, 32]``."""
    return torch.randn(count, 3, 32, 32, generator=rng.torch_generator(0, "bench supernet images"))


def float64_differences(n: int, f: int, device: str = "cpu", batch: int = 4) -> dict[str, float]:
    """Norm of the difference over the norm, ours against plain, on our float32 paths in double precision."""
    ours, plain = networks(n, f, device)
    ours.double()
    plain.double()
    x, labels = images(batch).double().to(device), torch.arange(batch, device=device) % 10
    graph = genotype(0)
    with mock.patch.object(fast, "DTYPES", {torch.float64}):
        F.cross_entropy(ours(x, graph), labels).backward()  # type: ignore[no-untyped-call]
        F.cross_entropy(plain(x, graph), labels).backward()  # type: ignore[no-untyped-call]
        first, second = ([*net.stem.parameters(), *net.classifier.parameters()] for net in (ours, plain))
        graphs = [genotype(index) for index in range(8)]
        together = pool_logits(ours, x, graphs)
        with torch.inference_mode(), batch_statistics(plain):
            alone = torch.stack([plain(x, graph) for graph in graphs])
    gradients = ([value.grad for value in values if value.grad is not None] for values in (first, second))
    return {"gradients": relative(*gradients), "logits": relative([together], [alone])}


# -- one process per variant ----------------------------------------------------------------------------------


def _stepper(variant: str, batch: int, n: int, f: int, device: str) -> tuple[Callable[[int], None], Callable[[], str]]:
    """A function that makes training step `index` of a variant, and what says how it is run.

    Ours is the trainer's own, less the augmentation.
    """
    ours, plain = networks(n, f, device)
    x, labels = images(batch).to(device), torch.arange(batch, device=device) % 10
    if variant == "nao_ray":
        recipe = ImageRecipe(name="paper_shared", batch=batch, drop_path_keep=1.0)
        task, where = Synthetic(SyntheticConfig(size=32, channels=3, classes=10)), torch.device(device)
        objective = task.objective(where, recipe)  # it has no part in a step
        trainer = Trainer(ours, objective, epochs=1000, streams=ByStep(0, where), choose=genotype)
        trainer.set_rate(RATE)

        def step(index: int) -> None:
            ours.train()
            graph = genotype(index)
            F.cross_entropy(ours(x, graph), labels).backward()  # type: ignore[no-untyped-call]
            trainer.update()

        return step, lambda: trainer.execution
    optimiser = torch.optim.SGD(plain.parameters(), RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)

    def plain_step(index: int) -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(plain(x, genotype(index)), labels).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(plain.parameters(), CLIP)
        optimiser.step()

    return plain_step, lambda: "eager"


def _pool(variant: str, pool: int, pool_batch: int, n: int, f: int, device: str) -> Callable[[], None]:
    ours, plain = networks(n, f, device)
    net = plain if variant == "plain" else ours
    x, graphs = images(pool_batch).to(device), [genotype(index) for index in range(pool)]

    def together() -> None:
        pool_logits(ours, x, graphs)

    def one_by_one() -> None:
        with torch.inference_mode(), batch_statistics(net):
            for graph in graphs:
                net(x, graph)

    return together if variant == "nao_ray" else one_by_one


def replies(variant: str, size: dict[str, Any]) -> Callable[[str], Any]:
    """Answers the questions of the measurement, in the process that is measured."""
    shape = {"n": size["n"], "f": size["f"], "device": size["device"]}
    step, execution = _stepper(variant, size["batch"], **shape)

    def reply(question: str) -> Any:  # noqa: ANN401
        match question.split():
            case ["step", index]:
                return timed(lambda: step(int(index)), size["device"])
            case ["memory"]:
                return peak(size["device"])
            case ["execution"]:
                return execution()
            case [kind]:
                which = "ours alone" if kind == "alone" else variant
                return timed(_pool(which, size["pool"], size["pool_batch"], **shape), size["device"])["wall"]
        raise AssertionError(question)

    return reply


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    answer(replies(sys.argv[1], json.loads(sys.argv[3])))
