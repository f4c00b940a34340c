"""Pictures that do not fit in memory: images per second of the loader alone beside those of a network's step.

The pictures are made up, JPEGs of 500x375 in folders, Parquet and tar shards, or `path`, an ImageNet of yours. The
loader does what a training of ImageNet's recipes has it do: it reads each in random order, decodes it, cuts a random
crop and resizes that to 224x224, in none (0, the process that trains), one or more processes. The step is that of
DARTS_V2 at the published size: mirror, colours, forward, backward, SGD; on images that are held, and on those of the
loader.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from nao_ray import build_network, rng
from nao_ray.bench import _imagenet
from nao_ray.bench._device import check_device, wait
from nao_ray.bench._result import BenchResult, machine
from nao_ray.tasks.imagenet import ImageNet, ImageNetConfig
from nao_ray.tasks.images.base import Images
from nao_ray.training.images import ImageObjective
from nao_ray.training.recipe import ImageRecipe
from nao_ray.training.streams import Continuing
from nao_ray.training.trainer import Trainer

_SIZE = (500, 375)  # pixels, the usual one of ImageNet
_SIDE = 224
_CLASSES = 20
_GROUP = 100  # pictures, as data hubs write them
COLUMNS = ["what", "processes", "images/s", "least", "most", "CPU ms an image"]


def run(
    pictures: int = 1000,
    repeats: int = 3,
    loaders: Sequence[int] = (0, 1, 2),
    batch: int = 32,
    steps: int = 3,
    layers: int = 14,
    channels: int = 48,
    threads: int = 2,
    device: str = "cpu",
    path: str | None = None,
) -> BenchResult:
    """Measure each `repeats` times, one after the other.

    Args:
        pictures: that are made up, or of the path are read, for each measurement.
        repeats: of each measurement, of which the median is told.
        loaders: numbers of processes that decode.
        batch: images per step.
        steps: of the network, after one that is not timed (on a GPU five).
        layers: of DARTS_V2.
        channels: of DARTS_V2.
        threads: torch's threads.
        device: cpu or cuda.
        path: of an ImageNet in folders, Parquet or shards; null: made up.

    Raises:
        ConfigError: there is no such device.
    """
    check_device("loader", device)
    torch.set_num_threads(threads)
    place, rows = torch.device(device), []
    recipe = ImageRecipe.model_validate({"name": "darts_imagenet", "batch": batch})

    def add(what: str, processes: object, measure: Callable[[], tuple[float, float]]) -> None:
        rates, costs = zip(*(measure() for _ in range(repeats)), strict=True)
        alone = processes in (0, "-")  # of other processes nothing is known
        cost = statistics.median(costs) * 1000 if alone and device == "cpu" else "-"
        rows.append([what, processes, statistics.median(rates), min(rates), max(rates), cost])

    with tempfile.TemporaryDirectory() as folder:
        for form, where in _forms(path, Path(folder), pictures):
            for count in loaders:
                fed = _objective(where, count, place, recipe)
                add(f"loader, {form}", count, partial(_loaded, fed, pictures))
        network = build_network(
            "DARTS_V2", space="darts_cnn", network="imagenet", layers=layers, channels=channels, auxiliary=True
        )
        held = _held(batch, place, recipe)
        for what, processes, objective in (("step, images held", "-", held), (f"step, {form}", loaders[-1], fed)):
            with Trainer(network, objective, epochs=10**6, streams=Continuing(0, place)) as trainer:
                for _ in range(1 if device == "cpu" else 5):
                    trainer.step()
                add(what, processes, partial(_stepped, trainer, steps, batch, place))
    notes = [
        f"n = {repeats}, median; JPEGs of {'your own' if path else '500x375'}, {pictures} a measurement, made 224x224; "
        f"DARTS_V2 of {layers} cells and {channels} channels, batch {batch}, {threads} threads, {device}.",
        machine(),
    ]
    return BenchResult(name="loader", columns=COLUMNS, rows=rows, notes=notes)


def _forms(path: str | None, folder: Path, pictures: int) -> Iterator[tuple[str, str]]:
    """What is read, and where it is."""
    if path is not None:
        yield path, path
        return
    each = -(-pictures // _CLASSES)
    for form, make in _imagenet.FORMS.items():
        more = {"rows": _GROUP} if form == "parquet" else {}
        yield form, str(make(folder / form, _CLASSES, -(-each * 10 // 9), 1, _SIZE, **more))  # a tenth validates


def _objective(where: str, loaders: int, device: torch.device, recipe: ImageRecipe) -> ImageObjective:
    task = ImageNet(ImageNetConfig(path=where, loaders=loaders))
    objective = task.objective(device, recipe)
    assert isinstance(objective, ImageObjective)
    return objective


def _held(batch: int, device: torch.device, recipe: ImageRecipe) -> ImageObjective:
    """Noise that the device holds, cut already."""
    draws = rng.child(0, "bench loader")
    noise = Images(
        draws.integers(0, 256, (2 * batch, 3, _SIDE, _SIDE), dtype=np.uint8), draws.integers(0, _CLASSES, 2 * batch)
    )
    return ImageObjective.of(noise, noise, device, recipe.model_copy(update={"crop_area": None}))


def _loaded(objective: ImageObjective, most: int) -> tuple[float, float]:
    """Images per second after the first batch, with which processes have begun; seconds of this process an image."""
    batches = objective.batches(rng.torch_generator(0, "order"))
    next(batches)
    began, busy, count = time.perf_counter(), time.process_time(), 0
    for images, _ in islice(batches, -(-most // objective.recipe.batch)):
        count += len(images)
    wait(objective.device.type)
    return count / (time.perf_counter() - began), (time.process_time() - busy) / count


def _stepped(trainer: Trainer, steps: int, batch: int, device: torch.device) -> tuple[float, float]:
    began, busy, count = time.perf_counter(), time.process_time(), steps * batch
    for _ in range(steps):
        trainer.step()
    wait(device.type)
    return count / (time.perf_counter() - began), (time.process_time() - busy) / count
