"""A full training by several processes, on one machine or on a cluster, by Ray Train's `TorchTrainer`.

Each worker computes its part of every batch and all move by the mean of their gradients (`training.group.Team`); the
first one also validates, keeps the checkpoints and reads the test split. Where one is lost all begin again from the
last checkpoint, and end as they would have: the order of the examples is in it, all else that is drawn is named by step
and worker. Ray Train brings workers together, tells them who they are, sees them die, and makes groups as large as
there is room for; what is kept is ours, in the pool's storage, so that its own folder is a temporary one.

Where the number of workers may change (`2..4`), batch and learning rate do not: they are those of the most workers, and
fewer take larger parts. So what is trained is comparable however machines came and went, and with synchronised batch
norm the same.

Differs from torch's DistributedDataParallel: gradients are averaged in one piece, after the backward pass; the networks
are small, and steps stay those of the `Trainer`. Buffers are not sent around.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any

import ray

from nao_ray.addresses import absolute
from nao_ray.config import TrainConfig, Workers
from nao_ray.errors import ConfigError, DataError, NaoRayError, RunError, StorageError
from nao_ray.service.code import SameCode
from nao_ray.service.hosting.cluster import ray_session
from nao_ray.service.hosting.requests import heed_signals
from nao_ray.service.jobs import marks
from nao_ray.service.training.about import About
from nao_ray.service.training.room import A_CPU, Each, Lack, check_room, lack
from nao_ray.service.training.train import Listener, Run, Seat
from nao_ray.training.failures import PeerLostError

_log = logging.getLogger(__name__)

_MOST_TRIES = 3
"""Groups that may break up one after the other without an epoch between them."""

_LOOK_SECONDS, _LOOK_SECONDS_REMOTE = 1.0, 10.0
"""Between two looks at the checkpoint, which tells how far the training is."""

_RESIZE_SECONDS = 60.0
"""Between two looks whether a team may be larger; then it begins again at the last checkpoint."""

_ROOM_SECONDS = 10.0
"""Between two looks whether the cluster still holds the fewest workers."""

_MEETING_SECONDS = 1800
"""How long a worker waits for the others in a step, while the first one validates and writes; of one that is dead Ray
Train knows sooner."""


def train_together(
    config: TrainConfig,
    url: str,
    label: str,
    *,
    each: Each = A_CPU,
    trial_id: int | None = None,
    listener: Listener = lambda _: None,
) -> dict[str, Any]:
    """As `train`, by the config's workers, in processes of their own.

    Args:
        config: what, how, and by how many; one worker trains as `train` does.
        url: as for `train`; all machines have to see it.
        label: as for `train`.
        each: what each worker has.
        trial_id: as for `train`.
        listener: told of epochs as they are seen in the checkpoint; not of all, where they are short.

    Raises:
        InputError: as `train`; or workers are not had here, or do not see the same storage.
        RunError: as `train`; or workers were lost again and again.
    """
    _check(config, each)
    run = Run.of(config, absolute(url), label, listener)
    row = run.row()
    if row is not None:
        return row
    run.check()
    crew, is_local = run.config.crew, _is_local()
    with (
        ray_session(Workers(count=crew.most, cpus=each.cpus, gpus=each.gpus)),
        heed_signals(at_once=True),
        _marked(run.finals.url) as mark,
        tempfile.TemporaryDirectory(prefix="nao-ray-train-") as folder,
    ):
        check_room(run.config, each, is_local=is_local)
        work = _Work(run.config, run.finals.url, label, trial_id, run.data_hash, each, mark)
        _Attempts(run, work, folder).to_the_end()
    row = run.row()
    if row is None:
        raise RunError(f"{run.name} has ended, and {run.finals.url} has no row of it: is it seen from all machines?")
    return row


def _check(config: TrainConfig, each: Each) -> None:
    if each.gpus > 1:
        raise ConfigError(f"--gpus {each.gpus:g}: a worker computes on one GPU; give more --workers")
    wants, has = config.device.partition(":")[0], "cuda" if each.gpus else "cpu"
    if wants not in ("auto", has):
        raise ConfigError(f"device is {config.device}, and each worker has {each.gpus:g} GPUs (--gpus)")


def _is_local() -> bool:
    """Whether the Ray to come is of this machine alone."""
    return not ray.is_initialized() and os.environ.get("RAY_ADDRESS") in (None, "", "local")


@contextmanager
def _marked(url: str) -> Iterator[str | None]:
    """What the first worker has to find, where that is not sure; a cluster of one node may grow."""
    mark = marks.leave(url, ("this", "another"))
    try:
        yield mark
    finally:
        marks.take_away(mark)


@dataclass(frozen=True)
class _Work:
    """What a worker does, wherever it is."""

    config: TrainConfig
    url: str
    label: str
    trial_id: int | None
    data_hash: str
    each: Each
    mark: str | None

    def __call__(self) -> None:
        """Train, as one of those whom Ray Train has brought together.

        Raises:
            NaoRayError: as `train`; or this machine's data or storage are others than the driver's.
        """
        from ray.train import get_context

        from nao_ray.training.group import Team

        context = get_context()
        rank, size = context.get_world_rank(), context.get_world_size()
        if rank == 0 and self.mark is not None and not os.path.exists(self.mark):
            raise ConfigError(
                f"{self.url} on {platform.node()} is not the folder that the training was begun with: give --out on "
                "storage that all machines see, or a URL"
            )
        team = Team(rank, size) if self.config.crew.most > 1 else None
        run = Run.of(self.config, self.url, self.label, seat=Seat(self._device(), team))
        if run.data_hash != self.data_hash:
            raise DataError(
                f"the data on {platform.node()} are others: their hash is {run.data_hash}, and {self.data_hash} where "
                "the training was begun"
            )
        run.finish(self.trial_id)

    def _device(self) -> str:
        if not self.each.gpus:
            return "cpu"
        from ray.train.torch import get_device

        from nao_ray.training.devices import require_cuda

        require_cuda("a GPU")
        return str(get_device())


class _Attempts:
    """Groups of workers, one after the other, until one has come to the end."""

    def __init__(self, run: Run, work: _Work, folder: str) -> None:
        self._run, self._folder = run, folder
        self._crew, self._each = run.config.crew, work.each
        self._work = SameCode.of(work)
        self._seconds = _LOOK_SECONDS_REMOTE if "://" in run.finals.url else _LOOK_SECONDS
        self._seen = run.epochs_kept()
        self._device: str | None = None
        self._lack: Lack | None = None
        self._looked_for_room = -math.inf

    def to_the_end(self) -> None:
        """Try again as long as there is an epoch between two failures.

        Raises:
            NaoRayError: what no other group would do better, or the last failure.
        """
        tries, begun = 0, self._seen
        while (error := self._attempt()) is not None:
            failures = _failures(error)
            _raise_own(failures)
            done = self._run.epochs_kept()
            tries, begun = (tries + 1 if done == begun else 1), done
            if tries == _MOST_TRIES:
                raise _last(failures, f"{self._run.name}: workers failed {tries} times after epoch {done}")
            _log.warning("workers were lost (%s): on from the end of epoch %d", _told(failures), done)

    def _attempt(self) -> BaseException | None:
        """What ended a group; None: it is done."""
        fit, ended = self._trainer().fit, Future[BaseException | None]()

        def work() -> None:
            try:
                fit()
                ended.set_result(None)
            except BaseException as error:
                ended.set_result(error)

        Thread(target=work, daemon=True).start()  # Ray Train would take this thread's signals for itself
        while True:
            try:
                return ended.result(self._seconds)
            except TimeoutError:
                pass
            finally:
                self._look()

    def _trainer(self) -> Any:  # noqa: ANN401
        os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        work, each, crew = self._work, self._each, self._crew

        def loop() -> None:
            work()

        logging.getLogger("ray.train").setLevel(logging.ERROR)
        resources = {"CPU": each.cpus} | ({"GPU": each.gpus} if each.gpus else {})
        # NCCL refuses two members on one GPU; what is on the host goes through gloo
        backend = "cpu:gloo,cuda:nccl" if each.gpus == 1 else "gloo"
        return TorchTrainer(
            loop,
            torch_config=TorchConfig(backend=backend, timeout_s=_MEETING_SECONDS),
            scaling_config=ScalingConfig(
                num_workers=crew.most if crew.least == crew.most else tuple(crew),
                elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
                use_gpu=each.gpus > 0,
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                name=self._run.name, storage_path=self._folder, failure_config=FailureConfig(max_failures=0)
            ),
        )

    def _look(self) -> None:
        """Tell of an epoch that has been kept, and by how many, and of workers that there is no room for."""
        self._look_for_room()
        try:
            kept = self._run.kept()
        except StorageError as error:  # it is the workers who need it
            _log.debug("the checkpoint cannot be read: %s", error)
            return
        if kept is not None and kept.epochs_done != self._seen:
            self._seen = kept.epochs_done
            if self._device not in (None, kept.device):
                _log.warning("epoch %d by %s, those before by %s", kept.epochs_done, kept.device, self._device)
            self._device = kept.device
            self._run.listener(self._run.step(kept, _seconds(kept)))

    def _look_for_room(self) -> None:
        """Once each time that there is too little, as where a machine is lost; Ray Train waits without a word."""
        now = time.monotonic()
        if now - self._looked_for_room < _ROOM_SECONDS:
            return
        before, self._lack, self._looked_for_room = self._lack, lack(self._run.config, self._each), now
        if self._lack is not None and before is None:
            _log.warning("%s", self._lack)


def _seconds(about: About) -> float:
    """Of an epoch, in the mean."""
    return about.wall_seconds / about.epochs_done


def _failures(error: BaseException) -> list[BaseException]:
    """By the workers' rank; those last that follow from another's."""
    by_rank: dict[int, BaseException] = getattr(error, "worker_failures", {}) or {0: error}
    found = [by_rank[rank] for rank in sorted(by_rank)]
    return sorted(found, key=lambda each: isinstance(each, PeerLostError))


def _raise_own(failures: list[BaseException]) -> None:
    """Raise what no other group would do better."""
    for error in failures:
        if isinstance(error, NaoRayError) and not isinstance(error, StorageError):
            raise error


def _last(failures: list[BaseException], where: str) -> NaoRayError:
    first = failures[0]
    if isinstance(first, NaoRayError):
        return first
    return RunError(f"{where}: {_told(failures)}; the same command goes on from there")


def _told(failures: list[BaseException]) -> str:
    """In a line."""
    first = getattr(failures[0], "health_check_failure", failures[0])  # what Ray says of a worker, without Ray Train
    return f"{type(first).__name__}: {' '.join(str(first).split())}"[:300]
