"""``nao-ray export``: an architecture or a trained network, for programs that know nothing of this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nao_ray.cli import output
from nao_ray.cli.subject import Subject, find_subject, published_name
from nao_ray.errors import ConfigError

if TYPE_CHECKING:
    from nao_ray.export.taken import Taken
    from nao_ray.skeletons.base import Skeleton
    from nao_ray.training.recipe import Regularisation

_CHECKPOINT = ".safetensors"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


def export(
    what: Annotated[
        str,
        typer.Argument(
            help="A checkpoint of train (.safetensors); or a genotype, a published name, POOL:best, POOL:ID.",
            metavar="CHECKPOINT|GENOTYPE",
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            help="source: plain PyTorch; torch: a program of torch.export; onnx; genotype: JSON; darts: its text.",
        ),
    ],
    out: Annotated[str, typer.Option("--out", help="The file: .py, .pt2, .onnx, .json, .txt.", metavar="FILE")],
    space: Annotated[
        str | None, typer.Option("--space", help="Search space of a genotype given as text, or package.module:Class.")
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", help="As for describe: cifar10, imagenet, small, ptb, text, ...")
    ] = None,
    sizes: Annotated[
        list[str] | None,
        typer.Option("--size", help="A size of its networks; may be given often.", metavar="NAME=NUMBER"),
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option("--num-classes", help="Classes, or words of the vocabulary.", min=1)
    ] = None,
    dialect: Annotated[str | None, typer.Option("--dialect", help="Notation of the text.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Of a full training: with its auxiliary head, dropout and drop path."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Of a checkpoint: task.path=..., device=...", metavar="KEY=VALUE"),
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", help="Of a text, that torch and onnx read at once.", min=1)] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """Write a network, or a genotype, for programs that do not know this one, with a card and a picture.

    A checkpoint brings its weights and says itself what it is; anything else has fresh weights, and sizes as describe.
    """
    from nao_ray.export import files

    path = files.check_out(out, kind, overwrite=overwrite)
    is_checkpoint = what.endswith(_CHECKPOINT)
    given = {
        "--space": space, "--network": network, "--size": sizes, "--num-classes": num_classes, "--dialect": dialect,
        "--recipe": recipe,
    }  # fmt: skip
    if is_checkpoint:
        _refuse(given, f"{what} says itself what it is")
        from nao_ray.service.training.taking import taken_from

        taken = taken_from(what, tuple(settings or ()))
    else:
        _refuse({"--set": settings}, "it is for a checkpoint")
        taken = _made(find_subject(what, space, dialect, network, num_classes, {}, sizes or ()), recipe)
    output.tell_files(files.export(taken, kind, path, tokens), as_json)


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Raise ConfigError where one of these is given."""
    if wrong := [name for name, value in options.items() if value]:
        raise ConfigError(f"{wrong[0]}: {why}; leave it out")


def _made(subject: Subject, recipe: str | None) -> Taken:
    """An architecture with fresh weights."""
    from nao_ray import rng
    from nao_ray.export.taken import Taken
    from nao_ray.sizes import read_size
    from nao_ray.skeletons.base import skeleton_of

    space = subject.space
    skeleton, graph = skeleton_of(space), space.lower(subject.genotype)
    shapes = skeleton.shapes(subject.network, num_classes=subject.num_classes, in_channels=subject.in_channels)
    planned, told = ({}, ()) if recipe is None else _planned(recipe, skeleton)
    size = skeleton.sized(graph, shapes, read_size(skeleton.sizes, {**planned, **subject.sizes}))
    with rng.torch_seeded(0, "weights"):
        network = skeleton.build(graph, shapes, size, *told)
    name = published_name(space, subject.genotype)
    if name is None:
        name = f"trial {subject.recorded['trial_id']}" if subject.recorded else space.name
    return Taken(
        name=name,
        space=space,
        genotype=subject.genotype,
        shapes=shapes,
        size=size,
        network=network.eval(),
        is_trained=False,
        facts={"pool": str(subject.recorded["pool"])} if subject.recorded else {},
    )


def _planned(name: str, skeleton: Skeleton[Any]) -> tuple[dict[str, int], tuple[Regularisation, ...]]:
    """The size of a full training, and its regularisation."""
    from pydantic import ValidationError

    from nao_ray.config_text import complaint
    from nao_ray.training.recipe import Recipe, full_training

    plan = full_training(name, skeleton.sizes.model_fields)
    try:
        recipe = Recipe.model_validate(plan["recipe"])
    except ValidationError as error:
        raise complaint(error, Recipe) from None
    return {key: value for key, value in plan.items() if key in skeleton.sizes.model_fields}, (recipe,)
