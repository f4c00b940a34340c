"""How many children of the published search a GPU trains in an hour, by batch and by how their steps are run.

NAONet-B, and a random network of nao_cnn, of N = 3, F = 32 on 32x32 images with the auxiliary head: forward, both
losses, backward, clip and SGD, the augmentation in it. A child is 25 epochs of 45,000 images and as many evaluations of
5,000, computed from the parts that are measured: a step, an evaluated image, and the time from nothing to a step at
full speed. `plain` is eager PyTorch, contiguous, in float32. Then several processes beside each other, a child of
the first network each, in turns on the GPU or under a NVIDIA MPS daemon that is started for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from nao_ray.bench._device import check_device
from nao_ray.bench._device_step import CHILD_EPOCHS, CHILD_IMAGES, MODULE, VARIANTS, seconds_of_child
from nao_ray.bench._process import Worker
from nao_ray.bench._result import BenchResult, machine, show_row
from nao_ray.bench.child import CELLS
from nao_ray.errors import ConfigError, RunError
from nao_ray.service.fleet.mps import Mps, MpsUnusableError

_COLUMNS = ["network", "batch", "step", "processes", "ms a step", "images/s", "times plain", "children per GPU-hour"]
_SEARCH = 1000  # children of the published search


def run(
    networks: Sequence[str] = tuple(CELLS),
    batches: Sequence[int] = (64, 128, 256),
    variants: Sequence[str] = VARIANTS,
    processes: Sequence[int] = (2, 3),
    blocks: int = 3,
    steps: int = 20,
    seconds: float = 4.0,
    patience: float = 60.0,
    mps: bool = True,
    cells_per_stage: int = 3,
    channels: int = 32,
    device: str = "cuda",
) -> BenchResult:
    """Measure each variant alone, then the fastest in several processes.

    Args:
        networks: of NAONet-B and random, one of nao_cnn.
        batches: images per step.
        variants: how steps are run.
        processes: beside each other, each with a child of its own, the first of the networks.
        blocks: of steps that are timed, of which the median counts.
        steps: of a block.
        seconds: that processes beside each other train.
        patience: seconds after which a process that does not answer is given up.
        mps: processes beside each other under MPS, too.
        cells_per_stage: N.
        channels: F.
        device: cuda; cpu only to try the measurement itself.

    Raises:
        ConfigError: there is no such network or device.
    """
    check_device("gpu", device)
    if not networks or not set(networks) <= set(CELLS):
        raise ConfigError(f"bench gpu networks={list(networks)}: expected some of {', '.join(CELLS)}")
    size = {"cells_per_stage": cells_per_stage, "channels": channels, "steps": steps, "cpu": int(device == "cpu")}
    bench = _Bench(size, blocks, seconds, patience)
    for network, batch in product(networks, batches):
        bench.alone(network, batch, variants)
    why = _under_mps(bench, networks[0], batches, processes) if mps else "not asked for"
    for batch, count in product(batches, processes):
        bench.beside(networks[0], batch, count, "in turns", {})
    best = max((row for row in bench.rows if row[0] == networks[0]), key=lambda row: row[-1], default=None)
    notes = [
        f"N={cells_per_stage}, F={channels}; median of {blocks} blocks of {steps} steps, beside each other "
        f"{seconds:g} s; a child: {CHILD_EPOCHS} epochs of {CHILD_IMAGES:,} images, computed.",
        *([f"{_SEARCH:,} children like {networks[0]}: {_SEARCH / best[-1]:.0f} GPU-hours at best."] if best else []),
        *([] if why is None else [f"MPS: {why}."]),
        *bench.problems,
        machine(),
    ]
    return BenchResult(name="gpu", columns=_COLUMNS, rows=bench.rows, notes=notes, data={"measured": bench.measured})


def _under_mps(bench: _Bench, network: str, batches: Sequence[int], processes: Sequence[int]) -> str | None:
    """Why there is none."""
    try:
        daemon = Mps()
    except MpsUnusableError as error:
        return str(error)
    try:
        for batch, count in product(batches, processes):
            bench.beside(network, batch, count, "MPS", daemon.environ)
    finally:
        daemon.close()
    return None


class _Bench:
    def __init__(self, size: Mapping[str, int | str], blocks: int, seconds: float, patience: float) -> None:
        self._size, self._blocks, self._seconds, self._patience = size, blocks, seconds, patience
        self.rows: list[list[Any]] = []
        self.measured: dict[str, Any] = {}
        self.problems: list[str] = []
        self._best: dict[tuple[str, int], tuple[str, float, float]] = {}
        """By network and batch: variant, seconds of a child, of its steps."""

    def alone(self, network: str, batch: int, variants: Sequence[str]) -> None:
        """Every variant in one process, one after the other."""
        worker = Worker(MODULE, "alone", 1, {**self._size, "cell": network, "batch": batch})
        plain: float | None = None
        try:
            for variant in variants:
                found = worker.ask(f"measure {self._blocks} {variant}", self._patience)
                self.measured[f"{network} {batch} {variant}"] = found
                plain = found["milliseconds"] if variant == "plain" else plain
                seconds, step = seconds_of_child(found, batch), found["milliseconds"] / 1e3
                ratio = None if plain is None else plain / found["milliseconds"]
                name = variant if "graph" not in variant or found["execution"] == "graph" else f"{variant} (eager)"
                self._add([network, batch, name, 1, found["milliseconds"], batch / step, ratio, 3600 / seconds])
                best = self._best.get((network, batch))
                if best is None or seconds < best[1]:
                    self._best[network, batch] = (variant, seconds, CHILD_EPOCHS * CHILD_IMAGES / batch * step)
        except RunError as error:
            self.problems.append(f"{network}, batch {batch}: {error}")
        finally:
            worker.close()

    def beside(self, network: str, batch: int, count: int, how: str, environ: Mapping[str, str]) -> None:
        """Some processes of the fastest variant beside each other."""
        if (network, batch) not in self._best:
            return
        variant, alone, of_steps = self._best[network, batch]
        size = {**self._size, "cell": network, "batch": batch}
        workers = [Worker(MODULE, variant, 1, size, environ) for _ in range(count)]
        try:
            for worker in workers:
                worker.send("ready")
            for worker in workers:
                worker.receive(self._patience)
            for worker in workers:
                worker.send(f"run {self._seconds}")
            rates = [worker.receive(self._patience) for worker in workers]
        except RunError as error:
            self.problems.append(f"{count} processes, batch {batch}, {how}: {error}")
            for worker in workers:
                worker.kill()
        else:
            self.measured[f"{network} {batch} {variant} x{count} {how}"] = rates
            faster = sum(rates) * of_steps / (CHILD_EPOCHS * CHILD_IMAGES)  # than one alone; evaluations likewise
            row = [network, batch, f"{variant}, {how}", count, 1e3 * batch * count / sum(rates), sum(rates), None]
            self._add([*row, 3600 / alone * faster])
        finally:
            for worker in workers:
                worker.close()

    def _add(self, row: list[Any]) -> None:
        self.rows.append(row)
        show_row(_COLUMNS, row, first=len(self.rows) == 1)
