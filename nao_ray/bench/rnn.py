"""A recurrent cell over a segment of text, forward and backward, against the same cell step by step and node by node.

At the size of the reference's search (300 units, batch 64, 35 steps), with a hidden mask and gradients of the inputs,
the state and all weights; neither the embedding nor the decoder is in it. `plain`: eager PyTorch, as the papers write
the cell (`networks/recurrent.py`); `products`: only the matrix products that any exact version has to make, which none
can be faster than; `nao_ray, graph`: on a GPU, as the trainer's graphs replay it. The variants take turns, each in an
own process; memory by segment length and the first step of genotypes that were never seen are measured beside.

Gradients are compared in float64, where they must agree to 1e-10, and in float32: there a number of 1e-9 may end on
either side of a ReLU's zero, so the plain one's own move is shown beside, when its input grows by 1e-7.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nao_ray import registry, rng
from nao_ray.bench._device import check_device, peak, timed
from nao_ray.bench._process import Worker, answer
from nao_ray.bench._result import BenchResult, machine
from nao_ray.bench.child import relative
from nao_ray.errors import ConfigError
from nao_ray.networks import recurrent, recurrent_fast
from nao_ray.networks.recurrent_network import ROLE
from nao_ray.spaces.base import Cell
from nao_ray.training.capture import WARM_UP, Capture

MODULE = "nao_ray.bench.rnn"
CELLS = {"NAO-RNN": "nao_rnn", "NAO-WS-RNN": "nao_rnn", "ENAS-RNN": "enas_rnn", "DARTS-RNN": "darts_rnn"}
"""Published cells and their spaces."""
SEGMENT = {"plain": recurrent.segment, "nao_ray": recurrent_fast.segment}
DTYPES = ("float32", "float64")
EQUAL = 1e-10
"""How far gradients may be apart in float64."""
KEEP, SCALE = 0.75, 0.04  # of hidden units; of weights, uniform


def run(
    cells: Sequence[str] = ("NAO-RNN", "ENAS-RNN", "DARTS-RNN"),
    rounds: int = 7,
    units: int = 300,
    batch: int = 64,
    steps: int = 35,
    threads: int = 2,
    dtype: str = "float32",
    device: str = "cpu",
    lengths: Sequence[int] = (9, 18, 35, 55),
    genotypes: int = 3,
) -> BenchResult:
    """Time both variants in turns and compare gradients.

    Args:
        cells: names between commas, of NAO-RNN, NAO-WS-RNN, ENAS-RNN and DARTS-RNN.
        rounds: timed steps per cell and variant, after one that is not timed (on a GPU five).
        units: H.
        batch: columns of text.
        steps: of a segment.
        threads: torch's threads.
        dtype: float32 or float64.
        device: cpu or cuda.
        lengths: of segments whose memory is measured, with the first of the cells; [] for none.
        genotypes: random ones whose first step is timed.

    Raises:
        ConfigError: there is no such cell, type or device.
    """
    _check(cells, dtype, device)
    size: dict[str, int | str] = {"units": units, "batch": batch, "steps": steps, "dtype": dtype, "device": device}
    names = ["plain", "nao_ray", "products", *(["nao_ray, graph"] if device == "cuda" else [])]
    workers = {name: Worker(MODULE, name, threads, size) for name in names}
    try:
        memory = {
            name: [workers[name].ask(f"memory {cells[0]} {length}") for length in sorted(lengths)] for name in SEGMENT
        }
        firsts = [workers["nao_ray"].ask(f"new {seed}") for seed in range(genotypes)]
        seconds = {cell: _turns(workers, cell, rounds, 5 if device == "cuda" else 1) for cell in cells}
    finally:
        for worker in workers.values():
            worker.close()
    differences = {cell: _differences(cell, units, min(batch, 8), steps) for cell in cells}
    data = {"seconds": seconds, "memory_bytes": memory, "first_seconds": firsts, "differences": differences}
    return BenchResult(
        name="rnn",
        columns=["forward and backward", *(f"{name}, tokens/s" for name in names), "times as fast", "in CPU seconds"],
        rows=[_row(cell, taken, batch * steps, names) for cell, taken in seconds.items()],
        notes=[
            f"{units} units, batch {batch}, {steps} steps, {dtype}, {device}; medians of n = {rounds} steps each in "
            f"turns, {threads} threads; times as fast: plain / nao_ray, single rounds "
            + ", ".join(_span(taken, cell) for cell, taken in seconds.items())
            + ".",
            *_memory_notes(memory, lengths, cells[0]),
            *([_firsts_note(firsts)] if firsts else []),
            _gradient_note(differences),
            machine(),
        ],
        data=data,
        wrong=[
            f"{cell}: gradients in float64 differ by {each['float64']:.1e}"
            for cell, each in differences.items()
            if not each["float64"] <= EQUAL
        ],
    )


def _check(cells: Sequence[str], dtype: str, device: str) -> None:
    unknown = [cell for cell in cells if cell not in CELLS]
    if unknown or not cells:
        raise ConfigError(f"bench rnn cells={unknown}: expected some of {', '.join(CELLS)}")
    if dtype not in DTYPES:
        raise ConfigError(f"bench rnn dtype={dtype}: expected {' or '.join(DTYPES)}")
    check_device("rnn", device)


def _turns(workers: dict[str, Worker], cell: str, rounds: int, warm_up: int) -> dict[str, list[dict[str, float]]]:
    """Wall and CPU seconds of steps, by variant."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for index in range(-warm_up, rounds):
        for name, worker in workers.items():
            step = worker.ask(f"step {cell}")
            taken[name] += [step] if index >= 0 else []
    return taken


def _ratios(taken: dict[str, list[dict[str, float]]], what: str) -> list[float]:
    return [plain[what] / mine[what] for plain, mine in zip(taken["plain"], taken["nao_ray"], strict=True)]


def _row(cell: str, taken: dict[str, list[dict[str, float]]], tokens: int, names: Sequence[str]) -> list[object]:
    speeds = [tokens / statistics.median(step["wall"] for step in taken[name]) for name in names]
    return [cell, *(round(speed) for speed in speeds), *(statistics.median(_ratios(taken, w)) for w in ("wall", "cpu"))]


def _span(taken: dict[str, list[dict[str, float]]], cell: str) -> str:
    ratios = _ratios(taken, "wall")
    return f"{min(ratios):.2f} to {max(ratios):.2f} ({cell})"


def _memory_notes(memory: dict[str, list[float]], lengths: Sequence[int], cell: str) -> list[str]:
    if not lengths:
        return []
    pairs = zip(sorted(lengths), *memory.values(), strict=True)
    text = ", ".join(f"{length} steps {plain / 1e6:.0f} / {mine / 1e6:.0f}" for length, plain, mine in pairs)
    return [f"Peak memory beside weights and inputs, MB, plain / nao_ray, {cell}: {text}."]


def _firsts_note(firsts: Sequence[dict[str, float]]) -> str:
    wall, cpu = (max(step[what] for step in firsts) for what in ("wall", "cpu"))
    return f"The first step of {len(firsts)} new genotypes: at most {wall:.2f} s, {cpu:.2f} CPU seconds."


def _gradient_note(differences: dict[str, dict[str, float]]) -> str:
    found = ", ".join(
        f"{cell} float64 {each['float64']:.1e}, float32 {each['float32']:.1e} where plain itself moves by "
        f"{each['moved']:.1e}"
        for cell, each in differences.items()
    )
    return f"Gradients, the tensor that differs most, norm of the difference / norm: {found}."


# -- cells and tensors ------------------------------------------------------------------------------------------


def cell_of(name: str) -> Cell:
    """A published cell."""
    space = registry.load("space", CELLS[name])()
    cell: Cell = space.lower(space.parse(name)).cell(ROLE)
    return cell


def random_cell(seed: int) -> Cell:
    """One of NAO's space."""
    space = registry.load("space", "nao_rnn")()
    cell: Cell = space.lower(space.sample(rng.child(seed, "bench rnn cell"))).cell(ROLE)
    return cell


def tensors(
    cell: Cell, units: int, batch: int, steps: int, dtype: str, device: str = "cpu"
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Inputs, state, W0 and the nodes' weights, which have gradients; the mask; the gradient of the output."""
    draw, kind = rng.torch_generator(0, "bench rnn"), getattr(torch, dtype)

    def uniform(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=kind).uniform_(-1, 1, generator=draw)

    weights = [SCALE * uniform(2 * units, 2 * units), *(SCALE * uniform(units, 2 * units) for _ in cell.nodes)]
    mask = torch.empty(batch, units, dtype=kind).bernoulli_(KEEP, generator=draw) / KEEP
    made = [uniform(steps, batch, units), uniform(batch, units), *weights, mask, uniform(steps, batch, units)]
    *given, mask, gradient = (tensor.to(device) for tensor in made)
    return [tensor.requires_grad_() for tensor in given], mask, gradient


def gradients(variant: str, cell: Cell, given: Sequence[Tensor], mask: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    """Forward and backward."""
    inputs, state, w0, *nodes = given
    return torch.autograd.grad(SEGMENT[variant](cell, w0, nodes, inputs, state, mask), given, gradient)


def difference(name: str, units: int, batch: int, steps: int, dtype: str, *, moved: bool = False) -> float:
    """Of the gradients, that of the tensor that differs most, relative; `moved`: of the plain one from itself."""
    cell = cell_of(name)
    given, mask, gradient = tensors(cell, units, batch, steps, dtype)
    plain = gradients("plain", cell, given, mask, gradient)
    if moved:
        given[0] = (given[0].detach() * (1 + 1e-7)).requires_grad_()
    mine = gradients("plain" if moved else "nao_ray", cell, given, mask, gradient)
    return max(relative([a], [b]) for a, b in zip(mine, plain, strict=True))


def _differences(name: str, units: int, batch: int, steps: int) -> dict[str, float]:
    found = {dtype: difference(name, units, batch, steps, dtype) for dtype in DTYPES}
    return {**found, "moved": difference(name, units, batch, steps, "float32", moved=True)}


def products(given: Sequence[Tensor]) -> None:
    """The products of a step alone, in the fewest and largest pieces that one order of computing them allows."""
    inputs, state, w0, *nodes = (tensor.detach() for tensor in given)
    steps, batch, units = inputs.shape
    rows, made = inputs.view(-1, units), inputs.new_empty(steps * batch, 2 * units)
    weights = [w0[units:], *nodes]
    torch.mm(rows, w0[:units], out=made)
    for t in range(steps):
        for weight in weights:
            torch.mm(state, weight, out=made[t * batch : (t + 1) * batch])
    for t in range(steps):
        for weight in weights:
            torch.mm(made[t * batch : (t + 1) * batch], weight.t())
    torch.mm(made, w0[:units].t())
    for _ in range(len(weights) + 1):
        torch.mm(rows.t(), made)


# -- one process per variant ------------------------------------------------------------------------------------


def stepper(variant: str, cell: Cell, **size: Any) -> Callable[[], object]:  # noqa: ANN401
    """A function that makes a step."""
    given, mask, gradient = tensors(cell, **size)
    if variant == "products":
        return partial(products, given)
    if variant != "nao_ray, graph":
        return partial(gradients, variant, cell, given, mask, gradient)
    capture = Capture(torch.device(size["device"]), execution="graph")
    captured = capture.of(lambda *_: gradients("nao_ray", cell, given, mask, gradient))
    for _ in range(WARM_UP + 1):
        captured(gradient)
    return partial(captured, gradient)


def replies(variant: str, size: dict[str, Any]) -> Callable[[str], Any]:
    """Answers ``step CELL`` and ``new SEED`` with seconds, and ``memory CELL STEPS``, lengths ascending, with bytes."""
    steppers: dict[str, Callable[[], object]] = {}
    base: list[float] = []

    def memory(cell: Cell, steps: int) -> float:
        if not base:  # libraries make their threads and workspaces
            stepper(variant, cell, **{**size, "batch": 1, "steps": 1})()
            base.append(peak(size["device"]))
        stepper(variant, cell, **{**size, "steps": steps})()
        rows, units = (steps + 1) * size["batch"], size["units"]
        numbers = 2 * rows * units + (4 + 2 * len(cell.nodes)) * units**2
        tensors_made: int = numbers * (4 if size["dtype"] == "float32" else 8)
        return peak(size["device"]) - base[0] - tensors_made

    def reply(question: str) -> Any:  # noqa: ANN401
        match question.split():
            case ["memory", name, steps]:
                return memory(cell_of(name), int(steps))
            case ["new", seed]:
                return timed(stepper(variant, random_cell(int(seed)), **size), size["device"])
            case [_, name]:
                if name not in steppers:
                    steppers.clear()
                    steppers[name] = stepper(variant, cell_of(name), **size)
                return timed(steppers[name], size["device"])
        raise ValueError(question)

    return reply


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    answer(replies(sys.argv[1], json.loads(sys.argv[3])))
