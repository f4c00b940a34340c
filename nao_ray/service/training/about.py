"""The name of a full training, and what its checkpoint says of itself: JSON in the header of a safetensors file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
)

from nao_ray.addresses import split_query
from nao_ray.config import TrainConfig
from nao_ray.errors import ConfigError, DataError
from nao_ray.metric import DEFAULT
from nao_ray.pool import read_file
from nao_ray.tasks.base import Task
from nao_ray.training.published import FULL_TRAININGS

if TYPE_CHECKING:
    from torch import Tensor

_IDENTITY = ("genotype", "space", "recipe", "epochs", "data", "seed")
"""What a training is, besides its size, task and data; the rest (places, device, how often it is kept) may differ on
resume."""

_ONCE_SIZES = ("cells_per_stage", "channels")
"""Sizes that all trainings once had: those of their recipe are in a training's name whatever its networks."""

# fmt: off
_ONCE_RECIPE = frozenset({
    "name", "batch", "momentum", "nesterov", "weight_decay", "clip_norm", "precision", "lr", "lr_end", "cosine_epochs",
    "restart_factor", "warmup_epochs", "auxiliary_weight", "drop_path_keep", "dropout", "label_smoothing",
    "crop_padding", "flip", "cutout", "score",
})
# fmt: on
"""Settings of a recipe when trainings were first named; a younger one is in a name where it differs from its
default."""


def _config(recorded: TrainConfig | Mapping[str, Any]) -> TrainConfig:
    if isinstance(recorded, TrainConfig):
        return recorded
    if not isinstance(recorded, Mapping) or "space" not in recorded:
        raise ValueError("it names no space")
    return TrainConfig.recorded(recorded)


class About(BaseModel):
    """What a checkpoint says of itself: JSON in the header of its safetensors file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[^\x00-\x1f\x7f]+$")
    """In a line: it begins cards and source."""
    config: Annotated[SerializeAsAny[TrainConfig], BeforeValidator(_config)]
    data_hash: str
    device: str
    epochs_done: int = Field(ge=1)
    train_loss: float
    """Mean of the last epoch, in nats."""
    valid_value: float | None = Field(validation_alias=AliasChoices("valid_value", DEFAULT.column))
    """After the last epoch, in the metric's unit, which of old was always the default; None where nothing validates."""
    valid_loss: float | None
    curve: tuple[float, ...]
    """The validation metric after each epoch."""
    wall_seconds: float
    started_at: AwareDatetime


def finished(checkpoint: str) -> tuple[About, dict[str, Tensor]]:
    """What the checkpoint of a finished training says of itself, and its tensors.

    Raises:
        InputError: the file is no such checkpoint, or not there.
    """
    path, query = split_query(checkpoint)
    folder, _, file = path.rpartition("/")
    try:
        data = read_file(folder + query if folder else "/" if path.startswith("/") else ".", file)
    except OSError as error:
        raise DataError(f"cannot read checkpoint {checkpoint}: {' '.join(str(error).split())}") from None
    about, tensors = unpack(data, checkpoint)
    if about.epochs_done < about.config.epochs:
        done = f"{about.epochs_done} of {about.config.epochs} epochs"
        raise DataError(f"{checkpoint}: the training stands at {done}; its own train command ends it first")
    return about, tensors


def told_task(task: Task[Any], tensors: Mapping[str, Tensor], where: str) -> Task[Any]:
    """The task of a training, by what its checkpoint keeps of its training data; as it is where that is nothing.

    Raises:
        DataError: what it keeps is of another task, or damaged; `where` begins the message.
    """
    from nao_ray.training.checkpoint import legend_of

    try:
        legend = legend_of(tensors)
        return task.by(legend) if legend else task
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def digest(config: TrainConfig, data_hash: str) -> str:
    """Eight digits that tell trainings apart: of architecture, recipe, sizes, task, seed and data."""
    settings = config.make_task().config
    task = {"name": config.task.name, **settings.model_dump(mode="json", exclude={*settings.places, *settings.hashed})}
    of_recipe = FULL_TRAININGS.get(config.recipe.name, {}).get("size", {})
    sizes = {**{name: of_recipe.get(name) for name in _ONCE_SIZES}, **config.size.model_dump()}
    what = config.model_dump(mode="json", include=set(_IDENTITY)) | sizes | {"task": task, "data_hash": data_hash}
    if config.workers == "1":
        what["recipe"].pop("per_worker")  # nothing differs by it
    else:
        what["workers"] = config.workers
    for name in what["recipe"].keys() - _ONCE_RECIPE:
        if what["recipe"][name] == type(config.recipe).model_fields[name].default:
            del what["recipe"][name]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]


def unpack(data: bytes, where: str) -> tuple[About, dict[str, Tensor]]:
    """What a checkpoint says of itself, and its tensors; `where` begins messages.

    Raises:
        DataError: it is none.
    """
    from nao_ray.training import checkpoint

    try:
        tensors = checkpoint.unpack(data)
    except DataError as error:
        other = where.endswith((".pt", ".pth"))
        hint = "; weights of another program are read with --as" if other else "; it was cut off, or is no checkpoint"
        raise DataError(f"{where}: {error}{hint}") from None
    return about_of(data, where), tensors


def about_of(header: bytes, where: str) -> About:
    """What a checkpoint, or its header, says of itself; `where` begins messages.

    Raises:
        DataError: it is no checkpoint of a full training.
    """
    from nao_ray.training.checkpoint import read_about

    text = read_about(header)
    if text is None:
        raise DataError(f"{where} is not a checkpoint of nao-ray train: its header does not say of what")
    try:
        return About.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        what = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    except ConfigError as error:
        what = str(error)
    raise DataError(f"{where} is not a checkpoint of this nao-ray: {what}")
