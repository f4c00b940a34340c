"""A search with shared weights against a table of its space: what it derived and scored, and what the table says of it.

Nothing is trained: the pool has the cell after each phase of alphas, and the scores with each version of shared
weights; the table has the score of all cells, each trained on its own. Of a ladder of fidelities the trials of one rung
alone stand beside it: scores after several numbers of epochs are no one ranking.

Legend: `n` architectures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from nao_ray.config_text import complaint
from nao_ray.errors import ConfigError
from nao_ray.evaluators.parts.table_config import TabularConfig
from nao_ray.evaluators.tabular import Tabular
from nao_ray.report.tables import of_one_rung
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.parts.alpha_watch import has_skips, skips
from nao_ray.strategies.parts.shared_search import audit
from nao_ray.trial import TrialState

if TYPE_CHECKING:
    from nao_ray.pool import PoolReader

_TAU = {"tau": "tau", "low": "tau_low", "high": "tau_high"}
_COLUMNS = [
    "trial_id", "genotype", "phase", "derived_genotype", "weights_version", "state", "epochs", "parent_trial_id"
]  # fmt: skip
_FEWEST = 3
"""Architectures that have a ranking."""


class TableAudit:
    """Looks a pool's cells up.

    Args:
        pool: of a search with shared weights.
        table: of the pool's space.

    Raises:
        ConfigError: the pool has neither derived cells nor scores.
        DataError: the table is not what it should be, or does not have a cell.
    """

    def __init__(self, pool: PoolReader, table: Tabular) -> None:
        self._pool, self._table = pool, table
        self._metric = pool.metric
        self._trials = pool.trials([*_COLUMNS, self._metric.column], rungs=True)
        if self.derived.empty and self.agreement.empty:
            raise ConfigError(f"{pool.url} has neither derived cells nor three scores to compare with a table")

    @cached_property
    def derived(self) -> pd.DataFrame:
        """A row per phase of alphas: what it came to, its value in the table, and its rank there, 1 the best."""
        space = self._table.space
        found = self._trials[self._trials["derived_genotype"].notna()]
        phases = [json.loads(text) for text in found["phase"]]
        alarms = self._alarms()
        rows = []
        for phase, text in zip(phases, found["derived_genotype"], strict=True):
            genotype = space.parse(text)
            value = self._table.valid(genotype)
            rows.append(
                {
                    "weights": phase["version"],
                    "epoch": int(phase["last_epoch"]),
                    "value": value,
                    "rank": self._table.rank_of(value),
                    **({"skips": sum(skips(space, genotype).values())} if has_skips(space) else {}),
                    "alarm": alarms.get(phase["version"], ""),
                    "genotype": text,
                }
            )
        return pd.DataFrame(rows)

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """A row per version of shared weights, and one of networks trained alone (``-``): Kendall's tau with the table.

        With its 95 % interval, a bootstrap over the n architectures; versions with fewer than three are left out.
        """
        done = self._compared
        versions = done.groupby(done["weights_version"].astype(object).fillna("-").astype(str), sort=True)
        rows = [
            {"weights": version, **self._agreement(group.drop_duplicates("genotype"))} for version, group in versions
        ]
        return pd.DataFrame([row for row in rows if row["tau"] is not None])

    @cached_property
    def _compared(self) -> pd.DataFrame:
        """Trials with a score, of a ladder those of one rung."""
        trials = self._trials
        has_score = (trials["state"] == TrialState.COMPLETED.value) & trials[self._metric.column].notna()
        return of_one_rung(trials[has_score & trials["phase"].isna()], _FEWEST)

    @property
    def rung(self) -> int | None:
        """Of a ladder of fidelities the epochs of the rung that is compared; None: there is none."""
        return int(self._compared["epochs"].max()) if self._pool.rungs and len(self._compared) else None

    def _agreement(self, trials: pd.DataFrame) -> dict[str, float | int | None]:
        """Of distinct genotypes."""
        cells = [Genotype(self._table.space.name, str(text)) for text in trials["genotype"]]
        scores = np.array([self._metric.score(value) for value in trials[self._metric.column]])
        return agreement(self._table, cells, scores)

    @property
    def size(self) -> int:
        """Architectures of the table."""
        return len(self._table)

    def _alarms(self) -> dict[str, str]:
        """By version, the rule that fired after it."""
        fits = self._pool.fits()
        if "alarm" not in fits:
            return {}
        fired = fits[fits["alarm"].notna() & fits["weights_version"].notna()]
        return dict(zip(fired["weights_version"].astype(str), fired["alarm"].astype(str), strict=True))


def agreement(table: Tabular, cells: Sequence[Genotype], scores: NDArray[np.float64]) -> dict[str, float | int | None]:
    """Kendall's tau of scores with a table, its 95 % interval, and what the table says of the best by score.

    Args:
        table: that has the cells.
        cells: n distinct ones.
        scores: ``[n]``, higher is better.
    """
    known = np.array([table.valid(cell) for cell in cells])
    facts = audit(scores, np.array([table.measure.score(value) for value in known]), seed=0)
    best = float(known[int(scores.argmax())])
    return {
        "n": facts["audited"],
        **{name: facts[f"audit_{key}"] for name, key in _TAU.items()},
        "value of the best": best,
        "its rank": table.rank_of(best),
    }


def open_table(space: SearchSpace[Any], settings: Mapping[str, Any]) -> Tabular:
    """The table, in a space that treats twins as it does.

    Args:
        space: the pool's.
        settings: those of the evaluator `tabular`.

    Raises:
        ConfigError: a setting is not what it should be.
        DataError: the table is not what it should be.
    """
    try:
        config = TabularConfig(**settings)
    except ValidationError as error:
        raise complaint(error, TabularConfig) from None
    table = Tabular(space, None, config)
    table.facts()  # opens and checks
    changed = table.settled().get("space")
    if changed is None:
        return table
    return Tabular(type(space)(space.config.model_copy(update=changed)), None, config)
