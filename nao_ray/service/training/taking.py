"""A finished training as what is exported: its network, and what a card tells of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nao_ray.addresses import split_query
from nao_ray.config import TrainConfig
from nao_ray.errors import PoolError
from nao_ray.export.taken import Taken
from nao_ray.pool import Finals
from nao_ray.service.training.about import About, finished, told_task
from nao_ray.service.training.train import trained_network
from nao_ray.skeletons.base import skeleton_of
from nao_ray.tasks.base import Task
from nao_ray.training import cost

if TYPE_CHECKING:
    from torch import Tensor


def taken_from(checkpoint: str, overrides: tuple[str, ...] = ()) -> Taken:
    """A finished training, by the path or URL of its checkpoint.

    Args:
        checkpoint: where it is.
        overrides: of the task's settings, ``task.path=...``.

    Raises:
        InputError: it is no checkpoint of a finished training, or an older one, whose task needs its training data.
    """
    about, tensors = finished(checkpoint)
    config = about.config.changed(overrides)
    task = told_task(config.make_task(), tensors, checkpoint)
    network = trained_network(config, task, tensors, checkpoint)
    return taken(about, config, task, network, tensors, _row_beside(checkpoint, about.name))


def taken(
    about: About,
    config: TrainConfig,
    task: Task[Any],
    network: Any,  # noqa: ANN401 - torch's, which is not imported to say so
    tensors: Mapping[str, Tensor],
    row: Mapping[str, Any] | None,
) -> Taken:
    """A finished training.

    Args:
        about: what its checkpoint says.
        config: that, where the task is now.
        task: of it.
        network: with its weights.
        tensors: of the checkpoint.
        row: of it in `final/`; None: it is not known.
    """
    space = config.make_space()
    genotype = space.parse(config.genotype)
    shapes = task.shapes
    return Taken(
        name=about.name,
        space=space,
        genotype=genotype,
        shapes=shapes,
        size=skeleton_of(space).sized(space.lower(genotype), shapes, config.size),
        network=network.cpu().eval(),
        is_trained=True,
        normaliser=_normaliser(tensors),
        recipe=config.recipe,
        centre=getattr(task, "centre", None),
        labels=getattr(task, "class_names", None),
        scores=_scores(about, task, row),
        facts=_facts(about, task, row),
    )


def _normaliser(tensors: Mapping[str, Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    names = ("normaliser.mean", "normaliser.std")
    if any(name not in tensors for name in names):
        return None
    mean, std = (tuple(tensors[name].tolist()) for name in names)
    return mean, std


_DATA = {"all": "trained on all but the test split", "train": "the validation split apart"}


def _scores(about: About, task: Task[Any], row: Mapping[str, Any] | None) -> dict[str, str]:
    metric, scores = task.metric, {}
    if row is not None:
        scores[metric.label.replace("validation", "test")] = metric.told(row).removeprefix(f"{metric.name} ")
    if about.valid_value is not None:
        scores[metric.label] = metric.text(about.valid_value)
    return scores


def _facts(about: About, task: Task[Any], row: Mapping[str, Any] | None) -> dict[str, str]:
    config, epochs = about.config, about.config.epochs
    how = f"recipe {config.recipe.name}, {epochs} epoch{'s' * (epochs > 1)}, seed {config.seed}"
    return {
        **({} if row is None else cost.told(row, task.shapes.example)),
        "task": f"{config.task.name}, {_DATA[config.data]}",
        "data": f"hash `{about.data_hash}`",
        "training": f"{how}; {about.wall_seconds:,.0f} s on {about.device}, begun {about.started_at:%Y-%m-%d}",
    }


def _row_beside(checkpoint: str, name: str) -> Mapping[str, Any] | None:
    """The row of a training, where its checkpoint is still where it was written."""
    path, query = split_query(checkpoint)
    folder = path.rpartition("/")[0]
    place = folder.removesuffix("weights").rstrip("/") or "."
    try:
        return Finals(place + query).row(name) if folder.endswith("weights") else None
    except PoolError:  # of another kind, or damaged: a card can do without
        return None
