"""What `watch` shows of full trainings: a line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nao_ray.cli.progress import format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nao_ray.service.training.standing import Standing

_BARS = "▁▂▃▄▅▆▇█"
_POINTS = 16  # of a curve


def facts(standing: Standing) -> dict[str, Any]:
    """As JSON has it; scores in the metric's own unit."""
    value = standing.metric.score
    return {
        "name": standing.name,
        "epochs_done": standing.done,
        "epochs": standing.epochs,
        "train_loss": standing.loss,
        "metric": standing.metric.name,
        "valid": value(standing.curve[-1]) if standing.curve else None,
        "best_valid": None if standing.best is None else value(standing.best),
        "test": None if standing.test is None else value(standing.test),
        "seconds_left": standing.seconds_left,
    }


def render(standings: Sequence[Standing]) -> RenderableType:
    """A table of them."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False, expand=True)
    table.add_column("training", overflow="fold", ratio=1)
    for name in ("epochs", "loss", "validation", "best", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for each in standings:
        left = "-" if each.done == each.epochs else format_seconds(each.seconds_left)
        words = each.metric.words
        tested = Text("" if each.test is None else f"test {words(each.test)}", style="bold green")
        table.add_row(
            Text(each.name, style="bold"),
            f"{each.done}/{each.epochs}",
            f"{each.loss:.4f}",
            words(each.curve[-1]) if each.curve else "-",
            "-" if each.best is None else words(each.best),
            Text(left, style="cyan"),
            tested if each.test is not None else Text(sparkline(_thinned(each.curve)), style="cyan"),
        )
    return table


def _thinned(values: tuple[float, ...]) -> tuple[float, ...]:
    """At most so many of them, the last one too."""
    if len(values) <= _POINTS:
        return values
    return tuple(values[(index + 1) * len(values) // _POINTS - 1] for index in range(_POINTS))


def sparkline(values: tuple[float, ...]) -> str:
    """A bar for each value; empty where there are fewer than two."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join(_BARS[round((value - low) / step)] for value in values)
