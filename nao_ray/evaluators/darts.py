"""Trains alphas and the weights of a relaxed supernet in turn; what they come to is derived after each phase.

Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055. The training split is cut
in two, one part for the weights and one for the alphas: in halves by the training's seed, of a text the end is the
alphas'. The validation split is left for the architectures, which are proposals without a version: they are trained
on their own.

Differs from the published code for texts, unless `alphas.split` says `valid`: there all of the training text trains the
weights, and the validation text trains the alphas. Cells found on it would score better there than random ones do.

A phase's kind is ``alphas/ORDER``, the order of the alphas' gradient: ``first``, ``second`` or ``exact``, or ``none``,
by which they stay and the weights alone are trained; with ``/eigenvalue`` the largest eigenvalue of the validation
Hessian in the alphas is measured at its end.

Imports without torch, so that a configuration is checked in no time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny, model_validator

from nao_ray import rng
from nao_ray.errors import ConfigError
from nao_ray.evaluators.base import EvaluatorConfig, Group, SharedEvaluator
from nao_ray.evaluators.parts import alpha_data
from nao_ray.evaluators.parts.alone import Alone, AloneConfig, alone_field
from nao_ray.evaluators.parts.versions import check_recipe, go_on, train_to_the_end
from nao_ray.evaluators.standalone import StandaloneConfig
from nao_ray.evaluators.standalone import settings_of as standalone_settings
from nao_ray.sizes import Sized
from nao_ray.skeletons.base import Skeleton, relaxed_skeleton_of
from nao_ray.spaces.base import SearchSpace
from nao_ray.tasks.base import Facts, Shapes, Task
from nao_ray.training.alphas import AlphaOptimiser
from nao_ray.training.recipe import Recipe, usually
from nao_ray.trial import Fidelity, Measurement, Phase, Proposal

if TYPE_CHECKING:
    from nao_ray.training.alternating import Alternating, Order
    from nao_ray.training.objective import Objective

_ORDERS: tuple[Order, ...] = ("first", "second", "exact", "none")


class DartsConfig(Sized, EvaluatorConfig):
    """Size of the relaxed supernet, and how it is trained; the defaults are those of the published search."""

    places: ClassVar[frozenset[str]] = frozenset({"alone.path"})

    recipe: SerializeAsAny[Recipe] = Field(default_factory=lambda: Recipe(name="darts_search"))
    """Of the weights."""
    alphas: AlphaOptimiser = AlphaOptimiser()
    period: int = Field(default=50, ge=1)
    """Epochs of the cosine of the learning rate, that of a whole search; a phase beyond it is refused."""
    augment_alphas: bool = True
    """Examples are augmented for the alphas as for the weights, as in the published code; false: seen as they are."""
    score_supernet: bool = True
    """Score the supernet, mixed by its alphas, after each phase: on the alphas' examples, with running statistics."""
    partial_channels: int = Field(default=1, ge=1)
    """Of so many parts of a state's channels one is mixed, the others are handed on, and edges are weighed against each
    other, by alphas of their own: PC-DARTS (arXiv 1907.05737), with 4; 1: all channels, no such alphas."""
    alone: AloneConfig = StandaloneConfig()
    """Of the architectures that were derived; with `name: tabular` a table has their scores, its settings beside the
    name, and what is derived after each phase is looked up too."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    @property
    def most_epochs(self) -> int:
        return self.period

    @model_validator(mode="after")
    def _one_cosine(self) -> Self:
        recipe = self.recipe
        check_recipe(recipe)
        if recipe.restart_factor is not None or recipe.cosine_epochs is not None:
            raise ValueError("recipe: the cosine is the evaluator's period; leave cosine_epochs and restart_factor out")
        if recipe.precision == "bfloat16":
            raise ValueError(
                "recipe.precision: a relaxed supernet trains in float32, of whose last digits the alphas' gradient is "
                "made; give auto or float32"
            )
        recipe.check_relaxed()
        recipe.of_alphas(augment=self.augment_alphas)
        return self


@lru_cache(maxsize=64)
def _settings(skeleton: Skeleton[Any]) -> type[DartsConfig]:
    usual, alone = skeleton.relaxed, standalone_settings(skeleton)
    assert usual is not None
    own = alone_field(alone, lambda: alone.model_validate({"epochs": 10}))
    kind, recipe = skeleton.alphas, usually(skeleton.relaxed_recipe)
    return DartsConfig.of(usual, recipe=recipe, alphas=(kind, kind()), alone=own)


class Darts(SharedEvaluator[DartsConfig]):
    """Trains phases and architectures; keeps the task on the device.

    Raises:
        ConfigError: the space has no relaxed supernet.
        DataError: the task cannot be loaded.
    """

    Config: ClassVar[type[EvaluatorConfig]] = DartsConfig
    trains: ClassVar[str] = "alphas"

    def __init__(self, space: SearchSpace[Any], task: Task[Any], config: DartsConfig) -> None:
        super().__init__(space, task, config)
        _ = self.skeleton  # there is one
        self._alone = Alone(space, task, config.alone, config.device)

    @classmethod
    def settings(cls, space: SearchSpace[Any]) -> type[DartsConfig]:
        return _settings(relaxed_skeleton_of(space))

    @cached_property
    def skeleton(self) -> Skeleton[Any]:
        return relaxed_skeleton_of(self.space)

    @property
    def uses_gpu(self) -> bool:
        return self._alone.uses_gpu

    @property
    def needs_gpu(self) -> bool:
        return self._alone.needs_gpu

    @classmethod
    def check(cls, space: SearchSpace[Any], shapes: Shapes | None, config: DartsConfig) -> None:
        skeleton = relaxed_skeleton_of(space)
        if shapes is not None:
            skeleton.check_relaxed(shapes, config.size, config.partial_channels, config.recipe)
        Alone.check(space, shapes, config.alone)

    def data_hash(self) -> str:
        return self._alone.data_hash()

    def facts(self) -> Facts | None:
        """As the base class; what is odd about the alphas' examples, too.

        Raises:
            DataError: a part of the training split makes no step.
        """
        facts = self._alone.facts()
        if facts is None:
            return None
        alpha_data.check(facts, self.task, self.config.recipe, self.config.alphas)
        return alpha_data.told(facts, self.config.recipe, self.config.alphas)

    def settled(self) -> Mapping[str, Mapping[str, Any]]:
        return self._alone.settled()

    def prepare(self) -> None:
        import nao_ray.training.alternating  # noqa: F401

        self._objective()

    @classmethod
    def fidelity(cls, config: DartsConfig) -> Fidelity:
        """Of an architecture."""
        return Alone.fidelity(config.alone)

    @property
    def scored_at_once(self) -> int:
        return 1

    @property
    def trained_by(self) -> int:
        return 1

    # -- phases -------------------------------------------------------------------------------------------

    def train(self, proposal: Proposal, source: bytes | None, group: Group) -> tuple[Measurement, bytes]:
        from nao_ray.training.checkpoint import pack_version
        from nao_ray.training.resources import watch

        del group  # of one
        phase = proposal.phase
        assert phase is not None
        order, with_eigenvalue = self._kind(phase)
        trainer = self._trainer(proposal.training_seed, order)
        go_on(trainer, phase, source, f"{self.space.name}, relaxed, {self.config.size}")
        with closing(trainer), watch(trainer.objective.device) as usage:
            losses = train_to_the_end(trainer, phase)
            alphas = [alpha.double().cpu().numpy() for alpha in trainer.alphas]
            diverged = not (math.isfinite(losses[-1]) and all(np.isfinite(alpha).all() for alpha in alphas))
            watched: dict[str, Any] = (
                {} if diverged else self._watched(trainer, proposal.training_seed, with_eigenvalue)
            )
        measurement = Measurement(
            train_loss=math.nan if diverged else losses[-1],
            curve=losses,
            **({} if diverged else self._derived(alphas)),
            **watched,
            wall_seconds=usage.wall_seconds,
            device_seconds=usage.device_seconds,
            peak_memory_bytes=usage.peak_memory_bytes,
            execution=trainer.execution,
        )
        return measurement, pack_version(trainer.state(), trainer.epochs_done)

    def _derived(self, alphas: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
        """What a phase came to: its alphas ``[E, O]`` per role, their architecture, and what a table says of that."""
        flat = tuple(value for alpha in alphas for value in alpha.ravel().tolist())
        derived = self.space.derive(alphas)
        return {"derived_genotype": derived.key, "alphas": flat, **self._alone.look_up(derived)}

    def _watched(self, trainer: Alternating, seed: int, with_eigenvalue: bool) -> dict[str, Any]:
        """Figures of the supernet at the end of a phase; those that are no finite numbers are left out."""
        epoch, device = trainer.epochs_done, str(trainer.objective.device)
        found: dict[str, Any] = {}
        if self.config.score_supernet:
            drawing = rng.torch_generator(seed, "score of the supernet", epoch, device)
            found["supernet_score"] = trainer.score(drawing).value
        if with_eigenvalue:
            order = rng.torch_generator(seed, "batch of the eigenvalue", epoch)
            drawing = rng.torch_generator(seed, "eigenvalue", epoch, device)
            found["alpha_eigenvalue"] = trainer.largest_eigenvalue(order, drawing)
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _kind(self, phase: Phase) -> tuple[Order, bool]:
        kind, _, words = phase.kind.partition("/")
        word, _, more = words.partition("/")
        order = next((order for order in _ORDERS if order == word), None)
        if kind != self.trains or order is None or more not in ("", "eigenvalue"):
            raise ConfigError(
                f"phase {phase.version}: darts trains alphas/ORDER, of {', '.join(_ORDERS)}, not {phase.kind}; "
                "give the strategy darts"
            )
        if phase.last_epoch > self.config.period:
            raise ConfigError(
                f"phase {phase.version} ends with epoch {phase.last_epoch}, and the learning rate's cosine with "
                f"{self.config.period}: give evaluator.period as strategy.epochs"
            )
        return order, bool(more)

    def _trainer(self, seed: int, order: Order) -> Alternating:
        """Of fresh weights and alphas."""
        import torch

        from nao_ray.training.alternating import Alternating
        from nao_ray.training.streams import ByStep

        config, whole = self.config, self._objective()
        cut = rng.torch_generator(seed, "halves")
        objective, alpha_objective = alpha_data.parts_of(whole, config.alphas, cut, augment=config.augment_alphas)
        with rng.torch_seeded(seed, "shared weights"):
            network = self.skeleton.relaxed_supernet(
                self.space, self.task.shapes, config.size, config.partial_channels, config.recipe
            )
        draw = rng.torch_generator(seed, "first alphas")
        columns = len(self.space.primitives) + (config.partial_channels > 1)  # the edge's own
        shapes = [(edges, columns) for edges in self.space.alpha_edges.values()]
        return Alternating(
            network,
            objective,
            alpha_objective,
            [config.alphas.deviation * torch.randn(shape, generator=draw) for shape in shapes],
            order=order,
            optimiser=config.alphas,
            streams=ByStep(seed, whole.device),
            alpha_streams=ByStep(rng.child_seed(seed, "alphas' batches"), whole.device),
        )

    def _objective(self) -> Objective:
        """The data that networks on their own are trained on too, under the recipe of the weights."""
        recipe = self.config.recipe
        own = {"cosine_epochs": self.config.period, "restart_factor": 1, "precision": "float32"}
        return self._alone.objective().under(recipe.model_copy(update=own))

    # -- architectures ------------------------------------------------------------------------------------

    def evaluate(self, proposal: Proposal) -> Measurement:
        self._refuse_version(proposal.fidelity.weights_version)
        return self._alone.evaluate(proposal)

    def use(self, version: str, weights: bytes) -> None:
        del weights
        self._refuse_version(version)

    def evaluate_together(self, proposals: Sequence[Proposal]) -> list[Measurement]:
        return [self.evaluate(proposal) for proposal in proposals]

    @staticmethod
    def _refuse_version(version: str | None) -> None:
        if version is not None:
            raise ConfigError(
                f"weights {version} are of a relaxed supernet, with which no single architecture is scored"
            )
