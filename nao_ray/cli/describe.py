"""``nao-ray describe``: what an architecture is, counted and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nao_ray.errors import ConfigError, GenotypeError

if TYPE_CHECKING:
    from nao_ray.spaces.base import ArchGraph, Genotype, SearchSpace


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(describe)


def describe(
    genotype: Annotated[
        str, typer.Argument(help="One quoted text, or the name of a published architecture.", metavar="GENOTYPE")
    ],
    space: Annotated[str | None, typer.Option("--space", help="Search space; a published name brings its own.")] = None,
    network: Annotated[str, typer.Option("--network", help="cifar10, cifar100, imagenet or small.")] = "cifar10",
    cells_per_stage: Annotated[
        int | None, typer.Option("--cells-per-stage", help="N; default: the network's published one.", min=1)
    ] = None,
    channels: Annotated[
        int | None, typer.Option("--channels", help="F of the first stage; default: the published one.", min=1)
    ] = None,
    num_classes: Annotated[int | None, typer.Option("--num-classes", help="Default: the network's.", min=1)] = None,
    dialect: Annotated[
        str | None, typer.Option("--dialect", help="Notation of the text; default: the space's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    svg: Annotated[Path | None, typer.Option("--svg", help="Draw the cells into this file.")] = None,
) -> None:
    """Count and draw the network of a genotype."""
    search_space = find_space(space, genotype)
    parsed = search_space.parse(genotype, dialect)
    graph = search_space.lower(parsed)
    facts = _facts(search_space, parsed, graph, network, cells_per_stage, channels, num_classes)
    if svg is not None:
        _draw(graph, facts, svg)
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        _show(graph, facts)
        if svg is not None:
            typer.echo(f"picture  {svg}")


def find_space(name: str | None, genotype: str) -> SearchSpace[Any]:
    """The named space, or, without a name, the space of a published architecture.

    Raises:
        ConfigError: no such space, or no name although the genotype needs one.
        GenotypeError: the genotype is a published architecture of another space.
    """
    from nao_ray import registry

    home = published_home(genotype)
    if name is None:
        if home is None:
            raise ConfigError(f"--space is missing: one of {', '.join(registry.names('space'))}")
        name = home
    space: SearchSpace[Any] = registry.load("space", name).for_text(genotype)
    if home is not None and genotype.strip() not in space.published:
        raise GenotypeError(f"{genotype.strip()} is not in space {name}: it belongs to {home}; use --space {home}")
    return space


def published_home(genotype: str) -> str | None:
    """The space that a published name belongs to; None for any other text."""
    from nao_ray import registry

    for name in registry.names("space"):
        if genotype.strip() in registry.load("space", name).published:
            return name
    return None


def _published_name(space: SearchSpace[Any], genotype: Genotype) -> str | None:
    canonical = space.canonical(genotype)
    homes = {name: space.for_text(name) for name in space.published}
    return next((name for name, home in homes.items() if home.canonical(home.parse(name)) == canonical), None)


def _facts(
    space: SearchSpace[Any],
    genotype: Genotype,
    graph: ArchGraph,
    network: str,
    cells_per_stage: int | None,
    channels: int | None,
    num_classes: int | None,
) -> dict[str, Any]:
    import torch

    from nao_ray.networks.counting import count
    from nao_ray.networks.derived import build, input_shape
    from nao_ray.report.figures import loose_ends

    with torch.device("meta"):  # shapes alone: no memory, no time, whatever the width
        built = build(
            graph,
            network=network,
            cells_per_stage=cells_per_stage,
            channels=channels,
            num_classes=num_classes,
            auxiliary=True,
        )
    counts = count(built, input_shape(network))
    return {
        "genotype": genotype.key,
        "canonical": space.canonical(genotype).key,
        "space": space.name,
        "published": _published_name(space, genotype),
        "network": network,
        "cells_per_stage": built.config.cells_per_stage,
        "channels": built.config.channels,
        "num_classes": built.config.num_classes,
        "num_params": counts.num_params,
        "num_params_auxiliary": counts.num_params_auxiliary,
        "macs": counts.macs,
        "loose_ends": loose_ends(graph),
    }


def _draw(graph: ArchGraph, facts: dict[str, Any], path: Path) -> None:
    from nao_ray.report.figures import draw_cells

    try:
        path.write_text(draw_cells(graph, facts["published"] or facts["genotype"]), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--svg {path}: cannot write: {error.strerror}") from None


def _show(graph: ArchGraph, facts: dict[str, Any]) -> None:
    from rich.columns import Columns
    from rich.console import Console, Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from nao_ray.report.figures import cell_text

    shown = {
        "genotype": facts["genotype"],
        "canonical": facts["canonical"],
        "space": facts["space"],
        "network": f"{facts['network']}, N = {facts['cells_per_stage']}, F = {facts['channels']}, "
        f"{facts['num_classes']} classes",
        "parameters": f"{facts['num_params']:,} (auxiliary head {facts['num_params_auxiliary']:,} more)",
        "multiply-adds": f"{facts['macs']:,} per image",
    }
    lines = Table.grid(padding=(0, 2))
    for name, value in shown.items():
        lines.add_row(name, Text(value))
    cells = Columns([Panel(Text(cell_text(cell)), title=f"{role} cell", expand=False) for role, cell in graph.cells])
    title = facts["published"] or "architecture"
    Console(highlight=False).print(Panel(Group(lines, Text(), cells), title=title, expand=False))
