"""What is written of a training that has ended: its row, and a card and a picture beside its checkpoint."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from torch import Tensor, nn

from nao_ray.config import TrainConfig
from nao_ray.export.card import card, picture
from nao_ray.pool import Finals, checkpoint_file, size_columns
from nao_ray.service.training.about import About
from nao_ray.service.training.taking import taken
from nao_ray.skeletons.base import skeleton_of
from nao_ray.tasks.base import Task
from nao_ray.training import cost
from nao_ray.training.objective import Scores

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """A training that has ended, and what was measured of it."""

    about: About
    config: TrainConfig
    """That of `about`, where the task is now."""
    task: Task[Any]
    network: nn.Module
    """With its weights, on its device."""
    tensors: Mapping[str, Tensor]
    """Of its checkpoint."""
    scores: Scores
    """Of the test split."""
    peak_memory_bytes: int | None
    """As `Measurement.peak_memory_bytes`; None: it was not trained here."""
    trial_id: int | None
    """The trial of the pool that proposed it."""


def write(ended: Ended, finals: Finals) -> dict[str, Any]:
    """Measure what it costs, and write card, picture and row; returns the row that is recorded.

    Only the row has to be: what it costs, and the card, are done without where anything is in their way.

    Raises:
        PoolError: the row cannot be written.
    """
    row = {**_row(ended), **_latency(ended)}
    try:
        _write_card(ended, finals, row)
    except Exception as error:  # hours of training are not to end in a card
        _log.warning("%s has no card: %s", ended.about.name, " ".join(str(error).split()) or type(error).__name__)
    return finals.add(row)


def _latency(ended: Ended) -> dict[str, Any]:
    device = next(ended.network.parameters()).device
    skeleton = skeleton_of(ended.config.make_space())
    try:
        return cost.latency(ended.network, skeleton.example(ended.task.shapes), device).columns
    except Exception as error:  # a network that evaluates other batches was trained, and this one is not to end it
        _log.warning("%s: its latency could not be measured: %s", ended.about.name, " ".join(str(error).split()))
        return {}


def _write_card(ended: Ended, finals: Finals, row: Mapping[str, Any]) -> None:
    made = taken(ended.about, ended.config, ended.task, ended.network, ended.tensors, row)
    name = ended.about.name
    file = checkpoint_file(name).rpartition("/")[2]
    finals.write_beside(name, ".svg", picture(made).encode())
    finals.write_beside(name, ".md", card(made, f"{file}.svg", [_LOADING.format(file=file)]).encode())


_LOADING = """```console
nao-ray evaluate {file}
nao-ray export {file} --format source --out network.py
```"""


def _row(ended: Ended) -> dict[str, Any]:
    about, config, task = ended.about, ended.about.config, ended.task
    space = config.make_space()
    skeleton, graph = skeleton_of(space), space.lower(space.parse(config.genotype))
    size = skeleton.sized(graph, task.shapes, config.size)
    counts = skeleton.count(graph, task.shapes, size)
    return {
        "name": about.name,
        "trial_id": ended.trial_id,
        "space": config.space.name,
        "genotype": config.genotype,
        "task": config.task.name,
        "recipe": config.recipe.name,
        "epochs": config.epochs,
        **size_columns(size.named),
        "data": config.data,
        "seed": config.seed,
        **task.metric.tested(ended.scores.value, ended.scores.loss, ended.scores.top5),
        task.metric.column: about.valid_value,
        "valid_loss": about.valid_loss,
        "train_loss": about.train_loss,
        "curve": list(about.curve) if about.curve else None,
        "num_params": counts.num_params,
        "macs": counts.macs,
        "wall_seconds": about.wall_seconds,
        "device": about.device,
        "node": platform.node(),
        "checkpoint": checkpoint_file(about.name),
        "started_at": about.started_at,
        "finished_at": datetime.now(UTC),
        "peak_memory_bytes": ended.peak_memory_bytes,
    }
