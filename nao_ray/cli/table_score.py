"""Cells of a table scored with a pool's shared weights, beside rankings that cost nothing.

The search may never have asked for them: the newest version of its weights is used, and nothing is trained or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nao_ray import rng
from nao_ray.cli.table_audit import agreement
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError
from nao_ray.evaluators.one_shot import OneShot
from nao_ray.evaluators.tabular import Tabular
from nao_ray.skeletons.base import skeleton_of
from nao_ray.spaces.base import Genotype
from nao_ray.strategies.parts.alpha_watch import skips
from nao_ray.trial import Fidelity, Proposal
from nao_ray.yaml_text import load_document

if TYPE_CHECKING:
    from nao_ray.pool import PoolReader

_FEWEST = 3
"""Architectures that have a ranking."""


class TableScore:
    """Cells with their scores.

    Args:
        pool: of a search whose evaluator is `one_shot`.
        table: of the pool's space.
        count: cells drawn of it; None, or more than it has: all.
        version: of the weights; None: the newest.
        share: of the validation examples that score, in (0, 1].

    Raises:
        ConfigError: the pool has no shared weights that score cells, or the table has fewer than three.
        DataError: the data or the table is not what it should be.
        PoolError: there is no such version, or not any more.
    """

    def __init__(
        self,
        pool: PoolReader,
        table: Tabular,
        count: int | None = None,
        version: str | None = None,
        share: float = 1.0,
    ) -> None:
        config = pool.manifest["config"]
        self._config = RunConfig.model_validate(load_document(config) if isinstance(config, str) else config)
        self._table, self._share = table, share
        if len(table) < _FEWEST:
            raise ConfigError(f"a table of {len(table)} architectures ranks nothing: give one of at least {_FEWEST}")
        evaluator = self._config.make_evaluator()
        if not isinstance(evaluator, OneShot):
            name = self._config.evaluator.name
            raise ConfigError(f"{pool.url}: the evaluator {name} has no weights that score a cell")
        self.version = version or _newest(pool)
        evaluator.use(self.version, pool.read_weights(self.version))
        self._evaluator = evaluator
        self.cells = _drawn(table.genotypes(), count)

    def scores(self) -> NDArray[np.float64]:
        """``[n]``, all on the same validation examples; higher is better."""
        evaluator, found = self._evaluator, []
        fidelity = Fidelity(weights_version=self.version, valid_share=self._share)
        proposals = [Proposal(genotype=cell, fidelity=fidelity) for cell in self.cells]
        for start in range(0, len(proposals), evaluator.scored_at_once):
            found += evaluator.evaluate_together(proposals[start : start + evaluator.scored_at_once])
        return np.array([measured.score for measured in found])

    def rows(self, scores: NDArray[np.float64]) -> pd.DataFrame:
        """A row per cell: text, value in the table, score."""
        values = [self._table.valid(cell) for cell in self.cells]
        return pd.DataFrame({"genotype": [cell.key for cell in self.cells], "value": values, "score": scores})

    def agreement(self, scores: NDArray[np.float64]) -> pd.DataFrame:
        """Kendall's tau with the table of the scores, of the numbers of parameters, and of fewer skip connections.

        Of the cells whose score is a finite number; there is no other order among them. Recurrent cells have no skip
        connections, and no such row.

        Raises:
            ConfigError: they are fewer than three.
        """
        space, finite = self._table.space, np.isfinite(scores)
        cells = [cell for cell, is_known in zip(self.cells, finite, strict=True) if is_known]
        if len(cells) < _FEWEST:
            raise ConfigError(
                f"weights {self.version} give {len(cells)} of {len(self.cells)} cells a finite score, which ranks "
                "nothing: name earlier ones with --version"
            )
        rankings = {
            f"weights {self.version}": scores[finite],
            "more parameters": np.array(self._params(cells)),
        }
        counts = [skips(space, cell) for cell in cells]
        if all(counts):
            rankings["fewer skip connections"] = -np.array([sum(each.values()) for each in counts], dtype=float)
        rows = [{"ranked by": name, **agreement(self._table, cells, by)} for name, by in rankings.items()]
        return pd.DataFrame(rows)

    def _params(self, cells: Sequence[Genotype]) -> list[float]:
        """As many as their networks have."""
        space, shapes, size = self._table.space, self._evaluator.task.shapes, self._evaluator.config.size
        skeleton = skeleton_of(space)
        return [float(skeleton.count(space.lower(cell), shapes, size).num_params) for cell in cells]


def _newest(pool: PoolReader) -> str:
    scored = pool.trials(["trial_id", "phase", "state"])
    done = scored[scored["phase"].notna() & (scored["state"] == "COMPLETED")]
    if done.empty:
        raise ConfigError(f"{pool.url} has no shared weights yet")
    version: str = load_document(str(done.sort_values("trial_id")["phase"].iloc[-1]))["version"]
    return version


def _drawn(cells: Sequence[Genotype], count: int | None) -> list[Genotype]:
    if count is None or count >= len(cells):
        return list(cells)
    order = rng.child(0, "cells of a table").permutation(len(cells))[:count]
    return [cells[index] for index in sorted(order.tolist())]
