"""From an architecture to a test score: full training, then the test split, once.

Nothing here chooses: the architecture was chosen by validation, and the last epoch counts. A search cannot reach
this module's `Task.load_test`; its evaluators see train and validation alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nao_ray import rng
from nao_ray.config import TrainConfig
from nao_ray.errors import DataError, MissingDataError, RunError
from nao_ray.pool import Finals
from nao_ray.service.places import placed
from nao_ray.service.training.about import About, about_of, digest, finished, told_task, unpack
from nao_ray.skeletons.base import Skeleton, skeleton_of
from nao_ray.spaces.base import ArchGraph
from nao_ray.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nao_ray.training.fit import Epoch
    from nao_ray.training.group import Team
    from nao_ray.training.objective import Objective, Scores

_log = logging.getLogger(__name__)

_FOR_ANOTHER = ("momentum", "generator", "step", "recovery")
"""The parts of a state that only a further epoch needs."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a training tells after each epoch."""

    done: int
    epochs: int
    loss: float
    valid: str | None
    """The validation metric, in words."""
    seconds_left: float


Listener = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a process of a training computes."""

    device: str
    team: Team | None = None
    """With whom; None: alone."""


def train(
    config: TrainConfig, url: str, label: str, *, trial_id: int | None = None, listener: Listener = lambda _: None
) -> dict[str, Any]:
    """Train in this process, keep checkpoints, read the test split and record its score; or go on with it.

    Args:
        config: what, and how; its `workers` is 1.
        url: a pool, or any other folder or URL; gets ``final/NAME.parquet`` and ``weights/NAME.safetensors``.
        label: begins the training's name, which ends in digits that name architecture, recipe, sizes, seed and data.
        trial_id: the trial of the pool that proposed the architecture.
        listener: told of every epoch.

    Returns:
        The recorded row. A training that has its row is not repeated, nor is the test split read again.

    Raises:
        InputError: config, data or a checkpoint that is there are not what they should be.
        RunError: the loss became infinite, or the place cannot be written.
    """
    assert config.workers == "1", config.workers
    run = Run.of(config, url, label, listener)
    row = run.row()
    if row is None:
        run.check()
        row = run.finish(trial_id)
    assert row is not None
    return row


def evaluate(checkpoint: str, overrides: tuple[str, ...] = ()) -> tuple[About, Scores]:
    """The test split under the weights of a finished training.

    The data that it was trained on are compared by their hash where they are there. They need not be: classes and
    words are in the checkpoint, but for older ones of pictures and texts of one's own.

    Args:
        checkpoint: path or URL of its file.
        overrides: of the task's settings and the device, ``task.path=...``.

    Raises:
        InputError: the file is no checkpoint of a finished training, or the data are not there, or others.
    """
    about, tensors = finished(checkpoint)
    config = about.config.changed(overrides)
    task = config.make_task()
    missing = None
    try:
        data_hash = task.data_hash()
    except MissingDataError as error:  # it is the test split that is read
        missing, data_hash = error, about.data_hash
    if data_hash != about.data_hash:
        raise DataError(
            f"{checkpoint} was trained on other data: their hash was {about.data_hash[:12]}, it is now "
            f"{data_hash[:12]}; --set task.path=... tells where they are, or where a test split is alone, named as such"
        )
    told = told_task(task, tensors, checkpoint)
    try:
        scores = _test(config, told, tensors, checkpoint, config.device)[1]
    except MissingDataError as error:
        if told is not task or str(error) != str(missing):
            raise
        raise MissingDataError(
            f"{error}; {checkpoint} is of an earlier nao_ray and keeps neither classes nor words, so it is evaluated "
            "where its training data are"
        ) from None
    for odd in told.odd_test():
        _log.warning("%s", odd)
    if missing is not None:
        _log.warning("the data that it was trained on are not there to be compared: %s", missing)
    return about, scores


class Run:
    """One training, from its last checkpoint to its end."""

    def __init__(
        self, config: TrainConfig, task: Task[Any], finals: Finals, name: str, data_hash: str, listener: Listener
    ) -> None:
        self.config, self.task, self.finals, self.name = config, task, finals, name
        self.data_hash, self.listener = data_hash, listener
        self.where = finals.checkpoint_path(name)
        self.seat = Seat(config.device)
        self.tensors: Mapping[str, Tensor] = {}
        """Weights and normalisation, once trained."""
        self.peak_memory_bytes: int | None = None
        """As `Measurement.peak_memory_bytes`, of the epochs trained here."""

    @classmethod
    def of(
        cls, config: TrainConfig, url: str, label: str, listener: Listener = lambda _: None, seat: Seat | None = None
    ) -> Run:
        """As for `train`; where in a `seat`, of the worker there."""
        config = placed(config)
        task = config.make_task()
        data_hash = task.data_hash()
        name = f"{label}-{config.recipe.name}-{digest(config, data_hash)}"
        run = cls(config, task, Finals(url), name, data_hash, listener)
        run.seat = seat or run.seat
        return run

    @cached_property
    def legend(self) -> dict[str, Any]:
        """What of its data a checkpoint keeps."""
        return self.task.legend

    def row(self) -> dict[str, Any] | None:
        """Its row; None while it has none."""
        return self.finals.row(self.name)

    def check(self) -> None:
        """Look at the data, the test split too, before it is trained for.

        Raises:
            InputError: they are not what they should be, or too few for a step.
        """
        config = self.config
        all_data, workers = config.data == "all", config.crew.most
        self.task.check_step(self.task.facts(), config.recipe, "recipe", all_data=all_data, workers=workers)
        odd = self.task.check_test()
        _log.log(logging.WARNING if odd else logging.INFO, "%s", "; ".join((self.task.facts().line, *odd)))

    def finish(self, trial_id: int | None) -> dict[str, Any] | None:
        """Train what is left, and record the test score; None for a worker that is not the first of its team."""
        about = self.to_the_end()
        if not self._is_first:
            return None
        # the same training may have run elsewhere, and have ended first
        return self.row() or _record(about, trial_id, self)

    @property
    def _is_first(self) -> bool:
        return self.seat.team is None or self.seat.team.rank == 0

    def epochs_kept(self) -> int:
        """Of the checkpoint; 0 where there is none."""
        kept = self.kept()
        return 0 if kept is None else kept.epochs_done

    def kept(self) -> About | None:
        """What the checkpoint says; None where there is none."""
        header = self.finals.checkpoint_header(self.name)
        return None if header is None else about_of(header, self.where)

    def to_the_end(self) -> About:
        """Train what is left; the last checkpoint holds weights alone."""
        kept = self.finals.checkpoint(self.name) if self._is_first else None
        if self.seat.team is not None:  # what others see there may be of another moment
            kept = self.seat.team.bytes_of_first(kept)
        about, tensors = (None, {}) if kept is None else unpack(kept, self.where)
        if about is not None:
            self._check(about)
            if about.epochs_done == self.config.epochs:
                self.tensors = tensors
                return about
        return self._train(about, tensors)

    def _check(self, about: About) -> None:
        if (digest(about.config, about.data_hash), about.name) != (digest(self.config, self.data_hash), self.name):
            raise DataError(f"{self.where} is the checkpoint of another training ({about.name}); move it away")

    def _train(self, before: About | None, tensors: Mapping[str, Tensor]) -> About:
        from nao_ray.training.devices import device_name
        from nao_ray.training.fit import Start, fit

        config, objective, team = self.config, self._objective(), self.seat.team
        device = device_name(objective.device)
        network = _network(config, self.task)
        began = time.monotonic()
        spent, curve = (0.0, ()) if before is None else (before.wall_seconds, before.curve)
        started = datetime.now(UTC) if before is None else before.started_at
        about, trained = before, 0  # epochs here, those that were gone back too

        def keep(epoch: Epoch) -> None:
            nonlocal about, curve, trained
            scores, seconds = epoch.scores, time.monotonic() - began
            trained += 1
            curve = curve if scores is None else (*curve[: epoch.done - 1], scores.value)
            about = About(
                name=self.name,
                config=config,
                data_hash=self.data_hash,
                device=device if team is None else f"{team.size} x {device}",
                epochs_done=epoch.done,
                train_loss=epoch.loss,
                valid_value=None if scores is None else scores.value,
                valid_loss=None if scores is None else scores.loss,
                curve=curve,
                wall_seconds=spent + seconds,
                started_at=started,
            )
            if not self._is_first:
                return
            if epoch.done == config.epochs or epoch.done % config.checkpoint_every == 0:
                self._keep(about, {**epoch.state(), **objective.constants()})
            self.listener(self.step(about, seconds / trained))

        start = None if before is None else Start(before.epochs_done, tensors)
        plan = {"epochs": config.epochs, "seed": config.seed}
        measured = fit(network, objective, **plan, start=start, listener=keep, autotune=True, team=team)
        self.peak_memory_bytes = measured.peak_memory_bytes
        done = 0 if about is None else about.epochs_done
        if about is None or done < config.epochs:
            raise RunError(f"{self.name}: the loss of epoch {done + 1} is not finite; try another recipe or seed")
        return about

    def step(self, about: About, seconds: float) -> Step:
        """What is told after an epoch; each takes so many seconds."""
        metric, epochs = self.task.metric, self.config.epochs
        valid = None if about.valid_value is None else metric.words(metric.score(about.valid_value))
        return Step(about.epochs_done, epochs, about.train_loss, valid, seconds * (epochs - about.epochs_done))

    def _keep(self, about: About, state: Mapping[str, Tensor]) -> None:
        from nao_ray.training.averaging import settled
        from nao_ray.training.checkpoint import pack, with_legend

        if about.epochs_done == about.config.epochs:  # what only another epoch would need
            kept = {name: value for name, value in state.items() if name.partition(".")[0] not in _FOR_ANOTHER}
            state = settled(kept)
        self.tensors = with_legend(state, self.legend)
        if self.finals.has_row(self.name) or self.epochs_kept() > about.epochs_done:
            return  # by the same training elsewhere
        self.finals.write_checkpoint(self.name, pack(self.tensors, about.model_dump_json()))

    def _objective(self) -> Objective:
        from nao_ray.training.devices import pick_device
        from nao_ray.training.objective import Shard

        config, team, device = self.config, self.seat.team, pick_device(self.seat.device)
        recipe = config.recipe.of_all(config.crew.most)  # of a team that is short of some, too
        objective: Objective = self.task.objective(device, recipe, all_data=config.data == "all")
        return objective if team is None else objective.under(recipe, shard=Shard(team.rank, team.size))


def _network(config: TrainConfig, task: Task[Any]) -> nn.Module:
    skeleton, graph = _graph(config)
    with rng.torch_seeded(config.seed, "weights"):
        return skeleton.build(graph, task.shapes, config.size, config.recipe)


def _graph(config: TrainConfig) -> tuple[Skeleton[Any], ArchGraph]:
    space = config.make_space()
    return skeleton_of(space), space.lower(space.parse(config.genotype))


def trained_network(config: TrainConfig, task: Task[Any], tensors: Mapping[str, Tensor], where: str) -> nn.Module:
    """The network of a training with the weights among the tensors of its checkpoint.

    Raises:
        DataError: they are those of another network; `where` begins the message.
    """
    from nao_ray.training.checkpoint import check_shapes, part

    network, weights = _network(config, task), part(tensors, "network")
    try:
        check_shapes(weights, network.state_dict())
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    network.load_state_dict(weights)
    return network


def _test(
    config: TrainConfig, task: Task[Any], tensors: Mapping[str, Tensor], where: str, device: str
) -> tuple[nn.Module, Scores]:
    """The network, on its device, and its scores of the test split: the only reader of it."""
    from nao_ray.training.devices import pick_device

    network = trained_network(config, task, tensors, where)
    return network, task.test_scores(network, tensors, pick_device(device), config.recipe)


def _record(about: About, trial_id: int | None, run: Run) -> dict[str, Any]:
    """Read the test split, and write what came of the training; returns its row."""
    from nao_ray.service.training.ended import Ended, write

    try:
        network, scores = _test(run.config, run.task, run.tensors, run.where, run.seat.device)
    except DataError as error:  # it was sound when the training began
        raise DataError(
            f"{error}; the weights are kept in {run.where}, and the same command goes on from there"
        ) from None
    if not math.isfinite(scores.loss):
        raise RunError(f"{run.where}: the test loss is {scores.loss}")
    ended = Ended(about, run.config, run.task, network, run.tensors, scores, run.peak_memory_bytes, trial_id)
    return write(ended, run.finals)
