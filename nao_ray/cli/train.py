"""``nao-ray finalists``, ``train`` and ``evaluate``: from what a search found to a test score."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nao_ray.addresses import extended
from nao_ray.cli import output
from nao_ray.cli.handed import INTERRUPTED
from nao_ray.cli.source import find_space, find_trial, names_trial

if TYPE_CHECKING:
    from nao_ray.config import TrainConfig
    from nao_ray.service.training.train import Step
    from nao_ray.service.training.tuning import Tuning

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a setting; may be given often.", metavar="[SECTION.]KEY=VALUE"),
]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        help="Train by so many processes of Ray Train; 2..4: as many of them as there is room for, now and later.",
        metavar="N|N..M",
    ),
]
Cpus = Annotated[
    float | None, typer.Option("--cpus", help="Of each worker, also torch's threads; default 1.", min=0.001)
]
Gpus = Annotated[
    float | None, typer.Option("--gpus", help="Of each worker: 0, 1 or a share; default 0.", min=0.0, max=1.0)
]
AsJson = output.AsJson


class Scheduler(StrEnum):
    """Of what finalists are tried under."""

    GRID = "grid"
    RANDOM = "random"
    ASHA = "asha"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(finalists)
    app.command()(train)
    app.command()(evaluate)


def finalists(
    url: Annotated[str, typer.Argument(help="Folder or URL of the pool of a search.", metavar="POOL")],
    count: Annotated[int, typer.Option("-n", "--count", help="How many.", min=1)] = 5,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="Size and recipe of this full training, or a YAML file; default: the search's, 5 times as long.",
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--pool", help="Pool of the finalists; default POOL-finalists.", metavar="DIR")
    ] = None,
    settings: Settings = None,
    with_control: Annotated[
        bool, typer.Option("--with-control", help="Cells of a random control may be among them.")
    ] = False,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            help="Values of a setting of the recipe to be tried, in Ray Tune; may be given often.",
            metavar="SETTING=VALUE,VALUE,...",
        ),
    ] = None,
    scheduler: Annotated[
        Scheduler,
        typer.Option(
            "--scheduler",
            help="With --space: grid, all combinations to their end; random, --samples of them; asha, which ends "
            "trainings that are behind.",
        ),
    ] = Scheduler.GRID,
    samples: Annotated[
        int | None, typer.Option("--samples", help="Combinations drawn for each finalist.", min=1)
    ] = None,
    in_process: Annotated[bool, typer.Option("--in-process", help="Without Ray, one at a time.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the best of a pool again, longer, and rank them.

    Each alone, on the workers; validation ranks. The pool itself is not changed. With --space each is trained under
    several settings of the recipe. The same command goes on with what was cut off.
    """
    from nao_ray.cli.progress import Progress
    from nao_ray.pool import PoolReader
    from nao_ray.service.hosting.run import run
    from nao_ray.service.training.finalists import finalists_config

    tuning = _tuning(space, scheduler, samples, in_process=in_process)
    pool = PoolReader.open(url)
    config = finalists_config(pool, count, recipe, tuple(settings or ()), with_control=with_control, tuning=tuning)
    target = out or extended(url, "-finalists")
    try:
        with Progress(config.name) as progress:
            if tuning is None or in_process:
                run(config, target, listener=progress, in_process=in_process)
            else:
                from nao_ray.service.tune.finalists import tune_finalists

                tune_finalists(config, target, stops_early=scheduler is Scheduler.ASHA, listener=progress)
    except KeyboardInterrupt:
        typer.echo("nao-ray: interrupted; the same command goes on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _winner(target, count, url, recipe or config.make_task().full_training, as_json=as_json)


def _tuning(space: list[str] | None, scheduler: Scheduler, samples: int | None, *, in_process: bool) -> Tuning | None:
    """What is tried, of the options that say so."""
    from nao_ray.errors import ConfigError
    from nao_ray.service.training.tuning import Tuning

    if not space:
        if scheduler is not Scheduler.GRID or samples is not None:
            raise ConfigError("--scheduler and --samples are of --space, which says what is tried")
        return None
    if scheduler is Scheduler.RANDOM and samples is None:
        raise ConfigError("--scheduler random: --samples says how many combinations are drawn for each finalist")
    if scheduler is Scheduler.GRID and samples is not None:
        raise ConfigError("--samples: a grid has all combinations; take --scheduler random or asha")
    if scheduler is Scheduler.ASHA and in_process:
        raise ConfigError("--scheduler asha compares trainings that run side by side: leave out --in-process")
    return Tuning.parse(space, samples)


def _winner(target: str, count: int, url: str, recipe: str, *, as_json: bool) -> None:
    """Say which is the best finalist, and how it is trained in full."""
    from nao_ray.errors import RunError
    from nao_ray.pool import PoolReader
    from nao_ray.report.text import best_text

    pool = PoolReader.open(target)
    best = pool.best(1)
    if best.empty:
        raise RunError(f"no finalist of {url} was completed; nao-ray pool {target} lists what went wrong")
    if as_json:
        output.tell_searched(pool, None)
        return
    typer.echo(best_text(pool, count))
    words = ["nao-ray", "train", f"{target}:best", "--recipe", recipe]
    settings = best["settings"].iloc[0]
    for name, value in json.loads(settings if isinstance(settings, str) else "{}").items():
        words += ["--set", f"recipe.{name}={json.dumps(value)}"]
    typer.echo(f"pool    {target}\nwinner  trial {best['trial_id'].iloc[0]}\nnext    {shlex.join(words)}")


def train(
    what: Annotated[
        str,
        typer.Argument(
            help="A genotype (one quoted text, or a published name), or POOL:best, or POOL:ID of a trial.",
            metavar="GENOTYPE|POOL:best|POOL:ID",
        ),
    ],
    recipe: Annotated[
        str,
        typer.Option("--recipe", help="Name of a full training, e.g. nao_cifar10 or short, or a YAML file."),
    ],
    space: Annotated[
        str | None, typer.Option("--space", help="Search space of a genotype given as text, or package.module:Class.")
    ] = None,
    dialect: Annotated[str | None, typer.Option("--dialect", help="Notation of the text.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="What to train on; default: the pool's task.")] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="Folder or URL; default: the pool, or the folder trained.")
    ] = None,
    workers: Workers = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Train an architecture in full, then read the test split, once. The same command goes on with it.

    With --workers by several processes of Ray Train, each on its part of every batch: the recipe's batch and rate are
    those of all together; where its per_worker is true, as published for 224x224 pixels, each one's: 128 n and 0.1 n.
    Batch norm statistics are each worker's own, and those of the first are kept; with --set
    recipe.sync_batch_norm=true they are those of the whole batch. Without --workers in this process.
    """
    from nao_ray.cli.progress import Progress, format_seconds
    from nao_ray.pool import Finals
    from nao_ray.service.hosting.requests import heed_signals

    source, config = planned(what, recipe, space, dialect, task, workers, settings)
    place = out or source.pool or "trained"
    train_fully = _trainer(config, workers, cpus, gpus)
    try:
        with Progress(source.label) as progress, heed_signals(at_once=True):
            row = train_fully(
                config,
                place,
                source.label,
                trial_id=source.trial_id,
                listener=lambda step: progress.show(step_line(step), step.done, step.epochs),
            )
    except KeyboardInterrupt:
        typer.echo("nao-ray: interrupted; the same command goes on from the last checkpoint", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps(row, default=str))
        return
    url = Finals(place).url
    metric = config.make_task().metric
    valid = row[metric.column]
    validation = "" if valid is None else f", validation {metric.words(metric.score(valid))}"
    typer.echo(f"test        {metric.told(row)}{validation}")
    typer.echo(f"trained     {row['epochs']} epochs in {format_seconds(row['wall_seconds'])}")
    typer.echo(f"parameters  {row['num_params']:,}, multiply-adds {row['macs']:,}")
    for name, told in _costs(row, config.make_task().shapes.example).items():
        typer.echo(f"{name:<11} {told}")
    typer.echo(f"checkpoint  {extended(url, '/' + row['checkpoint'])}")
    typer.echo(f"row         {extended(url, '/final/' + row['name'] + '.parquet')}")


def planned(
    what: str,
    recipe: str,
    space: str | None,
    dialect: str | None,
    task: str | None,
    workers: str | None,
    settings: list[str] | None,
) -> tuple[Source, TrainConfig]:
    """What a command line of `train` trains, and how.

    Raises:
        InputError: there is no such thing, or it does not fit.
    """
    from nao_ray.config import TrainConfig
    from nao_ray.errors import ConfigError

    source = _of_pool(what) if names_trial(what) and space is None else _of_text(what, space, dialect)
    if task is not None:
        source.facts["task"] = {"name": task}
    given = tuple(settings or ()) if workers is None else (*(settings or ()), f"workers={workers}")
    try:
        return source, TrainConfig.make(recipe, source.facts, given)
    except ConfigError as error:
        wrong = str(error).removeprefix(f"--set workers={workers}: ")
        if workers is None or not wrong.startswith("workers: "):
            raise
        raise ConfigError(f"--workers {workers}: {wrong.removeprefix('workers: ')}", error.key) from None


def _trainer(config: TrainConfig, workers: str | None, cpus: float | None, gpus: float | None) -> Any:  # noqa: ANN401
    """What trains: this process, or workers of Ray Train where any are asked for."""
    if config.workers == "1" and (workers, cpus, gpus) == (None, None, None):
        from nao_ray.service.training import train as alone

        return alone.train
    from nao_ray.service.training.room import Each
    from nao_ray.service.training.together import train_together

    each = Each(cpus=1.0 if cpus is None else cpus, gpus=0.0 if gpus is None else gpus)
    return partial(train_together, each=each)


def _costs(row: dict[str, Any], example: str) -> dict[str, str]:
    from nao_ray.training import cost

    return cost.told(row, example)


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="A file that train has written.", metavar="CHECKPOINT")],
    settings: Settings = None,
    as_json: AsJson = False,
    program: Annotated[
        str | None,
        typer.Option("--as", help="The file is of another program: darts, Liu et al.'s code.", metavar="PROGRAM"),
    ] = None,
    genotype: Annotated[
        str | None, typer.Option("--genotype", help="With --as: the cells of its network; one text, or a name.")
    ] = None,
    space: Annotated[str | None, typer.Option("--space", help="With --as: of a genotype given as text.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="With --as: whose test split.")] = None,
) -> None:
    """Read the test split with a checkpoint of train.

    --set task.path=... tells where the data are now. With --as the file holds weights that another program has trained,
    whose size follows from them.
    """
    foreign = {"--genotype": genotype, "--space": space, "--task": task}
    if program is not None or any(foreign.values()):
        from nao_ray.cli.imported import evaluate_foreign

        evaluate_foreign(checkpoint, program, foreign, tuple(settings or ()), as_json=as_json)
        return
    from nao_ray.service.training.train import evaluate as evaluate_checkpoint

    about, scores = evaluate_checkpoint(checkpoint, tuple(settings or ()))
    metric = about.config.make_task().metric
    tested = metric.tested(scores.value, scores.loss, scores.top5)
    if as_json:
        facts = {"name": about.name, "genotype": about.config.genotype, "task": about.config.task.name}
        typer.echo(json.dumps({**facts, **tested}))
    else:
        typer.echo(f"{about.name}: test {metric.told(tested)}")


def step_line(step: Step) -> str:
    """``epoch 12/600, loss 0.4321, validation 0.9123, 3h05m left``."""
    from nao_ray.cli.progress import format_seconds

    valid = "" if step.valid is None else f", validation {step.valid}"
    left = f", {format_seconds(step.seconds_left)} left" if step.done < step.epochs else ""
    return f"epoch {step.done}/{step.epochs}, loss {step.loss:.4f}{valid}{left}"


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be trained."""

    label: str
    facts: dict[str, Any]
    """Space, genotype and, of a pool, task."""
    pool: str | None = None
    trial_id: int | None = None


def _of_text(text: str, name: str | None, dialect: str | None) -> Source:
    space = find_space(name, text)
    genotype = space.parse(text, dialect)
    label = text.strip() if text.strip() in space.published else space.name.replace(":", ".")  # it names files
    facts = {"space": {"name": space.name, **space.config.model_dump(mode="json")}, "genotype": genotype.key}
    return Source(label, facts)


def _of_pool(what: str) -> Source:

    from nao_ray.service.hosting.manifest import config_of

    trial = find_trial(what)
    config = config_of(trial.pool.manifest, trial.url).to_data()
    facts: dict[str, Any] = {key: config[key] for key in ("space", "task") if key in config}
    return Source(f"trial{trial.trial_id}", {**facts, "genotype": trial.genotype}, trial.url, trial.trial_id)
