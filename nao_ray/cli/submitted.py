"""``nao-ray submit --train``: a full training as a job of a Ray cluster."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from nao_ray import __version__
from nao_ray.addresses import absolute
from nao_ray.cli.handed import Handed
from nao_ray.cli.train import planned, train
from nao_ray.errors import ConfigError

_RECIPE, _FACTS = "recipe.yaml", "training.json"


def submit_training(
    words: Sequence[str], alien: Mapping[str, Any], address: str | None, python: str, *, installed: bool
) -> Handed:
    """Hand one in, or go on with it.

    Args:
        words: what would follow `nao-ray train`.
        alien: options of `submit` that are a search's, by name.
        address: of the cluster's dashboard.
        python: that of the cluster's machines.
        installed: carry no code.

    Raises:
        InputError: the words are none of `train`'s, or the cluster cannot see what they name.
    """
    from nao_ray.own_modules import OwnModules
    from nao_ray.service import places
    from nao_ray.service.jobs import packing
    from nao_ray.service.jobs.client import connect, describe_training
    from nao_ray.service.training.standing import mark_of
    from nao_ray.training import recipe_file

    for option in (name for name, value in alien.items() if value):
        raise ConfigError(f"{option} is a search's; of a full training all options stand after --, as `train` has them")
    given = _parsed(words)
    recipe, settings = given["recipe"], list(given["settings"] or ())
    names = ("what", "recipe", "space", "dialect", "task", "workers", "settings")
    source, config = planned(*(given[name] for name in names))
    place = given["out"] or source.pool or "trained"
    jobs, url, data = connect(address), packing.shared_pool(place), places.given(config)
    packing.refuse_local({packing.POOL: place, **data}, jobs.nodes())
    settings += [f"{key}={json.dumps(absolute(path))}" for key, path in data.items()]
    is_file = recipe_file.is_file(recipe)
    file = _RECIPE if is_file else _FACTS
    what = given["what"] if source.pool is None else f"{packing.shared_pool(source.pool)}:{source.trial_id}"
    options = {f"--{name}": given[name] for name in ("space", "dialect", "task")} | {
        "--out": url,
        "--workers": config.workers,
        **{f"--{name}": None if given[name] is None else f"{given[name]:g}" for name in ("cpus", "gpus")},
    }
    command = packing.training(python, what, _RECIPE if is_file else recipe, options, settings)
    name = packing.job_name(f"train-{source.label}", shlex.join(shlex.split(command)[1:]))
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "job.zip"
        text = _text_of(recipe) if is_file else config.model_dump_json(indent=1)
        modules = OwnModules.of_this_process().files
        size = packing.pack(archive, text, file, package=not installed, modules=modules)
        job_id = jobs.submit(name, command, archive, describe_training(name, url, mark_of(source.label, config)))
    return Handed(jobs, job_id, url, [*([] if installed else [f"nao_ray {__version__}"]), file], size)


def _parsed(words: Sequence[str]) -> dict[str, Any]:
    """What `train` would be given."""
    app = typer.Typer()
    app.command()(train)
    return dict(get_command(app).make_context("nao-ray submit --train --", list(words)).params)


def _text_of(recipe: str) -> str:
    from nao_ray import own_modules

    path = own_modules.find_file(recipe)
    assert path is not None, recipe
    return path.read_text(encoding="utf-8")
