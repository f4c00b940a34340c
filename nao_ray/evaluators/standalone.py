"""Trains the network of each proposal on its own, from fresh weights; the score is taken on the validation split.

NAO without weight sharing: Luo, Tian, Qin, Chen, Liu, NeurIPS 2018, arXiv 1808.07233. The defaults are the paper's
search setting: 25 epochs, and the size that the skeleton has for it. Imports without torch, so that a configuration is
checked in no time.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, SerializeAsAny, ValidationError

from nao_ray import rng
from nao_ray.config_text import complaint
from nao_ray.errors import ConfigError, DataError
from nao_ray.evaluators.base import Evaluator, EvaluatorConfig
from nao_ray.evaluators.parts.progress import Progress, pack, unpack
from nao_ray.limits import MEASURED, Limits
from nao_ray.metric import Metric
from nao_ray.sizes import Size, Sized
from nao_ray.skeletons.base import Skeleton, skeleton_of
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.tasks.base import Facts, Shapes, Task
from nao_ray.training.failures import preparing
from nao_ray.training.recipe import Recipe, usually
from nao_ray.trial import Fidelity, Measurement, Proposal

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nao_ray.training.objective import Objective

_log = logging.getLogger(__name__)


class StandaloneConfig(Sized, EvaluatorConfig):
    """Size of the children and how they are trained."""

    epochs: int = Field(default=25, ge=1)
    data_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the training split that children see; validation is always whole."""
    recipe: SerializeAsAny[Recipe] = Field(default_factory=lambda: Recipe())
    repeats: int = Field(default=1, ge=1)
    """Networks trained per proposal, each from its own weights; the score is the mean of theirs. Several
    short trainings rank small children better than a long one of the same cost if all reach one ceiling in the end."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """`auto`: the first CUDA device this process may use, else the CPU."""

    def under(self, settings: Mapping[str, Any]) -> Self:
        recipe = type(self.recipe)
        for name in settings:
            if name not in recipe.model_fields or name in _FIXED:
                known = [known for known in recipe.model_fields if known not in _FIXED]
                close = get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
                raise ConfigError(f"{name} is no setting of a recipe that a trial may have of its own; {hint}")
        try:
            changed = recipe.model_validate({**self.recipe.model_dump(), **settings})
        except ValidationError as error:
            raise complaint(error, recipe) from None
        return self.model_copy(update={"recipe": changed})


_FIXED = ("name", "score")
"""Settings of a recipe that all trials have alike: else their scores are no measure of the same."""


@lru_cache(maxsize=64)
def settings_of(skeleton: Skeleton[Any]) -> type[StandaloneConfig]:
    """Settings of the training of a skeleton's networks."""
    if skeleton.recipe == StandaloneConfig().recipe.name:
        return StandaloneConfig.of(skeleton.searched)
    return StandaloneConfig.of(skeleton.searched, recipe=usually(skeleton.recipe))


class Standalone(Evaluator[StandaloneConfig]):
    """Loads the task when the first proposal comes and keeps it on the device; the test split is never read.

    Raises:
        DataError: the task cannot be loaded.
    """

    Config: ClassVar[type[EvaluatorConfig]] = StandaloneConfig

    def __init__(self, space: SearchSpace[Any], task: Task[Any], config: StandaloneConfig) -> None:
        super().__init__(space, task, config)
        self._others: dict[tuple[float, str], Objective] = {}  # by share and recipe

    @classmethod
    def fidelity(cls, config: StandaloneConfig) -> Fidelity:
        return Fidelity(epochs=config.epochs, size=config.size.named, data_share=config.data_share)

    @classmethod
    def settings(cls, space: SearchSpace[Any]) -> type[StandaloneConfig]:
        return settings_of(skeleton_of(space))

    @classmethod
    def check(cls, space: SearchSpace[Any], shapes: Shapes | None, config: StandaloneConfig) -> None:
        skeleton = skeleton_of(space)
        if shapes is not None:
            skeleton.check(shapes, config.size, config.recipe)

    @classmethod
    def check_rungs(cls, config: StandaloneConfig, epochs: Sequence[int]) -> None:  # noqa: ARG003
        if config.repeats > 1:
            raise ConfigError(
                f"fidelity: evaluator.repeats is {config.repeats}, and a ladder pauses one training alone: set it to 1",
                "fidelity",
            )

    @classmethod
    def check_limits(cls, config: StandaloneConfig, limits: Limits) -> None:  # noqa: ARG003
        limits.check_names(("num_params", "macs", MEASURED), "a training")

    @classmethod
    def recorded(cls, config: StandaloneConfig) -> tuple[str, ...]:  # noqa: ARG003
        return ("num_params", "macs", MEASURED)

    def figures(self, genotype: Genotype) -> Mapping[str, float]:
        known = {*self.limits.known, *self.aims} - {MEASURED}
        if not known:
            return {}
        counts = self.skeleton.count(self.space.lower(genotype), self.task.shapes, self.config.size)
        return {name: getattr(counts, name) for name in known}

    def facts(self) -> Facts | None:
        """As the base class.

        Raises:
            DataError: they make no step of training, too.
        """
        facts = self.task.facts()
        self.check_facts(facts, self.config, "evaluator.recipe")
        return facts

    def check_facts(self, facts: Facts, config: StandaloneConfig, where: str) -> None:
        self.task.check_step(facts, config.recipe, where, config.data_share)

    def prepare(self) -> None:
        import nao_ray.networks.counting
        import nao_ray.networks.stacks
        import nao_ray.training.fit  # noqa: F401

        self.objective(self.config.data_share)

    def evaluate(self, proposal: Proposal) -> Measurement:
        self.limits.refuse(self.figures(proposal.genotype))
        progress = self._progress(proposal)
        latency = self._latency(proposal)
        if progress.is_new:  # what has begun was within
            self.limits.refuse(latency)
        measured = list(progress.measured)
        for index in range(len(measured), self.config.repeats):
            measured.append(self._train(proposal, rng.child_seed(proposal.seed, "repeat", index), measured, progress))
            progress = Progress()
            if not math.isfinite(measured[-1].score):
                break
        return replace(_mean(measured, self.task.metric), **self._counts(proposal), **latency)

    def _latency(self, proposal: Proposal) -> dict[str, Any]:
        """Measured here, where it would be trained, where it is limited or aimed at; milliseconds of a batch of one."""
        if not self.times:
            return {}
        from nao_ray.training.cost import latency_of_one

        network = self._network(proposal, proposal.seed, self._recipe(proposal))
        return {MEASURED: latency_of_one(network, self.skeleton.example(self.task.shapes), self.device)}

    def _counts(self, proposal: Proposal) -> dict[str, Any]:
        """The fields of a measurement that say what network it is."""
        graph = self.space.lower(proposal.genotype)
        counts = self.skeleton.count(graph, self.task.shapes, self._size(proposal))
        shapes = tuple(self.task.shapes.recorded.items())
        return {"num_params": counts.num_params, "macs": counts.macs, "shapes": shapes}

    def _progress(self, proposal: Proposal) -> Progress:
        """What an earlier worker has done of this proposal, or of the rung below."""
        own = self._kept(proposal)
        if not own.is_new or proposal.parent_trial_id is None:
            return own
        fidelity = replace(proposal.fidelity, epochs=self.epochs_before(proposal))
        below = self._kept(replace(proposal, trial_id=proposal.parent_trial_id, fidelity=fidelity))
        if below.is_new:
            _log.info("trial %d trains from the start: nothing is kept of the rung below", proposal.trial_id)
        return replace(below, wall_seconds=0.0)  # a rung's time is its own

    def _kept(self, proposal: Proposal) -> Progress:
        kept = None if self.keeper is None else self.keeper.kept(proposal)
        if kept is None:
            return Progress()
        try:
            return unpack(kept, proposal, self.device.type)
        except DataError as error:
            _log.warning("trial %d begins anew, for what was kept of it cannot be used: %s", proposal.trial_id, error)
            return Progress()

    def _train(
        self, proposal: Proposal, seed: int, measured: Sequence[Measurement] = (), progress: Progress | None = None
    ) -> Measurement:
        """One of its trainings, after those measured."""
        from nao_ray.training.fit import Epoch, fit, scored

        start, before = (None, 0.0) if progress is None else (progress.start, progress.wall_seconds)
        began = time.monotonic()

        def after(epoch: Epoch) -> bool:
            if epoch.done == whole:
                return False
            seconds, pauses = before + time.monotonic() - began, epoch.done == epochs
            if self.keeper is not None and (pauses or self.keeper.is_due()):
                self.keeper.keep(proposal, pack(proposal, self.device.type, measured, epoch, seconds))
            if self.watcher is not None and not pauses:
                self.watcher(Measurement(**scored(epoch.history, objective), **counts, wall_seconds=seconds))
            return pauses

        counts = {} if self.watcher is None else self._counts(proposal)
        asked = proposal.fidelity
        share = self.config.data_share if asked.data_share is None else asked.data_share
        epochs = self.config.epochs if asked.epochs is None else asked.epochs
        whole = max(epochs, *self.rungs) if self.rungs else epochs  # which the schedule is of, on every rung
        recipe = self._recipe(proposal)
        objective = self.objective(share, recipe)
        if start is not None and start.epochs_done == epochs:  # it paused, and its worker was lost before it could tell
            return Measurement(**scored(start.history, objective), wall_seconds=before)
        network = self._network(proposal, seed, recipe)
        trained = fit(network, objective, epochs=whole, seed=seed, start=start, listener=after)
        return replace(trained, wall_seconds=before + (trained.wall_seconds or 0.0))

    def _recipe(self, proposal: Proposal) -> Recipe:
        return self.config.under(json.loads(proposal.settings or "{}")).recipe

    def _network(self, proposal: Proposal, seed: int, recipe: Recipe) -> nn.Module:
        graph = self.space.lower(proposal.genotype)
        with rng.torch_seeded(seed, "weights"):
            return self.skeleton.build(graph, self.task.shapes, self._size(proposal), recipe)

    def _size(self, proposal: Proposal) -> Size:
        return self.config.size.changed(dict(proposal.fidelity.size))

    def objective(self, share: float = 1.0, recipe: Recipe | None = None) -> Objective:
        """The task on the device, which is moved there once; of the training split a share.

        Args:
            share: in (0, 1].
            recipe: None: the config's.
        """
        recipe = recipe or self.config.recipe
        if share == 1 and recipe == self.config.recipe:
            return self._whole
        named = share, recipe.model_dump_json()
        if named not in self._others:
            self._others = {named: self._whole.under(recipe, share=share)}  # one at a time
        return self._others[named]

    @cached_property
    def _whole(self) -> Objective:
        with preparing():
            return self.task.objective(self.device, self.config.recipe)

    @property
    def uses_gpu(self) -> bool:
        return self.config.device == "auto" or self.config.device.startswith("cuda")

    @property
    def needs_gpu(self) -> bool:
        return self.config.device.startswith("cuda")

    @cached_property
    def device(self) -> torch.device:
        """What `auto` is here."""
        from nao_ray.training.devices import pick_device

        return pick_device(self.config.device)


def _mean(parts: list[Measurement], metric: Metric) -> Measurement:
    """Of the trainings of one proposal: mean scores, added times, the largest memory; NaN if one is."""

    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values)

    def given(name: str) -> list[float]:
        return [value for part in parts if (value := getattr(part, name)) is not None]

    epochs = zip(*(part.curve or () for part in parts), strict=False)  # a training that failed has a shorter curve
    return replace(
        parts[-1],
        **metric.measured(mean(given(metric.column))),
        valid_loss=mean(given("valid_loss")),
        curve=tuple(mean(list(values)) for values in epochs),
        wall_seconds=math.fsum(given("wall_seconds")),
        device_seconds=math.fsum(given("device_seconds")),
        peak_memory_bytes=max((part.peak_memory_bytes for part in parts if part.peak_memory_bytes), default=None),
    )
