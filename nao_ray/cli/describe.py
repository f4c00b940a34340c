"""``nao-ray describe``: what an architecture is, counted and drawn."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nao_ray.cli.subject import Subject, find_subject, published_name
from nao_ray.errors import ConfigError

if TYPE_CHECKING:
    from nao_ray.networks.counting import Counts
    from nao_ray.sizes import Size
    from nao_ray.spaces.base import ArchGraph
    from nao_ray.tasks.base import Shapes
    from nao_ray.training.cost import Latency

_PICTURES = (".svg", ".png", "")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(describe)


def describe(
    genotype: Annotated[
        str,
        typer.Argument(
            help="One quoted text, or the name of a published architecture, or POOL:best, or POOL:ID.",
            metavar="GENOTYPE",
        ),
    ],
    space: Annotated[
        str | None,
        typer.Option("--space", help="Search space, or package.module:Class; a published name brings its own."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            help="cifar10, cifar100, imagenet, small; ptb, wikitext2, text. Default: the trial's, or the first.",
        ),
    ] = None,
    cells_per_stage: Annotated[
        int | None, typer.Option("--cells-per-stage", help="N; default: the network's published one.", min=1)
    ] = None,
    channels: Annotated[
        int | None, typer.Option("--channels", help="F of the first stage; default: the published one.", min=1)
    ] = None,
    layers: Annotated[
        int | None, typer.Option("--layers", help="Cells, where that is a size; default: the published number.", min=1)
    ] = None,
    hidden: Annotated[
        int | None, typer.Option("--hidden", help="H, units of a recurrent network; default: the published.", min=1)
    ] = None,
    sizes: Annotated[
        list[str] | None,
        typer.Option("--size", help="Any size of the space's networks; may be given often.", metavar="NAME=NUMBER"),
    ] = None,
    num_classes: Annotated[
        int | None,
        typer.Option("--num-classes", help="Classes, or words of the vocabulary; default: the network's.", min=1),
    ] = None,
    dialect: Annotated[
        str | None, typer.Option("--dialect", help="Notation of the text; default: the space's own.")
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="Also count the shared weights of its space, and the relaxed supernet.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also time evaluations, and take a training step for its memory.")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="With --measure: auto, cpu, cuda, cuda:1, ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    draw: Annotated[
        Path | None,
        typer.Option("--draw", "--svg", help="Draw the cells into this file: PNG if it ends in .png, SVG otherwise."),
    ] = None,
) -> None:
    """Count and draw the network of a genotype."""
    if draw is not None and draw.suffix.lower() not in _PICTURES:
        raise ConfigError(f"--draw {draw}: a picture is .svg or .png, not {draw.suffix}")
    if not _DEVICE.fullmatch(device) or (device != "auto" and not measure):
        raise ConfigError(f"--device {device}: with --measure, one of auto, cpu, cuda, cuda:0, cuda:1, ...")
    options = {"cells_per_stage": cells_per_stage, "channels": channels, "layers": layers, "hidden": hidden}
    subject = find_subject(genotype, space, dialect, network, num_classes, options, sizes or ())
    if not subject.space.skeleton and (network is not None or num_classes is not None or subject.sizes):
        raise ConfigError(f"space {subject.space.name} has no networks, so no size of one can be chosen")
    graph = subject.space.lower(subject.genotype)
    facts, counted = _facts(subject, graph)
    supernets = _supernets(subject, counted) if shared else {}
    facts |= {name: {"num_params": count, **size.model_dump()} for name, (count, size) in supernets.items()}
    if measure and counted is None:
        raise ConfigError(f"--measure: space {subject.space.name} has no networks")
    measured = _measured(subject, graph, counted, device) if measure and counted is not None else None
    if measured is not None:
        facts |= measured.facts
    if draw is not None:
        _draw(subject, facts, graph, draw)
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        more = {_SUPERNETS[name]: f"{count:,} parameters, {size}" for name, (count, size) in supernets.items()}
        _show(subject, graph, facts, {**_lines(counted), **more, **({} if measured is None else measured.lines)})
        if draw is not None:
            typer.echo(f"picture  {draw}")


def _facts(subject: Subject, graph: ArchGraph) -> tuple[dict[str, Any], _Counted | None]:
    """What is known of it, and what was counted; None where its space has no networks."""
    from nao_ray.report.labels import loose_ends

    space, genotype = subject.space, subject.genotype
    counted = _counts(subject, graph) if space.skeleton else None
    ops = space.ops_by_cell(genotype)
    facts = {
        "genotype": genotype.key,
        "canonical": space.canonical(genotype).key,
        "space": space.name,
        "published": published_name(space, genotype),
        **(counted.facts if counted else dict.fromkeys(_COUNTS)),
        "normal_ops": ops.get("normal"),
        "reduction_ops": ops.get("reduction"),
        "ops": ops,
        "loose_ends": loose_ends(graph),
        "notations": space.notations(genotype),
        **subject.recorded,
    }
    return facts, counted


_COUNTS = ("network", "num_classes", "num_params", "num_params_auxiliary", "macs")


@dataclass(frozen=True, slots=True)
class _Counted:
    """A network, and what it has."""

    shapes: Shapes
    size: Size
    counts: Counts

    @property
    def facts(self) -> dict[str, Any]:
        """For JSON."""
        told = {name: self.shapes.recorded[name] for name in _COUNTS[:2]}
        return {**told, **{name: getattr(self.counts, name) for name in _COUNTS[2:]}, **self.size.model_dump()}

    @property
    def lines(self) -> dict[str, str]:
        """For people."""
        more = (
            f" (auxiliary head {self.counts.num_params_auxiliary:,} more)" if self.counts.num_params_auxiliary else ""
        )
        return {
            "network": f"{self.shapes.recorded['network']}, {self.size}, {self.shapes.told}",
            "parameters": f"{self.counts.num_params:,}{more}",
            "multiply-adds": f"{self.counts.macs:,} per {self.shapes.example}",
        }


def _counts(subject: Subject, graph: ArchGraph) -> _Counted:
    from nao_ray.sizes import read_size
    from nao_ray.skeletons.base import skeleton_of

    skeleton = skeleton_of(subject.space)
    shapes = skeleton.shapes(subject.network, num_classes=subject.num_classes, in_channels=subject.in_channels)
    size = skeleton.sized(graph, shapes, read_size(skeleton.sizes, subject.sizes))
    return _Counted(shapes, size, skeleton.count(graph, shapes, size))


def _supernets(subject: Subject, counted: _Counted | None) -> dict[str, tuple[int, Size]]:
    from nao_ray.sizes import read_size
    from nao_ray.skeletons.base import skeleton_of

    skeleton = skeleton_of(subject.space, shared=True)
    assert counted is not None, "it has a skeleton"
    return skeleton.count_shared(subject.space, counted.shapes, read_size(skeleton.sizes, subject.sizes))


@dataclass(frozen=True, slots=True)
class _Measured:
    """What a network costs on a device."""

    shapes: Shapes
    latency: Latency
    memory: int | None
    step: str
    """What a training step was of."""

    @property
    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.latency.columns, "peak_memory_bytes": self.memory}

    @property
    def lines(self) -> dict[str, str]:
        """For people."""
        needed = "more than there is" if self.memory is None else f"{self.memory / 1e6:,.0f} MB"
        whole = ", the whole process" if self.latency.latency_threads else ""
        return {
            "latency": self.latency.told(self.shapes.example),
            "peak memory": f"{needed} in a training step of {self.step}{whole}",
        }


def _measured(subject: Subject, graph: ArchGraph, counted: _Counted, device: str) -> _Measured:
    from nao_ray import rng
    from nao_ray.skeletons.base import skeleton_of
    from nao_ray.training import cost
    from nao_ray.training.devices import pick_device

    place, skeleton = pick_device(device), skeleton_of(subject.space)
    with rng.torch_seeded(0, "weights"):
        network = skeleton.build(graph, counted.shapes, counted.size, skeleton.regularisation())
        example = skeleton.example(counted.shapes)
        memory = cost.training_memory(network, example, place)
    latency = cost.latency(network, example, place)
    return _Measured(counted.shapes, latency, memory, cost.step_told(example, counted.shapes.example))


def _draw(subject: Subject, facts: dict[str, Any], graph: ArchGraph, path: Path) -> None:
    from nao_ray.report.pictures.cells import draw_cells

    picture = draw_cells(graph, facts["published"] or facts["genotype"], subject.space.op_names).encode()
    if path.suffix.lower() == ".png":
        from nao_ray.report.pictures.raster import png

        picture = png(picture.decode())
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise ConfigError(f"--draw {path}: cannot write: {error.strerror}") from None


_SUPERNETS = {"shared": "shared weights", "relaxed": "relaxed supernet"}


def _lines(counted: _Counted | None) -> dict[str, str]:
    return {"network": "none: the space is looked up in tables alone"} if counted is None else counted.lines


def _show(subject: Subject, graph: ArchGraph, facts: dict[str, Any], known: dict[str, str]) -> None:
    from rich.columns import Columns
    from rich.console import Console, Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from nao_ray.report.labels import cell_text, role_label

    shown = {name: facts[name] for name in ("genotype", "canonical", "space")}
    shown |= known
    lines = Table.grid(padding=(0, 2))
    for name, value in shown.items():
        lines.add_row(name, Text(value, overflow="fold"))
    names = subject.space.op_names
    cells = Columns(
        [Panel(Text(cell_text(cell, names)), title=role_label(role), expand=False) for role, cell in graph.cells]
    )
    title = facts["published"] or (f"trial {facts['trial_id']}" if "trial_id" in facts else "architecture")
    Console(highlight=False).print(Panel(Group(lines, Text(), cells), title=title, expand=False))
    notations = facts["notations"]
    width = max(map(len, notations), default=0)
    for dialect, text in notations.items():  # unbroken, to be copied
        typer.echo(text if len(notations) == 1 else f"{dialect:<{width}}  {text}")
