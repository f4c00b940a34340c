"""A job that was handed in: what is said of it, and its log until it is over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from nao_ray.errors import ClusterError

if TYPE_CHECKING:
    from nao_ray.service.jobs.client import Jobs

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Handed:
    """A job that was handed in."""

    jobs: Jobs
    job_id: str
    url: str
    """Of the pool, or of the training's folder."""
    carries: Sequence[str]
    size: int
    """Bytes carried."""

    def tell(self, place: str, *, follow: bool, detach: bool = False, as_json: bool = False) -> int:
        """Say so, and follow its log if that is wanted; returns the exit code.

        Args:
            place: what `url` is.
            follow: until the job is over.
            detach: its search outlives it.
            as_json: one object at the end, and the log on stderr.
        """
        address = self.jobs.address
        if not as_json:
            *others, last = self.carries
            what = f"{', '.join(others)} and {last}" if others else last
            about = f"job     {self.job_id} at {address}\n{place:<8}{self.url}"
            typer.echo(f"{about}\ncarries {what}, {max(1, round(self.size / 1000))} kB")
        code = follow_job(self.jobs, self.job_id, detach=detach, quiet=as_json) if follow else None
        if as_json:
            known = {"job": self.job_id, "address": address, "pool": self.url}
            typer.echo(json.dumps({**known, "carries": list(self.carries), "exit_code": code}))
        return code or 0


def follow_job(jobs: Jobs, job_id: str, *, detach: bool = False, quiet: bool = False) -> int:
    """A job's log until it is over, on stderr if stdout is to be quiet, and its exit code."""
    from nao_ray.service.jobs.client import ending, exit_code

    try:
        view = jobs.follow(job_id, lambda text: typer.echo(text, nl=False, err=quiet))
    except KeyboardInterrupt:
        where = f"{job_id} --address {jobs.address}"
        typer.echo(
            f"\nnao-ray: the job goes on; nao-ray logs {where} -f follows it, nao-ray stop {where} ends it", err=True
        )
        return INTERRUPTED
    if view.status == "SUCCEEDED":
        return 0
    typer.echo(f"nao-ray: {job_id}: {ending(view)}", err=True)
    try:
        goes_on = detach and jobs.find(job_id).status == "DETACHED"
    except ClusterError:
        goes_on = False
    if goes_on:
        typer.echo("nao-ray: its detached search goes on; the same command watches it again", err=True)
    return exit_code(view)
