"""``nao-ray watch``: a search from any machine that sees its pool. It reads; it writes nothing and takes no lease."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nao_ray.cli import watch_trainings
from nao_ray.cli.progress import format_seconds
from nao_ray.cli.watch_trainings import sparkline
from nao_ray.errors import ConfigError, PoolReadError
from nao_ray.standings import after

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from nao_ray.metric import Metric
    from nao_ray.pool import Finished, View, Watch
    from nao_ray.service.training.standing import Standing

_WIDEST = 110  # characters; a wider terminal would only pull things apart


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(watch)


def watch(
    url: Annotated[str, typer.Argument(help="Folder or URL of the pool, or of train.", metavar="POOL")],
    every: Annotated[float, typer.Option("--every", help="Seconds between two looks.", min=0.1)] = 3.0,
    once: Annotated[bool, typer.Option("--once", help="Print once and leave; so does a pipe.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: one JSON object.")] = False,
) -> None:
    """Watch a search, or full trainings, from wherever the pool or the folder of train is seen.

    Ctrl-C leaves, the search goes on.
    """
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    if as_json and not once:
        raise ConfigError("watch --json prints one object: add --once")
    if as_json:
        typer.echo(json.dumps(_Watched(url).facts()))
    elif once or not console.is_terminal:
        console.print(_Watched(url).look())
    else:
        try:
            _live(console, url, every)
        except KeyboardInterrupt:
            return


def _live(console: Console, url: str, every: float) -> None:
    """Look again and again.

    Raises:
        PoolError: the pool is broken, or was there and is gone.
    """
    from rich.live import Live
    from rich.text import Text

    with Live(console=console, auto_refresh=False) as live:
        watched = _Watched(url)
        while True:
            shown: RenderableType
            try:
                if watched.is_empty():
                    shown = Text(f"no pool at {url} yet; waiting for it (Ctrl-C leaves)", style="yellow")
                else:
                    shown = watched.look()
            except PoolReadError as error:  # nothing says that it is broken
                shown = Text(f"{error} (Ctrl-C leaves)", style="yellow")
            live.update(shown, refresh=True)
            time.sleep(every)


class _Watched:
    """A pool with its full trainings, or a folder that has these alone."""

    def __init__(self, url: str) -> None:
        from nao_ray.service.training.standing import Trainings

        self._url = url
        self._pool: Watch | None = None
        self._trainings = Trainings(url)

    def is_empty(self) -> bool:
        """Whether there is nothing to be seen yet.

        Raises:
            PoolError: it cannot be read.
        """
        from nao_ray.pool import PoolReader

        return self._pool is None and not PoolReader.exists(self._url) and not self._trainings.look()

    def facts(self) -> dict[str, Any]:
        """As JSON has them; raises as `look`."""
        view, standings = self._see()
        facts = {} if view is None else {**asdict(view), "finished": view.finished}
        return {**facts, "trainings": [watch_trainings.facts(each) for each in standings]}

    def look(self) -> RenderableType:
        """How all stands.

        Raises:
            PoolError: there is neither, or it cannot be read.
        """
        from rich.console import Group
        from rich.constrain import Constrain
        from rich.text import Text

        view, standings = self._see()
        table = Constrain(watch_trainings.render(standings), _WIDEST)
        if view is None:
            return table
        shown = [render(view, time.time())]
        if view.driver.state == "none" and (said := self._audited()):
            shown.append(Constrain(Text(said), _WIDEST))
        return Group(*shown, Text(), table) if standings else Group(*shown)

    def _audited(self) -> str | None:
        """Of a search that has ended, what its shared scores are worth."""
        from nao_ray.pool import PoolReader
        from nao_ray.report.shared import agreement

        found = agreement(PoolReader.open(self._url).fits())
        return None if found is None or not found.count else f"shared weights: {found.figures}. {found.meaning}"

    def _see(self) -> tuple[View | None, list[Standing]]:
        from nao_ray.pool import PoolReader, Watch

        standings = self._trainings.look()
        if self._pool is None and (PoolReader.exists(self._url) or not standings):
            self._pool = Watch(self._url)
        return None if self._pool is None else self._pool.look(), standings


# -- looks --------------------------------------------------------------------------------------------------


def render(view: View, now: float) -> RenderableType:
    """A view as a panel.

    Args:
        view: how the search stands.
        now: seconds since 1970, for ages.
    """
    from rich.console import Group
    from rich.constrain import Constrain
    from rich.panel import Panel
    from rich.rule import Rule
    from rich.text import Text

    parts: list[RenderableType] = [_progress(view), Text(), _facts(view)]
    if view.best is not None:
        parts += [Rule(style="bright_black"), _best(view, view.best)]
    if view.last:
        parts += [Rule(style="bright_black"), _last(view, now)]
    title = Text.assemble((f" {_clean(view.name or view.pool)} ", "bold"), no_wrap=True)
    what = " · ".join(_clean(word) for word in (view.strategy, view.space, view.task) if word)
    panel = Panel(
        Group(*parts), title=title, title_align="left", subtitle=Text(f" {what} "), subtitle_align="right",
        border_style=_COLOURS[view.driver.state], padding=(1, 2),
    )  # fmt: skip
    return Constrain(panel, _WIDEST)


_COLOURS = {"alive": "green", "stale": "yellow", "none": "bright_black"}


def _progress(view: View) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    total = view.budget_trials
    count = Text.assemble((f"{view.finished:,}", "bold"), f" of {total:,} trials" if total else " trials")
    if view.eta_seconds and view.has_ended:
        count.append(f"  {format_seconds(view.eta_seconds)} left", style="cyan")
    line = Table.grid(padding=(0, 2), expand=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    bar: RenderableType = Text()
    if total:
        bar = ProgressBar(total=total, completed=view.finished, complete_style="cyan", finished_style="green")
    line.add_row(bar, count)
    return line


def _facts(view: View) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    trials = Text.assemble((f"{view.completed:,}", "bold green"), " done")
    at_work = " running" if view.has_ended or not view.running else " running or waiting for a worker"
    trials.append(f"  {view.running:,}", style="bold cyan" if view.running else "dim").append(at_work)
    if view.waiting:
        trials.append(f"  {view.waiting:,}", style="bold yellow").append(" waiting")
    trials.append(f"  {view.failed:,}", style="bold red" if view.failed else "dim").append(" failed")
    if view.failures:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in view.failures.items())
        trials.append(f" ({kinds})", style="red")
    pace = Text("-" if view.trials_per_hour is None else f"{view.trials_per_hour:,.0f} trials an hour")
    if view.busy_share is not None:
        workers = "1 worker" if view.workers == 1 else f"{view.workers} workers"
        pace.append(f", {workers} about {view.busy_share:.0%} busy")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    grid.add_row("trials", trials)
    grid.add_row("pace", pace)
    grid.add_row("driver", _driver(view))
    for line in view.sharing:
        grid.add_row("GPUs", Text(_clean(line), overflow="fold"))
    if view.driver.note:
        grid.add_row("trouble", Text(_clean(view.driver.note), style="yellow", overflow="fold"))
    if len(view.trend) > 1:
        low, high = (view.metric.words(score) for score in (min(view.trend), max(view.trend)))
        grid.add_row("scores", Text.assemble((sparkline(view.trend), "cyan"), (f"  mean {low} to {high}", "dim")))
    grid.add_row("pool", Text(_clean(view.pool), overflow="fold"))
    return grid


def _driver(view: View) -> Text:
    from rich.text import Text

    driver = view.driver
    who = f"pid {driver.pid} on {_clean(driver.host or '?')}"
    age = format_seconds(driver.silent_seconds or 0)
    if driver.state == "alive":
        return Text.assemble(("● alive", "bold green"), f"  {who}, heartbeat {age} ago")
    if driver.state == "stale":
        return Text.assemble(("● stale", "bold yellow"), f"  {who}, last heard {age} ago; {_advice(view)}")
    if driver.pid is None:
        return Text.assemble(("○ none", "dim"), "  no driver so far")
    return Text.assemble(("○ none", "dim"), f"  the last left {age} ago{_unless_done(view)}")


def _unless_done(view: View) -> str:
    # a strategy may end before the budget does, with nothing left to do
    return f"; {_advice(view)}" if view.waiting else ""


def _advice(view: View) -> str:
    return f"{_clean(view.command or f'nao-ray resume {view.pool}')} goes on"


def _best(view: View, best: Finished) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble((_score(best, view.metric), "bold green"), f"  trial {best.trial_id}")
    if view.rungs and best.epochs is not None:
        head.append(f", {after(best.epochs)}")
    if best.num_params is not None:
        head.append(f", {best.num_params:,} parameters")
    if best.round is not None:
        head.append(f", round {best.round}")
    if best.weights_version is not None:
        head.append(f", with shared weights {_clean(best.weights_version)}", style="yellow")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    grid.add_row("best  ", head)
    grid.add_row("", Text(_clean(best.genotype), style="dim", overflow="fold"))
    return grid


def _last(view: View, now: float) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False, expand=True)
    table.add_column("last", justify="right", no_wrap=True)
    table.add_column("score", no_wrap=True)
    for name in (*(["epochs"] if view.rungs else []), "took", "ended", "round"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("node", no_wrap=True, max_width=24)
    table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    best = view.best.trial_id if view.best is not None else None
    for trial in view.last:
        is_best = trial.trial_id == best
        failed = Text(f"{trial.failure_kind}: {_clean(trial.failure_message or '')}" if trial.failure_kind else "")
        table.add_row(
            str(trial.trial_id),
            Text(_score(trial, view.metric), style="bold green" if is_best else "red" if trial.failure_kind else ""),
            *([str(trial.epochs)] if view.rungs else []),
            "-" if trial.wall_seconds is None else format_seconds(trial.wall_seconds),
            "-" if trial.finished_at is None else f"{format_seconds(max(0.0, now - trial.finished_at))} ago",
            "-" if trial.round is None else str(trial.round),
            _clean(trial.node or "-"),
            Text("best", style="green") if is_best else failed,
        )
    return table


def _score(trial: Finished, metric: Metric) -> str:
    if trial.score is not None:
        return metric.words(trial.score)
    return "failed" if trial.failure_kind is not None else "trained"


def _clean(text: str) -> str:
    """Text of a pool without what a terminal would act on."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
