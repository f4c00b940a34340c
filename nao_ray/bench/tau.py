"""When scores with shared weights begin to rank: Kendall's tau with a table over the epochs of their training.

A supernet is trained as a search of a preset trains it, with each way to draw its paths, and after each of some
numbers of epochs the same random cells of a table, all of them different functions, are scored with it: all on the
whole validation split, with each treatment of batch norm. The table has what each is worth, trained alone. The bar is
what costs nothing: the number of parameters.

    nao-ray bench tau task.path=cifar10.parquet results=study figure=tau.svg
    nao-ray bench tau task.path=cifar10.parquet samplings=uniform norms=batch,batch@32,path,running epochs=5,15,35,75

A treatment is one of the evaluator's `norm`; ``batch@N``: validation examples of a batch, ``path@N``: training
examples that a path's statistics are of. Besides the arguments of `run`: ``SECTION.key=value`` of the preset.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from nao_ray import rng
from nao_ray.bench._data import data_folder
from nao_ray.bench._result import BenchResult
from nao_ray.bench._study import Row, stored_row, write_row
from nao_ray.bench._tau_summary import Ranking, draw, summary
from nao_ray.bench.shared import configs_of, name_of
from nao_ray.bench.tabular import positive
from nao_ray.config import Component, RunConfig
from nao_ray.errors import ConfigError
from nao_ray.evaluators.base import Group
from nao_ray.evaluators.one_shot import OneShot
from nao_ray.evaluators.parts.table_config import TabularConfig
from nao_ray.evaluators.tabular import Tabular
from nao_ray.networks.counting import Counts
from nao_ray.skeletons.base import skeleton_of
from nao_ray.spaces.base import Genotype
from nao_ray.strategies.shared_random_search import SharedRandomSearch
from nao_ray.trial import Fidelity, Proposal

Floats = NDArray[np.float64]

_SCORING: Mapping[str, Any] = {"norm": "batch", "norm_examples": 256, "batch": 500, "batches": 1, "at_once": 50}
"""Settings of the evaluator that weights do not depend on."""


@dataclass(frozen=True, slots=True)
class _Treatment:
    """Of batch norm in a score."""

    name: str
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, word: str) -> _Treatment:
        """``NORM`` or ``NORM@N``.

        Raises:
            ConfigError: it is neither.
        """
        norm, at, number = word.strip().partition("@")
        takes = {"batch": "batch", "path": "norm_examples", "running": ""}
        if norm not in takes or (at and not (takes[norm] and number.isdecimal() and int(number) > 1)):
            raise ConfigError(f"bench tau norms={word}: expected batch, path or running, or batch@N or path@N, N > 1")
        return cls(word.strip(), {"norm": norm, **({takes[norm]: int(number)} if at else {})})


def run(
    preset: str = "random_ws_201_small",
    samplings: str = "uniform,fair,size",
    epochs: Sequence[int] = (5, 15, 35, 75),
    norms: str = "batch,path,running",
    cells: int = 250,
    path: str | None = None,
    valid: str = "cifar10_valid_acc_200",
    results: str | None = None,
    figure: str | None = None,
    **settings: object,
) -> BenchResult:
    """Train, score, compare.

    Args:
        preset: name or path of a config whose strategy is shared_random_search.
        samplings: of that strategy, by commas; each trains weights of its own, ``fair@35`` for 35 epochs at most.
        epochs: after which the weights are scored, ascending.
        norms: treatments of batch norm, by commas.
        cells: of the table, different functions, drawn at random.
        path: of the table; default: NAS-Bench-201 in ``$NAO_RAY_DATA``.
        valid: its column of what cells are worth.
        results: folder of weights and scores; those that are there are not made again.
        figure: an SVG of tau over epochs.
        **settings: ``SECTION.key`` of the preset.

    Raises:
        ConfigError: an argument is not what it should be.
        DataError: the table or the data are not what they should be.
    """
    treatments = [_Treatment.read(word) for word in norms.split(",")]
    if not epochs or list(epochs) != sorted({positive("epochs", number) for number in epochs}):
        raise ConfigError(f"bench tau epochs={','.join(map(str, epochs))}: expected ascending numbers")
    (config,) = configs_of([preset], settings).values()
    if config.evaluator.name != "one_shot" or config.strategy.name != "shared_random_search":
        raise ConfigError(f"bench tau: {config.name} has no one_shot evaluator with shared_random_search")
    space: Any = config.make_space()
    file = path or str(data_folder() / "nas_bench_201" / "nas_bench_201.parquet")
    table = Tabular(space, None, TabularConfig(path=file, valid=valid, twins="distinct"))
    table.facts()  # opens and checks
    chosen = _distinct(table, positive("cells", cells))
    with tempfile.TemporaryDirectory() as temporary:
        study = _Study(config, chosen, Path(temporary if results is None else results))
        rows = [row for word in samplings.split(",") for row in study.rows(*_until(word, epochs), treatments)]
    truth = np.array([table.measure.score(table.valid(cell)) for cell in chosen])
    free = {"more parameters": [float(count.num_params) for count in study.counts()]}
    free["more multiply-adds"] = [float(count.macs) for count in study.counts()]
    found = [Ranking.of(row, truth) for row in rows]
    bars = [Ranking.free(name, np.array(values), truth) for name, values in free.items()]
    if figure is not None:
        draw(found, bars, Path(figure))
    return summary(found, bars, table)


def _until(word: str, epochs: Sequence[int]) -> tuple[str, Sequence[int]]:
    """``SAMPLING``, or ``SAMPLING@N``.

    Raises:
        ConfigError: it is neither, or has no epochs.
    """
    sampling, at, last = word.strip().partition("@")
    found = [number for number in epochs if not at or (last.isdecimal() and number <= int(last))]
    if not found:
        raise ConfigError(f"bench tau samplings={word.strip()}: expected a sampling, or SAMPLING@N with epochs up to N")
    return sampling, found


class _Study:
    """Trainings of one config, and scores of the same cells with each."""

    def __init__(self, config: RunConfig, cells: Sequence[Genotype], folder: Path) -> None:
        evaluator = config.make_evaluator()
        assert isinstance(evaluator, OneShot)
        self._config, self._cells, self._folder, self._evaluator = config, cells, folder, evaluator

    def counts(self) -> Iterator[Counts]:
        """Of each cell's network on its own, as large as the shared weights."""
        evaluator, skeleton = self._evaluator, skeleton_of(self._evaluator.space)
        for cell in self._cells:
            yield skeleton.count(evaluator.space.lower(cell), evaluator.task.shapes, evaluator.config.size)

    def rows(self, sampling: str, epochs: Sequence[int], treatments: Sequence[_Treatment]) -> Iterator[Row]:
        """A row per number of epochs and treatment."""
        config = self._config
        strategy = Component(
            **{**config.to_data()["strategy"], "sampling": sampling, "rounds": 1, "epochs": epochs[-1]}
        )
        evaluator = Component(**{**config.to_data()["evaluator"], **_SCORING})
        config = config.model_copy(update={"strategy": strategy, "evaluator": evaluator})
        search = cast(SharedRandomSearch, config.make_strategy())
        search.num_params = self._evaluator.num_params
        first: Proposal | None = None
        source, last, seconds = b"", 0, 0.0
        plain = config.model_copy(update={"strategy": Component(**{**strategy.model_dump(), "epochs": 1})})
        for number in epochs:
            name = f"{name_of(f'tau-{sampling}', plain)}-s{config.seed:05d}-e{number:05d}"
            weights, trained = self._folder / "weights" / name, self._folder / "trainings" / f"{name}.parquet"
            if stored_row(trained) is None:
                first = first or search.ask(1)[0]
                source, row = self._train(first, source, last, number)
                weights.parent.mkdir(parents=True, exist_ok=True)
                weights.write_bytes(source)
                write_row(trained, row)
            source, last = weights.read_bytes(), number
            seconds += float((stored_row(trained) or {})["seconds"])
            for treatment in treatments:
                scored = self._scored(f"{name}-{treatment.name}-n{len(self._cells)}", source, treatment)
                yield scored | {"sampling": sampling, "epochs": number, "norm": treatment.name, "training": seconds}

    def _train(self, asked: Proposal, source: bytes, first: int, last: int) -> tuple[bytes, Row]:
        """As the search would, in stretches of its own."""
        assert asked.phase is not None
        version = f"e{first:05d}" if source else None
        phase = replace(asked.phase, version=f"e{last:05d}", source=version, first_epoch=first, last_epoch=last)
        measured, weights = self._evaluator.train(replace(asked, phase=phase), source or None, Group())
        return weights, {"losses": list(measured.curve or ()), "seconds": measured.device_seconds or 0.0}

    def _scored(self, name: str, weights: bytes, treatment: _Treatment) -> Row:
        path = self._folder / "scores" / f"{name}.parquet"
        found = stored_row(path)
        if found is None:
            evaluator = copy.copy(self._evaluator)  # the data and the place for weights are the same
            evaluator.config = evaluator.config.model_copy(update=dict(treatment.settings))
            evaluator.use(name, weights)
            fidelity = Fidelity(weights_version=name, valid_share=1.0)
            asked = [Proposal(genotype=cell, fidelity=fidelity) for cell in self._cells]
            step = evaluator.scored_at_once
            measured = [
                m for at in range(0, len(asked), step) for m in evaluator.evaluate_together(asked[at : at + step])
            ]
            found = {
                "cells": [cell.key for cell in self._cells],
                "scores": [each.score for each in measured],
                "losses": [each.valid_loss for each in measured],
                "seconds": sum(each.device_seconds or 0.0 for each in measured),
            }
            write_row(path, found)
        return found


def _distinct(table: Tabular, count: int) -> list[Genotype]:
    """Random cells of the table that compute different functions.

    Raises:
        ConfigError: it has fewer.
    """
    cells, found = table.genotypes(), dict[str, Genotype]()
    for index in rng.child(0, "cells of tau").permutation(len(cells)):
        found.setdefault(table.space.twin_key(cells[index]), cells[index])
        if len(found) == count:
            return list(found.values())
    raise ConfigError(f"bench tau cells={count}: the table has {len(found)} different ones")
