"""DARTS' step, alphas and weights, against plain eager PyTorch: first and second order, time, memory, gradients.

The relaxed supernet at its published size (16 channels, 8 cells, batch 64, 32x32 pixels). A step: the alphas on one
batch, then the weights on another; second order by the finite difference. Ours is the trainer's whole step, with
augmentation; plain: `benchmarks/plain_darts.py`, contiguous, the step as the authors' code has it, on ready tensors.
The two take turns, each in an own process; the alphas' gradients are compared in float64.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.plain_darts import PlainDarts
from nao_ray import rng
from nao_ray.bench._process import Worker, answer, peak_memory
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench.child import _timed, relative
from nao_ray.networks import fast
from nao_ray.networks.darts import SEARCH_OPS
from nao_ray.networks.relaxed import RelaxedSupernet
from nao_ray.spaces.darts_cnn import LOWERED, PRIMITIVES
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.training import bilevel
from nao_ray.training.alphas import AlphaOptimiser
from nao_ray.training.alternating import Alternating
from nao_ray.training.recipe import Recipe
from nao_ray.training.streams import ByStep

VARIANTS, ORDERS = ("plain", "nao_ray"), ("first", "second")
MODULE = "nao_ray.bench.darts"
RATE, MOMENTUM, DECAY, CLIP = 0.025, 0.9, 3e-4, 5.0


def run(repeats: int = 5, threads: int = 2, batch: int = 64, layers: int = 8, channels: int = 16) -> BenchResult:
    """Time steps of both variants in turns, on a GPU where there is one, and compare memory and gradients.

    Args:
        repeats: timed steps per variant and order, after one that is not timed (on a GPU five).
        threads: torch's threads.
        batch: images per batch.
        layers: cells, at least 3.
        channels: of the first cells.
    """
    size = {"batch": batch, "layers": layers, "channels": channels}
    rows: list[list[object]] = []
    seconds: dict[str, dict[str, list[float]]] = {}
    memory: dict[str, dict[str, float]] = {}
    for order in ORDERS:
        seconds[order], memory[order] = _measure(order, repeats, threads, size)
        medians = {variant: statistics.median(times) for variant, times in seconds[order].items()}
        used = memory[order]
        rows += [
            [f"{order} order: step, median s", *medians.values(), medians["plain"] / medians["nao_ray"]],
            [f"{order} order: memory, MB", *(round(used[v] / 1e6) for v in VARIANTS), used["nao_ray"] / used["plain"]],
        ]
    differences = float64_differences(layers=min(layers, 3), channels=4)
    ratios = {order: [a / b for a, b in zip(*seconds[order].values(), strict=True)] for order in ORDERS}
    return BenchResult(
        name="darts",
        columns=["measurement", "plain", "nao_ray", "ratio"],
        rows=rows,
        notes=[
            f"{layers} cells, {channels} channels, batch {batch}, 32x32; n = {repeats} steps each in turns, {threads} "
            "threads; ratio of a step: plain / nao_ray, over single steps "
            + ", ".join(f"{min(each):.2f} to {max(each):.2f} ({order} order)" for order, each in ratios.items())
            + "; of memory: nao_ray / plain.",
            "Memory: on a CPU growth of the peak of a process over its size before the first step, on a GPU the most "
            "that was allocated.",
            "float64, norm of the difference / norm, of the alphas' gradients: "
            + ", ".join(f"{order} order {value:.1e}" for order, value in differences.items())
            + ".",
            machine(),
        ],
        data={"seconds": seconds, "memory_bytes": memory, **differences},
    )


def _measure(
    order: str, repeats: int, threads: int, size: dict[str, int]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of steps, and bytes, by variant."""
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    workers = {variant: Worker(MODULE, f"{variant} {order}", threads, size) for variant in VARIANTS}
    try:
        before = {variant: worker.ask("memory") for variant, worker in workers.items()}
        for index in range(-_warm_up(), repeats):
            for variant, worker in workers.items():
                took = worker.ask("step")
                seconds[variant] += [took] if index >= 0 else []
        memory = {variant: worker.ask("memory") - before[variant] for variant, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.close()
    return seconds, memory


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _warm_up() -> int:
    return 5 if torch.cuda.is_available() else 1


# -- networks -------------------------------------------------------------------------------------------------


def networks(layers: int, channels: int) -> tuple[RelaxedSupernet, PlainDarts]:
    """Ours and the plain one with equal weights."""
    with rng.torch_seeded(0, "bench darts weights"):
        names = [LOWERED[name] for name in PRIMITIVES]
        ours = RelaxedSupernet(names, SEARCH_OPS, layers=layers, channels=channels)
    plain = PlainDarts(channels, layers)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), plain.parameters(), strict=True):
            other.copy_(mine)
    return ours, plain


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    """Images ``[B, 3, 32, 32]`` and labels, for the weights and for the alphas."""
    draw = rng.torch_generator(0, "bench darts images")
    return [(torch.randn(count, 3, 32, 32, generator=draw), torch.arange(count) % 10) for _ in range(2)]


def first_alphas() -> list[Tensor]:
    """``[14, 8]`` twice."""
    draw = rng.torch_generator(0, "bench darts alphas")
    return [1e-3 * torch.randn(14, 8, generator=draw) for _ in range(2)]


def float64_differences(layers: int, channels: int, batch: int = 4) -> dict[str, float]:
    """Norm of the difference over the norm of the alphas' gradients, on our float32 paths in double precision."""
    train, valid = (
        [tensor.double() if tensor.is_floating_point() else tensor for tensor in each] for each in batches(batch)
    )
    alphas = [alpha.double() for alpha in first_alphas()]
    found: dict[str, list[list[Tensor]]] = {order: [] for order in ORDERS}
    with mock.patch.object(fast, "DTYPES", {torch.float64}):
        for network in networks(layers, channels):
            network.double()
            names, weights = zip(*network.named_parameters(), strict=True)

            def loss(
                data: Sequence[Tensor],
                weights: Sequence[Tensor],
                alphas: Sequence[Tensor],
                network: nn.Module = network,
                names: Sequence[str] = names,
            ) -> Tensor:
                images, labels = data
                named = dict(zip(names, weights, strict=True))
                return F.cross_entropy(functional_call(network, named, (images, alphas)), labels)

            of_train, of_valid = partial(loss, train), partial(loss, valid)
            unrolled = bilevel.Unrolled(RATE, MOMENTUM, DECAY)
            product = bilevel.by_difference(0.01)
            found["first"].append(bilevel.first_order(of_valid, weights, alphas))
            found["second"].append(bilevel.second_order(of_train, of_valid, weights, alphas, unrolled, product))
    return {order: relative(*each) for order, each in found.items()}


# -- one process per variant ----------------------------------------------------------------------------------


def our_step(order: str, batch: int, layers: int, channels: int) -> Callable[[], object]:
    """A whole step of the trainer."""
    device = _device()
    task = Synthetic(SyntheticConfig(size=32, channels=3, classes=10, per_class=max(20, batch)))
    recipe = Recipe(name="darts_search", batch=batch, cosine_epochs=50, precision="float32")
    halves = task.objective(device, recipe).halves(rng.torch_generator(0, "bench darts halves"))
    training = Alternating(
        networks(layers, channels)[0],
        *halves,
        first_alphas(),
        order=order,  # type: ignore[arg-type]
        optimiser=AlphaOptimiser(),
        streams=ByStep(0, device),
        alpha_streams=ByStep(1, device),
    )
    return training.step


def plain_step(order: str, batch: int, layers: int, channels: int) -> Callable[[], object]:
    """As the authors' `architect.py` and `train_search.py` have it."""
    device = _device()
    network = networks(layers, channels)[1].to(device)
    ahead = copy.deepcopy(network)
    (images, labels), valid = ([tensor.to(device) for tensor in each] for each in batches(batch))
    alphas = [alpha.to(device).requires_grad_() for alpha in first_alphas()]
    adam = torch.optim.Adam(alphas, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    sgd = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, weight_decay=DECAY)
    weights = list(network.parameters())

    def loss(net: nn.Module, data: Sequence[Tensor]) -> Tensor:
        return F.cross_entropy(net(data[0], alphas), data[1])

    def by_alphas(sign: float, direction: Sequence[Tensor], eps: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            for weight, part in zip(weights, direction, strict=True):
                weight.add_(sign * eps * part)
        return torch.autograd.grad(loss(network, (images, labels)), alphas)

    def second() -> list[Tensor]:
        gradients = torch.autograd.grad(loss(network, (images, labels)), weights)
        with torch.no_grad():
            ahead.load_state_dict(network.state_dict())
            for weight, gradient, moved in zip(weights, gradients, ahead.parameters(), strict=True):
                moment = sgd.state.get(weight, {}).get("momentum_buffer")
                step = gradient + DECAY * weight
                moved.sub_(RATE * (step if moment is None else step + MOMENTUM * moment))
        both = torch.autograd.grad(loss(ahead, valid), [*ahead.parameters(), *alphas])
        direction, direct = both[: len(weights)], both[len(weights) :]
        eps = 0.01 / torch.cat([part.reshape(-1) for part in direction]).norm()
        plus = by_alphas(1, direction, eps)
        minus = by_alphas(-2, direction, eps)
        with torch.no_grad():
            for weight, part in zip(weights, direction, strict=True):
                weight.add_(eps * part)
        return [g - RATE * (p - n) / (2 * eps) for g, p, n in zip(direct, plus, minus, strict=True)]

    def step() -> Tensor:
        found = second() if order == "second" else torch.autograd.grad(loss(network, valid), alphas)
        for alpha, gradient in zip(alphas, found, strict=True):
            alpha.grad = gradient
        adam.step()
        sgd.zero_grad(set_to_none=True)
        value = loss(network, (images, labels))
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, CLIP)
        sgd.step()
        return value.detach()

    return step


def replies(variant: str, size: dict[str, int]) -> Callable[[str], float]:
    """What answers ``step`` with its seconds, and ``memory`` with bytes."""
    name, order = variant.split()
    step = (plain_step if name == "plain" else our_step)(order, **size)

    def finished() -> None:
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def reply(question: str) -> float:
        if question == "step":
            return _timed(finished)
        return float(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else peak_memory()

    return reply


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    answer(replies(sys.argv[1], json.loads(sys.argv[3])))
