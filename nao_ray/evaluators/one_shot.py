"""Scores with shared weights: a supernet is trained in phases, and genotypes are scored with a version of it.

NAO with weight sharing (Luo, Tian, Qin, Chen, Liu, NeurIPS 2018, arXiv 1808.07233), ENAS (Pham, Guan, Zoph, Le, Dean,
ICML 2018, arXiv 1802.03268). A score is taken on the same validation examples for all, by default with the statistics
of each batch. A proposal that names no version is trained on its own: so are finalists ranked again, and so is a sample
audited whose shared scores are to be believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, model_validator

from nao_ray import rng
from nao_ray.errors import ConfigError, GenotypeError
from nao_ray.evaluators.base import EvaluatorConfig, Group, SharedEvaluator
from nao_ray.evaluators.parts.alone import Alone, AloneConfig, alone_field
from nao_ray.evaluators.parts.versions import check_recipe, go_on, of_supernet, train_to_the_end
from nao_ray.evaluators.standalone import StandaloneConfig
from nao_ray.evaluators.standalone import settings_of as standalone_settings
from nao_ray.limits import Limits
from nao_ray.sizes import Sized
from nao_ray.skeletons.base import Skeleton, skeleton_of
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.tasks.base import Facts, Shapes, Task
from nao_ray.training.recipe import Recipe, usually
from nao_ray.trial import Fidelity, Measurement, Phase, Proposal

if TYPE_CHECKING:
    from torch import nn

    from nao_ray.networks.supernet import Supernet
    from nao_ray.spaces.base import ArchGraph
    from nao_ray.training.group import Averager
    from nao_ray.training.objective import Objective, Shard
    from nao_ray.training.sampling import PathSampler
    from nao_ray.training.trainer import Trainer


_FEWEST = 8  # examples of a worker's share of a batch: batch norm takes its statistics from them


class OneShotConfig(Sized, EvaluatorConfig):
    """Size of the supernet, how it is trained, and what a score is taken on."""

    places: ClassVar[frozenset[str]] = frozenset({"alone.path"})

    recipe: SerializeAsAny[Recipe] = Field(default_factory=lambda: Recipe(name="paper_shared"))
    period: int = Field(default=150, ge=1)
    """Epochs of the first cosine of the learning rate."""
    restart_factor: int = Field(default=1, ge=1)
    """Each cosine is that many times as long as the last."""
    batch: int = Field(default=500, ge=2)
    """Validation examples per batch of a score: batch norm takes its statistics from it. Of a text the columns, as many
    as its search publishes, that all of it is cut into."""
    batches: int = Field(default=1, ge=1)
    """Of these batches, of a text windows of each column; always the same ones. A proposal may ask for a share of the
    split instead (`valid_share`)."""
    norm: Literal["batch", "path", "running"] = "batch"
    """What batch norm goes by in a score. `batch`: the statistics of each scored batch, as the published codes do;
    `path`: those of `norm_examples` training examples, taken of each path anew; `running`: the averages that were kept
    while all paths were trained. Networks of texts have no batch norm."""
    norm_examples: int = Field(default=256, ge=2)
    """Of `norm: path`; always the same ones."""
    at_once: int = Field(default=50, ge=1)
    """Genotypes scored together, which share what their paths have in common."""
    alone: AloneConfig = StandaloneConfig()
    """Of proposals that name no version; by default as large as the supernet, for 10 epochs. With `name: tabular` a
    table has their scores, with its settings beside the name."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")

    @model_validator(mode="after")
    def _of_shared_weights(self) -> Self:
        check_recipe(self.recipe)
        if self.recipe.restart_factor is not None:
            raise ValueError("recipe.restart_factor is for networks on their own: give restart_factor of the evaluator")
        if self.norm != "batch" and not self.recipe.batch_norm:
            raise ValueError(f"norm: networks of {self.recipe.kind} have no batch norm; leave it out")
        return self


@lru_cache(maxsize=64)
def _settings(skeleton: Skeleton[Any]) -> type[OneShotConfig]:
    usual, alone = skeleton.searched_shared or skeleton.shared, standalone_settings(skeleton)
    assert usual is not None

    def beside() -> StandaloneConfig:
        return alone.model_validate({**usual.model_dump(), "epochs": 10})

    batch = (int, Field(default=skeleton.shared_batch, ge=2))
    return OneShotConfig.of(
        usual, recipe=usually(skeleton.shared_recipe), batch=batch, alone=alone_field(alone, beside)
    )


class OneShot(SharedEvaluator[OneShotConfig]):
    """Trains and scores; keeps the task and the supernet on the device.

    Raises:
        ConfigError: the space has no supernet.
        DataError: the task cannot be loaded.
    """

    Config: ClassVar[type[EvaluatorConfig]] = OneShotConfig
    keeps_states: ClassVar[bool] = False

    def __init__(self, space: SearchSpace[Any], task: Task[Any], config: OneShotConfig) -> None:
        super().__init__(space, task, config)
        _ = self.skeleton  # there is one
        self._scorer: nn.Module | None = None
        self._alone = Alone(space, task, config.alone, config.device)

    @property
    def uses_gpu(self) -> bool:
        return self._alone.uses_gpu

    @property
    def needs_gpu(self) -> bool:
        return self._alone.needs_gpu

    @classmethod
    def settings(cls, space: SearchSpace[Any]) -> type[OneShotConfig]:
        return _settings(skeleton_of(space, shared=True))

    @classmethod
    def check(cls, space: SearchSpace[Any], shapes: Shapes | None, config: OneShotConfig) -> None:
        skeleton = skeleton_of(space, shared=True)
        if shapes is not None:
            skeleton.check(shapes, config.size, config.recipe, shared=True)
        Alone.check(space, shapes, config.alone)

    @classmethod
    def check_limits(cls, config: OneShotConfig, limits: Limits) -> None:
        Alone.check_limits(config.alone, limits)

    def figures(self, genotype: Genotype) -> Mapping[str, float]:
        return self._alone.figures(genotype, self.limits)

    def data_hash(self) -> str:
        return self._alone.data_hash()

    def facts(self) -> Facts | None:
        """As the base class.

        Raises:
            DataError: they make no step of training, too.
        """
        facts = self._alone.facts()
        if facts is not None:
            self.task.check_step(facts, self.config.recipe, "evaluator.recipe")
        return facts

    def settled(self) -> Mapping[str, Mapping[str, Any]]:
        return self._alone.settled()

    def prepare(self) -> None:
        import nao_ray.training.trainer  # noqa: F401

        self._objective()

    @classmethod
    def fidelity(cls, config: OneShotConfig) -> Fidelity:
        """Of a proposal that names no version."""
        return Alone.fidelity(config.alone)

    @property
    def scored_at_once(self) -> int:
        return self.config.at_once

    @property
    def trained_by(self) -> int:
        batch = self.config.recipe.batch
        return max(1, min(batch, self.task.facts().examples or batch) // _FEWEST)

    # -- training -----------------------------------------------------------------------------------------

    def train(self, proposal: Proposal, source: bytes | None, group: Group) -> tuple[Measurement, bytes]:

        from nao_ray.training.checkpoint import pack_version
        from nao_ray.training.group import meeting
        from nao_ray.training.objective import Shard
        from nao_ray.training.resources import watch

        phase = proposal.phase
        assert phase is not None
        if phase.kind != "paths":
            raise ConfigError(f"phase {phase.version}: one_shot trains paths, not {phase.kind}; give another evaluator")
        if proposal.genotype.space != self.space.name:
            raise GenotypeError(
                f"phase {phase.version}: genotypes of space {proposal.genotype.space} given to the supernet of "
                f"{self.space.name}"
            )
        sampler, objective = self._sampler(phase), self._objective(Shard(group.rank, group.size))  # before others wait
        device = objective.device
        with meeting(group.rank, group.size, group.address, device, owns_device=group.owns_device) as averager:
            trainer = self._trainer(proposal.training_seed, objective, sampler, averager)
            if averager is not None:
                averager.watch(trainer.network)
            go_on(trainer, phase, source, self._supernet_text)
            with watch(device) as usage:
                losses = train_to_the_end(trainer, phase)
        measurement = Measurement(
            train_loss=losses[-1],
            curve=losses,
            wall_seconds=usage.wall_seconds,
            device_seconds=usage.device_seconds * group.size,  # of all members, who work in step
            peak_memory_bytes=usage.peak_memory_bytes,
        )
        return measurement, pack_version(trainer.state(), trainer.epochs_done) if group.rank == 0 else b""

    def _trainer(self, seed: int, objective: Objective, sampler: PathSampler, averager: Averager | None) -> Trainer:
        """Of fresh shared weights."""
        from nao_ray.training.streams import ByStep
        from nao_ray.training.trainer import Trainer

        shard = objective.shard
        streams = ByStep(seed, objective.device, shard.rank)

        def choose(step: int) -> ArchGraph:
            drawn = sampler.choices(seed, step, shard.count)
            if averager is not None:
                averager.expect(drawn)
            return drawn[shard.rank]

        return Trainer(self._supernet(seed), objective, epochs=None, streams=streams, choose=choose, averager=averager)

    def _supernet(self, seed: int) -> Supernet:
        with rng.torch_seeded(seed, "shared weights"):
            return self.skeleton.supernet(self.space, self.task.shapes, self.config.size, self.config.recipe)

    def _sampler(self, phase: Phase) -> PathSampler:
        from nao_ray.training.sampling import PathSampler

        genotypes = [self.space.parse(text) for text in phase.genotypes]
        sizes: Sequence[int] | None = phase.num_params
        if phase.sampling != "size":
            sizes = None
        elif sizes is None:  # a phase of an earlier pool
            sizes = [self.num_params(genotype) for genotype in genotypes]
        graphs = [self.space.lower(genotype) for genotype in genotypes]
        return PathSampler(graphs, sizes, in_turn=phase.sampling == "given")

    def num_params(self, genotype: Genotype) -> int:
        return self.skeleton.num_params(self.space.lower(genotype), self.task.shapes, self.config.size)

    # -- scores -------------------------------------------------------------------------------------------

    def use(self, version: str, weights: bytes) -> None:
        from nao_ray.training.checkpoint import check_shapes, part, unpack_version

        if self._scorer is None:
            self._scorer = self._objective().place(self._supernet(0))
        with of_supernet(version, self._supernet_text):
            state = part(unpack_version(weights)[0], "network")
            check_shapes(state, self._scorer.state_dict())
            self._scorer.load_state_dict(state)

    @property
    def _supernet_text(self) -> str:
        return f"{self.space.name}, {self.config.size}"

    def evaluate(self, proposal: Proposal) -> Measurement:
        if proposal.fidelity.weights_version is None:
            return self._alone.evaluate(proposal)
        return self.evaluate_together([proposal])[0]

    def evaluate_together(self, proposals: Sequence[Proposal]) -> list[Measurement]:
        from nao_ray.training.objective import NormStatistics
        from nao_ray.training.resources import watch

        assert self._scorer is not None, "weights come before scores"
        for proposal in proposals:
            self.space.validate(proposal.genotype)
        graphs = [self.space.lower(proposal.genotype) for proposal in proposals]
        objective, count = self._objective(), self._count(proposals[0].fidelity)
        order = rng.torch_generator(0, "one-shot validation")  # the same for all versions
        statistics = NormStatistics(self.config.norm, self.config.norm_examples)
        with watch(objective.device) as usage:
            scores = objective.compare(
                self._scorer, graphs, order, batch=self.config.batch, count=count, statistics=statistics
            )
        share = 1 / len(proposals)
        return [
            Measurement(
                **objective.metric.measured(score.value),
                valid_loss=score.loss,
                wall_seconds=usage.wall_seconds * share,
                device_seconds=usage.device_seconds * share,
                peak_memory_bytes=usage.peak_memory_bytes,
            )
            for score in scores
        ]

    def _count(self, fidelity: Fidelity) -> int:
        """How many validation examples a score is taken on."""
        count = self._objective().num_valid
        if fidelity.valid_share is None:
            return min(self.config.batch * self.config.batches * self._objective().examples_per_row, count)
        return max(1, round(fidelity.valid_share * count))

    def _objective(self, shard: Shard | None = None) -> Objective:
        """The data that networks on their own are trained on too, under the recipe of shared weights."""
        from nao_ray.training.objective import WHOLE

        config, recipe = self.config, self.config.recipe
        own = {
            "cosine_epochs": recipe.cosine_epochs or config.period,
            "restart_factor": config.restart_factor,
            # a path is no graph, and autocast adds more launches than bfloat16 saves
            "precision": "float32" if recipe.precision == "auto" else recipe.precision,
        }
        return self._alone.objective().under(recipe.model_copy(update=own), shard=shard or WHOLE)
