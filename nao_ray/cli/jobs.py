"""``nao-ray submit``, ``status``, ``logs`` and ``stop``: searches and full trainings as jobs of a Ray cluster."""

from __future__ import annotations

import json
import time
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from nao_ray.cli import output
from nao_ray.cli.handed import INTERRUPTED, Handed, follow_job
from nao_ray.cli.progress import format_seconds
from nao_ray.errors import ClusterError, ConfigError, NaoRayError

if TYPE_CHECKING:
    from nao_ray.service.jobs.client import JobView

_PATIENCE_SECONDS = 5.0  # of `status` with the pools
_UNKNOWN: dict[str, object] = dict.fromkeys(("trials", "epochs", "best", "left"))

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Of the cluster's dashboard; default http://127.0.0.1:8265, or RAY_API_SERVER_ADDRESS.",
        metavar="http://HOST:PORT",
    ),
]
Job = Annotated[str | None, typer.Argument(help="Id or name of a job.", metavar="[JOB]")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(submit)
    app.command()(status)
    app.command()(logs)
    app.command()(stop)
    app.command("end-detached", hidden=True)(end_detached)


def submit(
    words: Annotated[
        list[str],
        typer.Argument(
            help="Path of a YAML config, or the name of a preset; with --train what follows `nao-ray train`, after --.",
            metavar="CONFIG",
        ),
    ],
    pool: Annotated[
        str | None,
        typer.Option("--pool", help="Folder or URL of the pool, for the cluster too; default pools/<name>, from here."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a setting of the config; often.", metavar="SECTION.KEY=VALUE"),
    ] = None,
    address: Address = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="The search outlives the job: only its end or `stop` ends it.")
    ] = False,
    follow: Annotated[bool, typer.Option(help="Follow the log, and leave with the exit code of the search.")] = True,
    installed: Annotated[
        bool, typer.Option("--installed", help="Carry no code: nao_ray is installed on the cluster.")
    ] = False,
    python: Annotated[str, typer.Option(help="The Python of the cluster's machines.", metavar="PATH")] = "python",
    trains: Annotated[
        bool, typer.Option("--train", help="A full training instead, by one worker unless its --workers says more.")
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """Start a search, or a full training, as a job of a Ray cluster, or go on with it. It is `search`, over there.

    `submit --train -- POOL:best --recipe NAME --workers 4 --gpus 1` is `train`, over there.
    """
    if trains:
        from nao_ray.cli.submitted import submit_training

        alien = {"--pool": pool, "--set": settings, "--detach": detach}
        training = submit_training(words, alien, address, python, installed=installed)
        raise typer.Exit(training.tell("folder", follow=follow, as_json=as_json))
    (config, *rest) = words
    if rest:
        raise ConfigError(
            f"one CONFIG is handed in, and there is {rest[0]} too; a full training wants --train before it"
        )
    from nao_ray.service.jobs.searching import prepare

    job = prepare(config, pool, tuple(settings or ()), address, python, detach=detach)
    try:
        job_id = job.hand_in(package=not installed)
    except KeyboardInterrupt:
        typer.echo(f"nao-ray: interrupted; nao-ray status {job.name} tells whether the job was handed in", err=True)
        raise typer.Exit(INTERRUPTED) from None
    handed = Handed(job.jobs, job_id, job.url, job.carries, job.size)
    code = handed.tell("pool", follow=follow, detach=detach, as_json=as_json)
    if follow and code != INTERRUPTED:  # else the job may not have looked yet
        job.take_mark_away()
    raise typer.Exit(code)


def status(
    job: Job = None,
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON: one object per job.")] = False,
) -> None:
    """List the jobs of nao-ray on a cluster, or show one.

    Trials done, the best score and the time left are those of its pool, where that can be read from here in 5 s; of a
    full training epochs, the best validation and the time left are those of its last checkpoint.
    """
    from nao_ray.service.jobs.client import connect

    jobs = connect(address)
    views = jobs.all() if job is None else [jobs.find(job)]
    rows = _rows(views)
    if as_json:
        typer.echo(json.dumps(rows))
    elif not views:
        typer.echo(f"no jobs of nao-ray at {jobs.address}")
    else:
        from nao_ray.report.grid import grid

        cells = [["-" if value is None else str(value) for value in row.values()] for row in rows]
        typer.echo(grid(list(rows[0]), cells))


def logs(
    job: Job = None,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Until the job is over; leave with its exit code.")
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """Show what a job has said; without JOB, the last one."""
    from nao_ray.service.jobs.client import connect

    jobs = connect(address)
    view = jobs.find(job)
    if follow and as_json:
        raise ConfigError("choose one of --follow and --json")
    if as_json:
        typer.echo(json.dumps({"job": view.job_id, "log": jobs.log(view.job_id)}))
        return
    if follow:
        raise typer.Exit(follow_job(jobs, view.job_id, detach=view.is_detached))
    typer.echo(jobs.log(view.job_id), nl=False)


def stop(
    job: Annotated[
        str | None, typer.Argument(help="Id or name of a job; with --drain also a pool.", metavar="[JOB]")
    ] = None,
    address: Address = None,
    drain: Annotated[
        bool, typer.Option("--drain", help="Let the trials that run end first; nothing further begins.")
    ] = False,
    within: Annotated[
        float | None, typer.Option(help="With --drain: end after so long all the same.", metavar="SECONDS", min=0)
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """End a job, with its search if that is detached.

    The pool is resumable.
    """
    if within is not None and not drain:
        raise ConfigError("--within goes with --drain")
    if drain:
        from nao_ray.cli.ask import tell
        from nao_ray.service.hosting.asking import drain as ask_to_drain

        pool = _pool_of(job, address)
        tell(pool, ask_to_drain(pool, within), as_json)
        return
    from nao_ray.service.jobs.client import connect, ending

    view = connect(address).stop(job)
    about = {"job": view.job_id, "ending": ending(view)}
    typer.echo(json.dumps(about) if as_json else ": ".join(about.values()))


def _pool_of(job: str | None, address: str | None) -> str:
    """The pool that a job searches, or that was named itself."""
    from nao_ray.pool import PoolReader
    from nao_ray.service.jobs.client import connect

    if job is not None and PoolReader.exists(job):
        return job
    view = connect(address).find(job)
    if view.pool is None or not PoolReader.exists(view.pool):
        raise ClusterError(
            f"the pool {view.pool} of {view.job_id} is not seen from here, and through it a search is drained: run the "
            "command where it is"
        )
    return view.pool


def end_detached(name: str) -> None:
    """On the cluster: end a detached search."""
    from nao_ray.service.hosting.detached import end

    end(name)


def _rows(views: list[JobView]) -> list[dict[str, object]]:
    """Of each job a row. A pool whose storage is slow, or tries again and again, is not waited for."""
    found: dict[str, dict[str, object]] = {}

    def look(view: JobView) -> None:
        found[view.job_id] = _progress(view)

    threads = [Thread(target=look, args=(view,), daemon=True) for view in views]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _PATIENCE_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return [_row(view, found.get(view.job_id, _UNKNOWN)) for view in views]


def _row(view: JobView, progress: dict[str, object]) -> dict[str, object]:
    return {
        "job": view.job_id,
        "status": view.status,
        "exit_code": view.exit_code,
        "detached": "yes" if view.is_detached else "no",
        "started_at": None if view.started_at is None else f"{view.started_at:%Y-%m-%d %H:%M:%S}",
        "ended_at": None if view.ended_at is None else f"{view.ended_at:%Y-%m-%d %H:%M:%S}",
        **progress,
        "pool": view.pool or view.folder,
    }


def _progress(view: JobView) -> dict[str, object]:
    """How its search or training stands, where the pool, or the training's folder, can be read from here."""
    from nao_ray.pool import PoolReader, Watch

    if view.folder is not None and view.training is not None:
        return _progress_of_training(view, view.folder, view.training)
    try:
        seen = Watch(view.pool).look() if view.pool and PoolReader.exists(view.pool) else None
    except NaoRayError:
        seen = None
    if seen is None:
        return _UNKNOWN
    total = "" if seen.budget_trials is None else f"/{seen.budget_trials}"
    left = None if view.is_over or not seen.eta_seconds else format_seconds(seen.eta_seconds)
    best = None if seen.best is None or seen.best.score is None else seen.metric.words(seen.best.score)
    return {"trials": f"{seen.finished}{total}", "epochs": None, "best": best, "left": left}


def _progress_of_training(view: JobView, folder: str, mark: str) -> dict[str, object]:
    from nao_ray.service.training.standing import Trainings

    try:
        seen = Trainings(folder).find(mark)
    except NaoRayError:
        seen = None
    if seen is None:
        return _UNKNOWN
    best = None if seen.best is None else seen.metric.words(seen.best)
    left = None if view.is_over or not seen.seconds_left else format_seconds(seen.seconds_left)
    return {"trials": None, "epochs": f"{seen.done}/{seen.epochs}", "best": best, "left": left}
