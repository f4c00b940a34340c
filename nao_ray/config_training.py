"""The configuration of a full training of one architecture."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from nao_ray.addresses import masked
from nao_ray.config_components import Component, check_component, make_space, make_task
from nao_ray.config_text import blamed, complaint, override
from nao_ray.config_workers import Crew, crew_text
from nao_ray.errors import ConfigError
from nao_ray.sizes import Sized
from nao_ray.skeletons.base import skeleton_of
from nao_ray.spaces.base import SearchSpace
from nao_ray.tasks.base import Task
from nao_ray.training.recipe import Recipe, full_training
from nao_ray.training.schedule import Averaging


class TrainConfig(Sized):
    """A full training of one architecture; sizes that are null are the network's published ones."""

    space: Component
    genotype: str
    """Its text in the space's own notation."""
    task: Component
    recipe: SerializeAsAny[Recipe]
    epochs: int = Field(ge=1)
    data: Literal["all", "train"] = "all"
    """`all`: every example that a search may see trains, and nothing validates; `train`: those that train in a search,
    the others validate after each epoch."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Names weights, order, augmentation and dropout."""
    workers: Annotated[str, BeforeValidator(crew_text)] = "1"
    """Processes that train together, or a range of them, `2..4`: as many as there is room for. Each takes its part of
    every batch, so that other draws are made and batch norms see less, but for `recipe.sync_batch_norm`: another
    number of them is another training."""
    checkpoint_every: int = Field(default=1, ge=1)
    """Epochs after which the state is kept."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for kind, component in (("space", self.space), ("task", self.task)):
            check_component(kind, component, self.space)
        skeleton, shapes = skeleton_of(self.make_space()), self.make_task().outline
        if shapes is not None:
            skeleton.check(shapes, self.size, self.recipe)
        least = self.recipe.batch if self.recipe.per_worker else self.recipe.batch // self.crew.most
        if least < 2:
            raise ConfigError(
                f"workers: recipe.batch is {self.recipe.batch}, and each of {self.crew.most} takes 2 examples at least"
            )
        if self.recipe.score != "last":
            raise ConfigError("recipe.score must be last: a full training ends with its last epoch, no epoch is chosen")
        if isinstance(self.recipe, Averaging) and self.recipe.averaging == "nonmonotone" and self.data == "all":
            raise ConfigError(
                "data must be train: with recipe.averaging nonmonotone the mean of the weights begins by validation"
            )
        return self

    @classmethod
    def make(cls, recipe: str, what: Mapping[str, Any], overrides: tuple[str, ...] = ()) -> TrainConfig:
        """A full training by the name of its recipe.

        Args:
            recipe: one of `FULL_TRAININGS`, or a file of settings.
            what: space, genotype and task.
            overrides: ``key=value`` or ``section.key=value``; values are YAML.

        Raises:
            ConfigError: no such recipe, an unknown key, a wrong type or an impossible value; says where.
        """
        sizes = skeleton_of(make_space(what["space"])).sizes
        data = copy.deepcopy({**what, **full_training(recipe, sizes.model_fields)})  # overrides reach into it
        for text in overrides:
            key = text.partition("=")[0].strip()
            if key.partition(".")[0] in ("genotype", "space") or key in ("task", "task.name"):
                raise ConfigError(f"--set {text}: what is trained is given by the argument, --space and --task")
            override(data, text)
        if "task" not in data:
            raise ConfigError("task is missing: give --task, with its settings as --set task.key=value")
        return cls.of(sizes())._made(data, overrides)

    @classmethod
    def recorded(cls, data: Mapping[str, Any]) -> TrainConfig:
        """That of a checkpoint, which may be older than its skeleton's sizes.

        Raises:
            ConfigError: it is not valid here.
        """
        skeleton = skeleton_of(make_space(data["space"]))
        known = {name: value for name, value in data.items() if name not in skeleton.former_sizes}
        return cls.of(skeleton.sizes())._made(known, ())

    @classmethod
    def _made(cls, data: dict[str, Any], overrides: tuple[str, ...]) -> TrainConfig:
        try:
            return cls(**data)
        except ValidationError as error:
            wrong = complaint(error, cls, former=skeleton_of(make_space(data["space"])).former_sizes)
        except ConfigError as error:
            wrong = error
        text = blamed(wrong, overrides)
        raise wrong if text is None else ConfigError(f"--set {masked(text)}: {wrong}", wrong.key) from None

    def changed(self, overrides: tuple[str, ...]) -> TrainConfig:
        """With some settings of the task, or the device, set anew.

        Raises:
            ConfigError: an override is of something else, or not valid.
        """
        data = self.model_dump(mode="json")
        for text in overrides:
            key = text.partition("=")[0].strip()
            if key != "device" and not key.startswith("task."):
                raise ConfigError(f"--set {text}: of a checkpoint, only task.* and device may be set anew")
            override(data, text)
        return self._made(data, overrides)

    @property
    def crew(self) -> Crew:
        """How many train together."""
        return Crew.of(self.workers)

    def make_space(self) -> SearchSpace[Any]:
        """The search space."""
        return make_space(self.space)

    def make_task(self) -> Task[Any]:
        """The task; loads no data."""
        return make_task(self.task)
