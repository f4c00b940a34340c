"""Jobs on a Ray cluster, through the HTTP address of its dashboard: hand in, follow, look up, stop.

Jobs of one config and pool share a name (`packing.job_name`); each has an id of its own, the name and a number. The
pool is the only state: whatever ends a job, the next one of the same name goes on. So nothing here is decided by the
status that Ray gives a job, which stays RUNNING where a head was lost; the pool's lease refuses a second driver.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from nao_ray.errors import ClusterError, RunError
from nao_ray.service.jobs import server
from nao_ray.service.jobs.server import UnknownJobError, UnreachableError, ask, reason

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

T = TypeVar("T")

STOP_SECONDS = 30
"""What a driver gets to write down what has ended, instead of Ray's 3 s."""

_MARK = "nao_ray"  # in the metadata of our jobs
_SUBMISSION = "submission"  # likewise: drawn anew for each, by which it is known again
_PATIENCE_SECONDS = 60.0  # with a job server that does not answer, or has no agent yet
_POLL_SECONDS = 1.0
_CODES = (0, 1, 2, 130)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as the cluster knows it."""

    job_id: str
    name: str
    """Shared by all jobs of one config and pool."""
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED; DETACHED: only its detached search runs."""
    exit_code: int | None
    pool: str | None
    folder: str | None
    """Of a full training: where it keeps its checkpoints."""
    training: str | None
    """What tells it from others there, see `training.standing.mark_of`; None: it is a search."""
    is_detached: bool
    """Handed in with ``--detach``."""
    is_searching: bool
    """Its detached search is there."""
    started_at: datetime | None
    ended_at: datetime | None
    message: str
    entrypoint: str
    working_dir: str | None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")


class Jobs:
    """The jobs of one cluster."""

    def __init__(
        self,
        client: JobSubmissionClient,
        address: str,
        searching: Callable[[], frozenset[str]] = frozenset,
        nodes: Callable[[], list[str]] = list,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Made by `connect`; in tests with a stand-in for Ray's client.

        Args:
            client: a `ray.job_submission.JobSubmissionClient`.
            address: of the cluster, for messages.
            searching: names of the detached searches that are there.
            nodes: IP addresses of the nodes that are alive.
            sleep: pauses for some seconds.
            clock: seconds.
        """
        self._client, self.address, self._searching, self._nodes = client, address, searching, nodes
        self._sleep, self._clock = sleep, clock

    # -- looking up ---------------------------------------------------------------------------------------

    def all(self) -> list[JobView]:
        """Our jobs, oldest first."""
        searching = self._ask(self._searching)
        found = [
            job for job in self._ask(self._client.list_jobs) if job.submission_id and _MARK in (job.metadata or {})
        ]
        found.sort(key=lambda job: (job.start_time or 0, len(job.submission_id), job.submission_id))
        last = {_name(job): job.submission_id for job in found}
        return [_view(job, _name(job) in searching and last[_name(job)] == job.submission_id) for job in found]

    def find(self, job: str | None) -> JobView:
        """A job by its id, or the last one of a name, with or without its number; None: the last one of all.

        Raises:
            ClusterError: there is none.
        """
        known = self.all()
        for is_meant in (
            lambda view: job in (None, view.job_id),
            lambda view: view.name == job,
            lambda view: view.name.rpartition("-")[0] == job,  # as its config is called
        ):
            if found := [view for view in known if is_meant(view)]:
                return found[-1]
        names = ", ".join(dict.fromkeys(view.name for view in known)) or "none"
        raise ClusterError(f"{self.address} has no job {job or 'of nao-ray'}; known: {names}")

    def nodes(self) -> list[str]:
        """IP addresses of the nodes that are alive."""
        return self._ask(self._nodes)

    def _view_of(self, job_id: str) -> JobView:
        return _view(self._ask(lambda: self._client.get_job_info(job_id)), is_searching=False)

    # -- handing in ---------------------------------------------------------------------------------------

    def submit(
        self,
        name: str,
        entrypoint: str,
        working_dir: str | Path,
        metadata: Mapping[str, str],
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Hand in a job under the next id of its name, and return that. `describe` makes the metadata of a search.

        Once: where the answer is lost on the way, the job is looked for before it is handed in again.

        Raises:
            ClusterError: the cluster does not take it.
            UnreachableError: it does not answer; where a job may have been handed in, the message says so.
        """
        from nao_ray.service.jobs.packing import next_job_id  # knows configs, which `status` does not need

        give_up, marked = self._clock() + _PATIENCE_SECONDS, {**metadata, _SUBMISSION: secrets.token_hex(8)}
        taken: set[str] = set()
        job_id = ""
        while True:
            try:
                known = self._ask(self._client.list_jobs)
                if any(_is_same_submission(job, marked) for job in known):
                    return job_id
                taken |= {job.submission_id for job in known if job.submission_id}
                job_id = next_job_id(name, taken)
                self._ask(partial(self._submit, job_id, entrypoint, working_dir, marked, variables))
            except UnreachableError as error:
                if not job_id:
                    raise
                if self._clock() > give_up:
                    raise UnreachableError(f"{error}; nao-ray status {name} tells whether it took the job") from None
            except ClusterError as error:
                if "already exists" in str(error):  # ours, another's who was quicker, or Ray remembers a deleted job
                    if _is_same_submission(self._found(job_id), marked):
                        return job_id
                    taken.add(job_id)
                elif "No available agent" not in str(error) or self._clock() > give_up:
                    raise
            else:
                return job_id
            self._sleep(_POLL_SECONDS)  # the agent of a new head starts after its job server

    def _found(self, job_id: str) -> Any:  # noqa: ANN401
        """A job as Ray tells it; None: it cannot be said."""
        with suppress(UnknownJobError, UnreachableError):
            return self._ask(lambda: self._client.get_job_info(job_id))
        return None

    def _submit(
        self,
        job_id: str,
        entrypoint: str,
        working_dir: str | Path,
        metadata: Mapping[str, str],
        variables: Mapping[str, str],
    ) -> None:
        self._client.submit_job(
            entrypoint=entrypoint,
            submission_id=job_id,
            runtime_env={
                "working_dir": str(working_dir),
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **variables},
            },
            metadata=dict(metadata),
        )

    # -- following ----------------------------------------------------------------------------------------

    def log(self, job_id: str) -> str:
        """What a job has said so far."""
        text: str = self._ask(lambda: self._client.get_job_logs(job_id))
        return text

    def follow(self, job_id: str, write: Callable[[str], object]) -> JobView:
        """Write a job's log as it grows, until the job is over.

        Raises:
            RunError: the job is lost, or the job server does not answer any more and the job may go on.
        """
        written = 0
        silent_since: float | None = None

        async def tail() -> None:
            nonlocal written, silent_since
            position = 0  # a new connection tells the log from its beginning
            async for text in self._client.tail_job_logs(job_id):
                silent_since = None
                if (end := position + len(text)) > written:
                    write(text[max(written - position, 0) :])
                    written = end
                position = end

        while True:
            try:
                self._ask(lambda: asyncio.run(tail()))
                view = self._view_of(job_id)
                silent_since = None
                if view.is_over:
                    return view
            except UnreachableError as error:
                silent_since = self._clock() if silent_since is None else silent_since
                if self._clock() - silent_since > _PATIENCE_SECONDS:
                    raise RunError(f"{error}; the job may go on: nao-ray logs {job_id} --follow") from None
            except UnknownJobError as error:
                raise RunError(f"{error}; the same command goes on") from None
            self._sleep(_POLL_SECONDS)

    # -- stopping -----------------------------------------------------------------------------------------

    def stop(self, job: str | None) -> JobView:
        """End a job, its detached search too; the pool stays, resumable.

        Raises:
            ClusterError: there is no such job, or several run and none is named.
            RunError: it does not end.
        """
        running = [view for view in self.all() if not view.is_over]
        if job is None and len(running) != 1:
            names = ", ".join(view.job_id for view in running)
            what = f"{len(running)} jobs run, name the one to stop: {names}" if running else "no job of nao-ray runs"
            raise ClusterError(f"{self.address}: {what}")
        view = running[0] if job is None else self.find(job)
        if view.is_searching:
            self._end_search(view)
        if view.status in ("PENDING", "RUNNING"):
            self._ask(lambda: self._client.stop_job(view.job_id))
        give_up = self._clock() + STOP_SECONDS + _PATIENCE_SECONDS
        while not (now := self._view_of(view.job_id)).is_over:
            if self._clock() > give_up:
                raise RunError(f"{view.job_id} does not end; ray job stop, or the end of its cluster, remain")
            self._sleep(_POLL_SECONDS)
        # another job watches it, or this one was just about to start it
        if goes_on := view.is_detached and view.name in self._ask(self._searching):
            self._end_search(view)
        if not goes_on and (view.is_over or now.status == "SUCCEEDED"):
            return now
        return replace(now, status="STOPPED")

    def _end_search(self, view: JobView) -> None:
        """From within the cluster, by a small job: the actor cannot be reached through the dashboard."""
        python = shlex.split(view.entrypoint)[0]
        command = shlex.join([python, "-m", "nao_ray", "end-detached", view.name])
        job_id = self.submit(f"stop-{view.name}", command, view.working_dir or ".", {})
        said: list[str] = []
        ended = self.follow(job_id, said.append)
        if exit_code(ended) != 0 and view.name in self._ask(self._searching):
            raise RunError(f"cannot end the detached search {view.name}: {''.join(said).strip()[-300:]}")

    def _ask(self, question: Callable[[], T]) -> T:
        return ask(question, self.address)


def connect(address: str | None = None) -> Jobs:
    """The jobs of the cluster whose dashboard has this address; None: what Ray's variables say, or this machine's.

    Raises:
        ClusterError: there is no job server, or it refuses the token.
    """
    return Jobs(*server.connect(address))


def describe(name: str, pool_url: str, *, detach: bool) -> dict[str, str]:
    """The metadata by which the job of a search is known again; a job without them is not listed."""
    return {_MARK: name, "pool": pool_url} | ({"detached": "yes"} if detach else {})


def describe_training(name: str, url: str, mark: str) -> dict[str, str]:
    """As `describe`, of a full training, which keeps its checkpoints at `url` and is known there by its `mark`."""
    return {_MARK: name, "folder": url, "training": mark}


def exit_code(view: JobView) -> int:
    """A finished job's exit code: 0, 1, 2 or 130, as the command line's."""
    if view.status == "SUCCEEDED":
        return 0
    if view.status == "STOPPED":
        return 130
    return view.exit_code if view.exit_code in _CODES else 1


def ending(view: JobView) -> str:
    """A finished job in a few words."""
    words = {"SUCCEEDED": "done", "STOPPED": "stopped; the same command goes on"}
    if view.status in words:
        return words[view.status]
    if view.exit_code == 130:
        return words["STOPPED"]
    if view.exit_code == 127:
        return f"the cluster has no program {shlex.split(view.entrypoint)[0]}: give --python"
    if view.exit_code is None:
        return f"failed: {reason(view.message)}; the same command goes on"
    if view.exit_code < 0 or view.exit_code > 130:
        number = -view.exit_code if view.exit_code < 0 else view.exit_code - 128
        return f"killed by signal {number}; the same command goes on"
    return f"ended with exit code {view.exit_code}"


def _is_same_submission(job: Any, metadata: Mapping[str, str]) -> bool:  # noqa: ANN401
    return (getattr(job, "metadata", None) or {}).get(_SUBMISSION) == metadata[_SUBMISSION]


def _name(job: Any) -> str:  # noqa: ANN401
    return str(job.metadata[_MARK])


def _view(job: Any, is_searching: bool) -> JobView:  # noqa: ANN401
    metadata = job.metadata or {}
    status = str(getattr(job.status, "value", job.status))
    over = status in ("SUCCEEDED", "FAILED", "STOPPED")
    return JobView(
        job_id=job.submission_id,
        name=metadata.get(_MARK, job.submission_id),
        status="DETACHED" if over and is_searching else status,
        exit_code=job.driver_exit_code,
        pool=metadata.get("pool"),
        folder=metadata.get("folder"),
        training=metadata.get("training"),
        is_detached=metadata.get("detached") == "yes",
        is_searching=is_searching,
        started_at=_time(job.start_time),
        ended_at=_time(job.end_time),
        message=job.message or "",
        entrypoint=job.entrypoint,
        working_dir=(job.runtime_env or {}).get("working_dir"),
    )


def _time(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)
