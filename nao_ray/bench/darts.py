"""DARTS' step, alphas and weights, against plain eager PyTorch: first and second order, time, memory, gradients.

The relaxed supernet at its published size (16 channels, 8 cells, batch 64, 32x32 pixels). A step: the alphas on one
batch, then the weights on another; second order by the finite difference. Ours is the trainer's whole step, with
augmentation; plain: `benchmarks/plain_darts.py`, contiguous, the step as the authors' code has it, on ready tensors.
The two take turns, each time in a process of its own, so that there is memory for one at a time.

Gradients, of the alphas and of the weights, are compared with equal weights on one small batch: in float64, and in
float32 with smooth functions in the place of ReLU and max pool (see `bench child`), beside plain PyTorch's own.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.plain_darts import PlainDarts
from nao_ray import rng
from nao_ray.bench._device import check_device, peak, timed
from nao_ray.bench._process import Worker, answer
from nao_ray.bench._result import BenchResult, machine, show_row
from nao_ray.bench.child import relative, without_kinks
from nao_ray.errors import ConfigError
from nao_ray.networks import fast
from nao_ray.networks.darts import SEARCH_OPS
from nao_ray.networks.relaxed import RelaxedSupernet
from nao_ray.spaces.darts_cnn import LOWERED, PRIMITIVES
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.training import bilevel
from nao_ray.training.alphas import AlphaOptimiser
from nao_ray.training.alternating import Alternating, Order
from nao_ray.training.capture import WARM_UP
from nao_ray.training.recipe import ImageRecipe
from nao_ray.training.streams import ByStep

VARIANTS = ("plain", "nao_ray")
ORDERS: tuple[Order, ...] = ("first", "second")
MODULE = "nao_ray.bench.darts"
Times = dict[str, list[float]]
"""By variant."""
_COLUMNS = ["measurement", "plain", "nao_ray", "ratio"]
RATE, MOMENTUM, DECAY, CLIP = 0.025, 0.9, 3e-4, 5.0


def run(
    repeats: int = 3,
    threads: int = 2,
    batch: int = 64,
    layers: int = 8,
    channels: int = 16,
    steps: int = 1,
    orders: Sequence[str] = ORDERS,
    device: str = "cpu",
) -> BenchResult:
    """Time steps of both variants in turns, and compare memory and gradients.

    Args:
        repeats: turns of each variant and order.
        threads: torch's threads.
        batch: images per batch.
        layers: cells, at least 3.
        channels: of the first cells.
        steps: timed in a turn, after one that is not timed (on a GPU six).
        orders: of the alphas' gradient.
        device: cpu or cuda.

    Raises:
        ConfigError: there is no such order or device.
    """
    if not orders or {*orders} - {*ORDERS}:
        raise ConfigError(f"bench darts orders={','.join(map(str, orders))}: expected some of {', '.join(ORDERS)}")
    check_device("darts", device)
    size: dict[str, Any] = {"batch": batch, "layers": layers, "channels": channels, "device": device}
    rows: list[list[object]] = []
    seconds: dict[str, Times] = {}
    cpu_seconds: dict[str, Times] = {}
    memory: dict[str, dict[str, float]] = {}
    how: set[str] = set()
    for order in orders:
        seconds[order], cpu_seconds[order], memory[order], execution = _measure(order, repeats, steps, threads, size)
        how.add(execution)
        for what, times in (("s", seconds[order]), ("CPU s", cpu_seconds[order])):
            plain, ours = (statistics.median(times[variant]) for variant in VARIANTS)
            rows.append([f"{order} order: step, median {what}", plain, ours, plain / ours])
            show_row(_COLUMNS, rows[-1], first=len(rows) == 1)
        used = [memory[order][variant] for variant in VARIANTS]
        rows.append([f"{order} order: memory, MB", *(round(size / 1e6) for size in used), used[1] / used[0]])
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # small work, which many threads would wait over
    differences = gradient_differences(min(layers, 3), 4)
    torch.set_num_threads(before)
    ratios = {order: [a / b for a, b in zip(*times.values(), strict=True)] for order, times in seconds.items()}
    return BenchResult(
        name="darts",
        columns=_COLUMNS,
        rows=rows,
        notes=[
            f"{layers} cells, {channels} channels, batch {batch}, 32x32; n = {repeats} turns of {steps} each, "
            f"{threads} threads, {device}; ratio of a step: plain / nao_ray, over single steps "
            + ", ".join(f"{min(each):.2f} to {max(each):.2f} ({order} order)" for order, each in ratios.items())
            + "; of memory: nao_ray / plain.",
            "Memory: growth over what is there before the first step, on a CPU of the peak of the process, on a GPU of "
            f"the most that was allocated; the most of all turns. Steps of nao_ray: {', '.join(sorted(how))}.",
            "Gradients, norm of the difference / norm: "
            + "; ".join(
                f"{kind} " + ", ".join(f"{what} {value:.1e}" for what, value in each.items())
                for kind, each in differences.items()
            )
            + ".",
            machine(),
        ],
        data={"seconds": seconds, "cpu_seconds": cpu_seconds, "memory_bytes": memory, "gradients": differences},
    )


def _measure(
    order: str, repeats: int, steps: int, threads: int, size: dict[str, Any]
) -> tuple[Times, Times, dict[str, float], str]:
    """Seconds of steps, CPU seconds, and bytes, by variant; how ours were run."""
    seconds: Times = {variant: [] for variant in VARIANTS}
    cpu_seconds: Times = {variant: [] for variant in VARIANTS}
    memory, execution = dict.fromkeys(VARIANTS, 0.0), ""
    warm_up = 1 if size["device"] == "cpu" else WARM_UP + 3  # on CUDA the fourth is recorded
    for variant in repeats * VARIANTS:
        worker = Worker(MODULE, f"{variant} {order}", threads, size)
        try:
            before = worker.ask("memory")
            times = [worker.ask("step") for _ in range(warm_up + steps)][warm_up:]
            seconds[variant] += [step["wall"] for step in times]
            cpu_seconds[variant] += [step["cpu"] for step in times]
            memory[variant] = max(memory[variant], worker.ask("memory") - before)
            execution = worker.ask("execution")
        finally:
            worker.close()
    return seconds, cpu_seconds, memory, execution


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


def gradient_differences(layers: int, channels: int, batch: int = 4) -> dict[str, dict[str, float]]:
    """Norm of the difference over the norm, of the alphas' gradients by order and of the weights'.

    Returns:
        `float64`, on our float32 paths in double precision; `float32, smooth`; `float32`; `float32, plain moved`,
        plain against plain with its inputs moved by normal numbers of deviation 1e-7.
    """
    ours, plain = networks(layers, channels)
    found = {}
    with mock.patch.object(fast, "DTYPES", {torch.float64}):
        mine, theirs = (gradients(copy.deepcopy(net).double(), batch, torch.float64) for net in (ours, plain))
    found["float64"] = {what: relative(mine[what], theirs[what]) for what in mine}
    with without_kinks():
        mine, theirs = (gradients(net, batch) for net in (ours, plain))
    found["float32, smooth"] = {what: relative(mine[what], theirs[what]) for what in mine}
    mine, theirs, moved = gradients(ours, batch), gradients(plain, batch), gradients(plain, batch, noise=1e-7)
    found["float32"] = {what: relative(mine[what], theirs[what]) for what in mine}
    found["float32, plain moved"] = {what: relative(moved[what], theirs[what]) for what in mine}
    return found


def gradients(
    network: nn.Module, batch: int, dtype: torch.dtype = torch.float32, noise: float = 0.0
) -> dict[str, list[Tensor]]:
    """Those of the alphas by order, and the weights'; images are moved by noise of this deviation."""
    draw = rng.torch_generator(0, "bench darts noise")
    train, valid = (
        ((images + noise * torch.randn(images.shape, generator=draw)).to(dtype), labels)
        for images, labels in batches(batch)
    )
    alphas = [alpha.to(dtype) for alpha in first_alphas()]
    names, weights = zip(*network.named_parameters(), strict=True)

    def loss(data: Sequence[Tensor], weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
        images, labels = data
        named = dict(zip(names, weights, strict=True))
        return F.cross_entropy(functional_call(network, named, (images, alphas)), labels)

    of_train, of_valid = partial(loss, train), partial(loss, valid)
    unrolled, product = bilevel.Unrolled(RATE, MOMENTUM, DECAY), bilevel.by_difference(0.01)
    return {
        "first": bilevel.first_order(of_valid, weights, alphas),
        "second": bilevel.second_order(of_train, of_valid, weights, alphas, unrolled, product),
        "weights": list(torch.autograd.grad(of_train(weights, alphas), weights)),
    }


# -- one process per variant ----------------------------------------------------------------------------------


def our_training(
    order: Order, batch: int, layers: int, channels: int, device: str = "cpu", *, per_class: int | None = None
) -> Alternating:
    """Of made-up images, `per_class` of each; without it enough for one step an epoch."""
    where = torch.device(device)
    task = Synthetic(SyntheticConfig(size=32, channels=3, classes=10, per_class=per_class or max(20, batch)))
    recipe = ImageRecipe(name="darts_search", batch=batch, cosine_epochs=50, precision="float32")
    halves = task.objective(where, recipe).cut(rng.torch_generator(0, "bench darts halves"))
    return Alternating(
        networks(layers, channels)[0],
        *halves,
        first_alphas(),
        order=order,
        optimiser=AlphaOptimiser(),
        streams=ByStep(0, where),
        alpha_streams=ByStep(1, where),
    )


def plain_step(order: str, batch: int, layers: int, channels: int, device: str = "cpu") -> Callable[[], object]:
    """As the authors' `architect.py` and `train_search.py` have it."""
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


def replies(variant: str, size: dict[str, Any]) -> Callable[[str], object]:
    """What answers ``step`` with its seconds and CPU seconds, ``memory`` with bytes, ``execution`` with a word."""
    name, word = variant.split()
    order = next(order for order in ORDERS if order == word)
    training = our_training(order, **size) if name == "nao_ray" else None
    step = plain_step(order, **size) if training is None else training.step

    def reply(question: str) -> object:
        if question == "step":
            return timed(step, size["device"])
        if question == "execution":
            return "eager" if training is None else training.execution
        return peak(size["device"])

    return reply


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    torch.backends.cudnn.benchmark = True  # as the authors' code, and the evaluator
    answer(replies(sys.argv[1], json.loads(sys.argv[3])))
