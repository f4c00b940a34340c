"""``nao-ray evaluate FILE --as darts``: the test score of weights that another program has trained."""

from __future__ import annotations

import json
from collections.abc import Mapping

import typer

from nao_ray.cli.source import find_space
from nao_ray.errors import ConfigError


def evaluate_foreign(
    file: str, program: str | None, given: Mapping[str, str | None], settings: tuple[str, ...], *, as_json: bool
) -> None:
    """Say it.

    Args:
        file: its path.
        program: whose file it is.
        given: `--genotype`, `--space` and `--task`.
        settings: of the task and the device.
        as_json: as one JSON object.

    Raises:
        ConfigError: an option is missing, or there is no such program.
    """
    from nao_ray.service.training.imported import KINDS, evaluate_imported

    if program is None:
        option = next(name for name, value in given.items() if value)
        raise ConfigError(f"{option} is for a file of another program; give --as {KINDS[0]}")
    if program not in KINDS:
        raise ConfigError(f"--as {program}: of other programs, the files of {', '.join(KINDS)} are read")
    text, task = given["--genotype"], given["--task"]
    if text is None:
        raise ConfigError("--genotype is missing: the file does not say which cells its network has")
    if task is None:
        raise ConfigError("--task is missing: the file does not say what it was trained on")
    space = find_space(given["--space"], text)
    key = space.parse(text).key
    home = {"name": space.name, **space.config.model_dump(mode="json")}
    config, scores = evaluate_imported(file, {"space": home, "genotype": key, "task": {"name": task}}, settings)
    metric = config.make_task().metric
    tested = metric.tested(scores.value, scores.loss, scores.top5)
    if as_json:
        facts = {"file": file, "genotype": key, "task": task}
        typer.echo(json.dumps({**facts, **tested}))
    else:
        typer.echo(f"{file}: test {metric.told(tested)}")
