"""What a network learns: splits, shapes, the metric, and all of it on a device as an objective. Works without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from nao_ray import own_modules
from nao_ray.errors import DataError
from nao_ray.metric import Metric
from nao_ray.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from nao_ray.training.objective import Objective, Scores
    from nao_ray.training.recipe import Recipe


class TaskConfig(Settings):
    """Base of every task's config."""

    places: ClassVar[frozenset[str]] = frozenset()
    """Settings that say where the data are."""
    hashed: ClassVar[frozenset[str]] = frozenset()
    """Settings that say how the data are read, and without which the data's hash would tell as much. Like `places` they
    are not what is learnt."""


C = TypeVar("C", bound=TaskConfig)


class Shapes:
    """What a network has to fit; hashable, of the task's family."""

    example: ClassVar[str] = "example"
    """What people call one."""

    @property
    def told(self) -> str:
        """What a network makes of one, for people."""
        return ""

    @property
    def recorded(self) -> dict[str, str | int]:
        """By what a network is built again (`Skeleton.shapes`): those of the pool's columns for it that have a meaning.

        They are `network` and two numbers, as earlier pools name them.
        """
        return {}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a task's data."""

    digest: str
    """Hex digest of the train and validation splits."""
    summary: str
    """Where they are, how many and of what kinds: one line."""
    odd: tuple[str, ...] = ()
    """What a reader should know before a score is believed."""
    examples: int | None = None
    """Of the training split; of a text its tokens."""
    validating: int | None = None
    """Of the validation split."""

    @property
    def line(self) -> str:
        """All of it, in one line."""
        return "; ".join((self.summary, *self.odd))


class Task(ABC, Generic[C]):
    """A data set with a fixed train/validation split by seed; the test split is loaded by `load_test` alone."""

    Config: ClassVar[type[TaskConfig]] = TaskConfig

    name: ClassVar[str]
    """One of the user's own is named as configs do, ``package.module:Class``."""
    metric: ClassVar[Metric]
    """What networks are measured by on the validation and the test split."""

    def __init_subclass__(cls, **arguments: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**arguments)
        own_modules.give_name(cls)

    def __init__(self, config: C) -> None:
        self.config = config

    @property
    @abstractmethod
    def shapes(self) -> Shapes:
        """What a network for this task has to fit; needs no data."""

    @property
    def outline(self) -> Shapes | None:
        """`shapes` as far as the config alone tells; what it leaves to the data is made up, None: all that matters."""
        return self.shapes

    @property
    def full_training(self) -> str:
        """The full training that is suggested for what a search on this task has found."""
        return "short"

    @property
    def legend(self) -> dict[str, Any]:
        """What the test split is read by and only the training data tell, such as classes or words, as JSON.

        Empty where the config says it all. A checkpoint keeps it, so that evaluation needs no training data.

        Raises:
            DataError: the training data is missing, empty or unreadable.
        """
        return {}

    def by(self, legend: Mapping[str, Any]) -> Self:
        """This task, which reads its test split by a legend and looks for no training data.

        Raises:
            DataError: the legend is of another task, or the config says otherwise.
        """
        if legend:
            raise DataError(f"task {self.name} keeps nothing of its training data, the checkpoint has {sorted(legend)}")
        return self

    @abstractmethod
    def load(self) -> tuple[Any, Any]:
        """Train and validation split; the test split is not read.

        Raises:
            MissingDataError: files of it are not there.
            DataError: the data is empty or unreadable.
        """

    @abstractmethod
    def load_test(self) -> Any:  # noqa: ANN401
        """The test split: for full training alone.

        Raises:
            DataError: the data is missing, empty or unreadable.
        """

    @abstractmethod
    def objective(self, device: torch.device, recipe: Recipe, *, all_data: bool = False) -> Objective:
        """The task on a device: what a network learns, and what it is measured on.

        Args:
            device: where both splits are moved, once.
            recipe: how it is learnt.
            all_data: the validation split trains too, and nothing validates.

        Raises:
            DataError: the data is missing, empty or unreadable, or too little for one step.
        """

    @abstractmethod
    def test_scores(
        self, network: nn.Module, constants: Mapping[str, Tensor], device: torch.device, recipe: Recipe
    ) -> Scores:
        """Of a trained network on the test split, which is read for it.

        Args:
            network: as it was trained.
            constants: of the objective it was trained on (`Objective.constants`), perhaps among other tensors.
            device: where to.
            recipe: how it was trained.

        Raises:
            DataError: the data is missing, empty or unreadable, or the constants are of another task.
        """

    def odd_test(self) -> tuple[str, ...]:
        """What the test split alone tells that should be known before its score is believed, a line each.

        Raises:
            DataError: there is none, or it is unreadable.
        """
        return ()

    def check_test(self) -> tuple[str, ...]:
        """Read the test split and refuse what `load_test` would: full training asks before it starts.

        Returns:
            What should be known before a test score is believed, a line each.

        Raises:
            DataError: there is none, or one that is not what the training and validation splits are.
        """
        self.load_test()
        return ()

    @abstractmethod
    def data_hash(self) -> str:
        """Hex digest that names the data of the train and validation splits, for the manifest."""

    def too_few(self, examples: int, recipe: Recipe, where: str, do: str = "train", workers: int = 1) -> str:
        """That so many examples, which `do` this, make no step under a recipe, and why; "": they do. Needs no data.

        `where` names the recipe among the user's settings; its batch is that of all `workers` together.
        """
        return ""

    def check_step(
        self,
        facts: Facts,
        recipe: Recipe,
        where: str,
        share: float = 1.0,
        *,
        all_data: bool = False,
        workers: int = 1,
    ) -> None:
        """Refuse examples that make no step of a training, before anything is made.

        Args:
            facts: of its data.
            recipe: of the training; of each worker where its `per_worker` is true.
            where: names the recipe among the user's settings.
            share: of the training split.
            all_data: the validation split trains too.
            workers: that train together.

        Raises:
            DataError: they are too few.
        """
        if facts.examples is None:
            return
        examples = facts.examples + (facts.validating or 0) * all_data
        kept = min(examples, max(2, round(share * examples)))  # a share has at least two
        if lacking := self.too_few(kept, recipe.of_all(workers), where, workers=workers):
            raise DataError(lacking)

    def facts(self) -> Facts:
        """What is known of the data; read once, or remembered of files that have not changed since.

        Raises:
            DataError: the data is missing, empty or unreadable.
        """
        return Facts(self.data_hash(), f"task {self.name}")
