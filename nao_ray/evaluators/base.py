"""The lower seam: an evaluator scores a proposal.

It depends on its constructor and on the proposal (genotype, seed, fidelity), nothing else; it returns numbers, raises
to fail, and knows neither strategies nor pool nor ray. Evaluating a proposal twice gives the same score.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from nao_ray.errors import ConfigError
from nao_ray.limits import Limits
from nao_ray.metric import DEFAULT, Metric
from nao_ray.settings import Settings
from nao_ray.skeletons.base import Skeleton, skeleton_of
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.tasks.base import Facts, Shapes, Task
from nao_ray.trial import Fidelity, Interim, Measurement, Proposal


@dataclass(frozen=True, slots=True)
class Group:
    """The workers that train shared weights together, and which of them this is."""

    rank: int = 0
    size: int = 1
    address: str = ""
    """``host:port`` of the first one, where they meet; unused by a worker on its own."""
    owns_device: bool = True
    """Each has a GPU to itself, if it has one."""


class Keeper(Protocol):
    """Where a long evaluation keeps how far it is, so that another worker goes on with it; it may keep nothing."""

    def kept(self, proposal: Proposal) -> bytes | None:
        """What was kept of this proposal, which begins, or of the rung that it goes on with."""
        ...

    def is_due(self) -> bool:
        """Whether it has been long since the proposal began, or was kept."""
        ...

    def keep(self, proposal: Proposal, state: bytes) -> None:
        """Keep it, instead of what was kept before."""
        ...


class EvaluatorConfig(Settings):
    """Base of every evaluator's config."""

    places: ClassVar[frozenset[str]] = frozenset()
    """Settings that say where the data are, not what is learnt: the data's hash says that."""
    of_before: ClassVar[Mapping[str, Any]] = {}
    """What held in pools that were made before a setting existed, where that is not its default."""

    @property
    def most_epochs(self) -> int | None:
        """Of a training of shared weights; None: no limit."""
        return None

    def under(self, settings: Mapping[str, Any]) -> Self:
        """With other settings of the recipe, as a proposal may ask for.

        Raises:
            ConfigError: there is no such setting, or its value is wrong; this evaluator trains under its own alone.
        """
        if settings:
            raise ConfigError("strategy.settings: the evaluator trains all alike, take standalone")
        return self


C = TypeVar("C", bound=EvaluatorConfig)


class Evaluator(ABC, Generic[C]):
    """Scores proposals of one space, most of them on one task."""

    Config: ClassVar[type[EvaluatorConfig]] = EvaluatorConfig
    needs_task: ClassVar[bool] = True
    """False: a config may leave `task` out."""
    shares_weights: ClassVar[bool] = False
    """It takes proposals that train shared weights, and those scored with them."""
    keeps_states: ClassVar[bool] = True
    """False: it takes no time worth keeping, and a worker of it does without `keeper`, which opens the pool."""
    measures: ClassVar[bool] = True
    """False: its trials are measured by whoever asks for them, and no search can."""

    trains: ClassVar[str] = "paths"
    """Of one with shared weights: the kind of phase that it carries out."""
    limits: Limits = Limits({})
    """What breaks them it does not train. Whoever makes the evaluator gives them."""
    aims: tuple[str, ...] = ()
    """What else `figures` tells: objectives of the search. Whoever makes the evaluator gives them."""
    times: bool = False
    """It measures the latency of what it trains, before, and records it; whoever makes it says so."""

    rungs: tuple[int, ...] = ()
    """Epochs at which trainings pause, ascending, the last a whole one: the search's ladder; (): it has none, and no
    proposal names a parent. Whoever makes the evaluator gives them."""

    keeper: Keeper | None = None
    """For evaluations that take long; one that does not know how to go on does without."""
    watcher: Callable[[Measurement], None] | None = None
    """Is told after each epoch of a training but the last what it has come to so far; may end it by raising. One with
    shared weights, or without epochs, does without."""

    def __init__(self, space: SearchSpace[Any], task: Task[Any] | None, config: C) -> None:
        self.space = space
        self.config = config
        self._task = task

    @property
    def task(self) -> Task[Any]:
        """What is trained on.

        Raises:
            ConfigError: none was given.
        """
        if self._task is None:
            raise ConfigError(f"evaluator {type(self).__name__} was given no task")
        return self._task

    @property
    def has_task(self) -> bool:
        """Whether it was given a task."""
        return self._task is not None

    @cached_property
    def skeleton(self) -> Skeleton[Any]:
        """Of the space's networks.

        Raises:
            ConfigError: there is none.
        """
        return skeleton_of(self.space, shared=self.shares_weights)

    def check_facts(self, facts: Facts, config: C, where: str) -> None:
        """Refuse data that this evaluator, set so, cannot train on; `where` names its recipe among the user's settings.

        Raises:
            DataError: they are too few.
        """

    def prepare(self) -> None:
        """Have at hand what every evaluation needs: libraries, data, the device. It is not part of anyone's time.

        Raises:
            Exception: what an evaluation would raise, too.
        """

    @property
    def uses_gpu(self) -> bool:
        """Whether it computes on the GPU that a worker is given."""
        return False

    @property
    def needs_gpu(self) -> bool:
        """Whether it computes nowhere else."""
        return False

    def data_hash(self) -> str:
        """Hex digest that names the data behind the scores, for the manifest.

        Raises:
            DataError: the data is not what it should be; nothing was evaluated.
        """
        return hashlib.sha256().hexdigest() if self._task is None else self._task.data_hash()

    def facts(self) -> Facts | None:
        """What is known of the data; None: there are none.

        Raises:
            DataError: the data is not what it should be; nothing was evaluated.
        """
        return None if self._task is None else self._task.facts()

    def settled(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings that were left to the data to decide: by section, `evaluator` or `space`, what is to be recorded.

        Raises:
            DataError: the data is not what it should be.
        """
        return {}

    @classmethod
    def settings(cls, space: SearchSpace[Any]) -> type[EvaluatorConfig]:  # noqa: ARG003
        """Its config for proposals of a space: of one that builds networks, with the sizes of the space's skeleton.

        Raises:
            ConfigError: there is no skeleton.
        """
        return cls.Config

    @classmethod
    def check(cls, space: SearchSpace[Any], shapes: Shapes | None, config: C) -> None:
        """Refuse, before anything starts, what no proposal could be evaluated for; needs neither data nor a device.

        Args:
            space: of the proposals.
            shapes: of the task, or its `outline`.
            config: of the evaluator.

        Raises:
            ConfigError: there is no network for this space, this task or this size.
        """

    @classmethod
    def metric(cls, config: C, task: Task[Any] | None) -> Metric:  # noqa: ARG003
        """What is measured under this config, on this task; needs neither data nor a device."""
        return DEFAULT if task is None else task.metric

    @property
    def measure(self) -> Metric:
        """What this one measures."""
        return type(self).metric(self.config, self._task)

    @classmethod
    def recorded(cls, config: C) -> tuple[str, ...]:  # noqa: ARG003
        """Figures besides the score that a measurement has, of those that a search may aim at."""
        return ()

    @classmethod
    def check_limits(cls, config: C, limits: Limits) -> None:  # noqa: ARG003
        """Refuse, before anything starts, limits of what this evaluator does not know before it evaluates.

        Raises:
            ConfigError: one is such.
        """
        limits.check_names((), f"the evaluator {cls.__name__}")

    @classmethod
    def check_rungs(cls, config: C, epochs: Sequence[int]) -> None:  # noqa: ARG003
        """Refuse, before anything starts, a ladder of fidelities with these epochs.

        Override where `Config` has a setting `epochs`, and `evaluate` heeds the proposal's `fidelity.epochs`.

        Raises:
            ConfigError: this evaluator cannot be asked for fewer epochs, or not with these settings.
        """
        raise ConfigError(
            f"fidelity: the evaluator {cls.__name__} trains no network for some epochs, so that nothing can pause: "
            "leave it out, or take the evaluator standalone",
            "fidelity",
        )

    def course(self, proposal: Proposal, measured: Measurement) -> list[tuple[float, Interim]]:
        """What a `watcher` would have been told on the way to a measurement, and after how many seconds, ascending.

        For who tells the time of an evaluation and does not spend it; by default from the curve, of epochs that take
        equally long.
        """
        curve, seconds = measured.curve or (), measured.wall_seconds or 0.0
        scores = map(self.measure.score, curve[:-1])
        return [
            (seconds * done / len(curve), Interim(proposal.trial_id, done, score))
            for done, score in enumerate(scores, 1)
        ]

    def epochs_before(self, proposal: Proposal) -> int:
        """That its parent was trained for, the rung below; 0 where it has none."""
        if proposal.parent_trial_id is None:
            return 0
        return max((rung for rung in self.rungs if rung < (proposal.fidelity.epochs or 0)), default=0)

    def figures(self, genotype: Genotype) -> Mapping[str, float]:
        """What `limits` bound or `aims` name and needs no device, of the network that would be trained, by name.

        Raises:
            DataError: the data, which say how many classes there are, cannot be read.
            GenotypeError: nothing is known of it.
        """
        return {}

    @classmethod
    @abstractmethod
    def fidelity(cls, config: C) -> Fidelity:
        """The fidelity of every trial under this config; needs neither data nor a device."""

    @abstractmethod
    def evaluate(self, proposal: Proposal) -> Measurement:
        """Measure one proposal.

        Raises:
            Exception: whatever went wrong; the caller turns it into a FAILED trial.
        """


class SharedEvaluator(Evaluator[C]):
    """An evaluator with shared weights: some proposals train them, the others are scored with a version of them.

    Weights travel as bytes, which whoever evaluates keeps: an evaluator neither knows nor chooses where.
    """

    shares_weights: ClassVar[bool] = True

    @property
    @abstractmethod
    def scored_at_once(self) -> int:
        """Proposals of one version that are better scored together than one by one; at least 1."""

    def num_params(self, genotype: Genotype) -> int | None:
        """What paths drawn by size are drawn in proportion to; None: it does not draw by size.

        The parameters of a genotype's network on its own, as large as the shared weights.

        Raises:
            ConfigError: there is no such network.
            DataError: the data, which say how many classes there are, cannot be read.
        """
        return None

    @property
    @abstractmethod
    def trained_by(self) -> int:
        """Workers that may train together at most: more would have too few examples of a batch each; at least 1."""

    @abstractmethod
    def train(self, proposal: Proposal, source: bytes | None, group: Group) -> tuple[Measurement, bytes]:
        """Carry out a proposal's phase, together with the others of the group, all called with the same arguments.

        Args:
            proposal: with a phase.
            source: the version the phase goes on from; None: fresh weights.
            group: who trains.

        Returns:
            The measurement, with `train_loss`, and with `derived_genotype` where the phase came to an architecture; and
            the trained version: from the first member alone, b"" from others.

        Raises:
            ConfigError: the phase is of a kind that this evaluator does not know.
            PoolError: the source's weights are of another supernet, or trained for longer or shorter.
            Exception: whatever else went wrong; the caller turns it into a FAILED trial.
        """

    @abstractmethod
    def use(self, version: str, weights: bytes) -> None:
        """Score with this version from now on.

        Raises:
            PoolError: the weights are of another supernet.
        """

    @abstractmethod
    def evaluate_together(self, proposals: Sequence[Proposal]) -> list[Measurement]:
        """As `evaluate` of each; all are of one fidelity, and of the version in use.

        Raises:
            Exception: whatever went wrong; the caller tries them one by one.
        """
