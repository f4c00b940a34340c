"""A pool for scripts and notebooks: tables, figures, what is new, and how it shows itself."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from nao_ray.config_components import space_of
from nao_ray.errors import ConfigError, NaoRayError, PoolReadError
from nao_ray.pool import TRIALS, PoolReader, View, Watch, to_pandas
from nao_ray.spaces.base import Genotype, SearchSpace

if TYPE_CHECKING:
    from nao_ray.api.plots import Plots

Decoded = Literal["genotypes", "operations", "edges"]

_log = logging.getLogger(__name__)


class Pool(PoolReader):
    """A pool, to read, while its search runs and after. Made by `nao_ray.open_pool`; it changes nothing."""

    _space: SearchSpace[Any] | None = None
    _watch: Watch | None = None
    _goes_on: Callable[[], bool] | None = None  # whether more will come; None: as long as a driver is alive

    @property
    def space(self) -> SearchSpace[Any]:
        """The space of its genotypes.

        Raises:
            PoolError: it is of a module of your own that is not here.
        """
        if self._space is None:
            self._space = space_of(self.manifest, self.url)
        return self._space

    def trials(
        self,
        columns: Sequence[str] | None = None,
        ids: Sequence[int] | None = None,
        *,
        decode: Decoded | None = None,
        rungs: bool = False,
    ) -> pd.DataFrame:
        """Finished trials, by id, failed ones too.

        Args:
            columns: of trials/ (docs/pool.md tells them); None: all.
            ids: of the trials; None: all.
            decode: `genotypes`: the column `genotype` holds `Genotype` objects, as `space.parse` makes them;
                `operations`: a further column ``op:NAME`` for each operation, how often the cells have it;
                `edges`: a further column for each edge, ``ROLE:STATE:INDEX`` as in pictures, with the state that it
                comes from and its operation, ``1 sep_conv_3x3``.
            rungs: on a ladder of fidelities every rung is a row; else each architecture is there once, at its highest.

        Raises:
            PoolError: a part is damaged, or there is no such column.
            ConfigError: `decode` is none of these.
        """
        if decode is None:
            return super().trials(columns, ids, rungs=rungs)
        if decode not in ("genotypes", "operations", "edges"):
            raise ConfigError(f"decode is {decode!r}, expected genotypes, operations or edges")
        wanted = None if columns is None else list(dict.fromkeys([*columns, "genotype", "phase"]))
        found = super().trials(wanted, ids, rungs=rungs)
        parsed = self._parsed(found)
        kept = found if columns is None else found[list(columns)]
        if decode == "genotypes":
            return kept.assign(genotype=parsed)
        return kept.join(_by_genotype(parsed, self._operations if decode == "operations" else self._edges, decode))

    def embeddings(self) -> pd.DataFrame:
        """The points that the controller proposed: a row ``[H]`` for each trial that has one, by its id.

        ``embeddings().to_numpy()`` is the matrix ``[n, H]``; n is 0 where nothing was proposed so.

        Raises:
            PoolError: a part is damaged.
        """
        found = super().trials(["trial_id", "embedding"]).dropna(subset="embedding").set_index("trial_id")["embedding"]
        return pd.DataFrame(np.stack(found.to_list()) if len(found) else np.empty((0, 0)), index=found.index)

    def status(self) -> View:
        """How the search stands now: budget, running, best, pace, driver. Reads what is new since the last call.

        Raises:
            PoolError: the pool is gone, or a part is damaged.
            PoolReadError: it cannot be read at the moment.
        """
        if self._watch is None:
            self._watch = Watch(self.url)
        return self._watch.look()

    def watch(self, columns: Sequence[str] | None = None, *, every: float = 3.0) -> Iterator[pd.DataFrame]:
        """Trials as they finish: first all that have, then each time those that are new; each trial once.

        It reads what is new alone, and ends with the search: when nobody writes the pool any more.

        Args:
            columns: of trials/; None: all.
            every: seconds between two looks.

        Raises:
            PoolError: the pool is gone, or a part is damaged; what cannot be read at the moment is tried again.
        """
        names = list(columns or TRIALS.names)
        tail, seen = self.follow("trials", list(dict.fromkeys([*names, "trial_id"]))), set[int]()
        while True:
            try:
                goes_on = self._is_going_on()  # before the look: what ends after it is seen by the next
                found = to_pandas(tail.read())
            except PoolReadError as error:
                _log.warning("%s; trying again", error)
                goes_on = True
            else:
                new = found[~found["trial_id"].isin(seen)].drop_duplicates("trial_id")
                seen.update(new["trial_id"].tolist())
                if len(new):
                    yield new[names].reset_index(drop=True)
            if not goes_on:
                return
            time.sleep(every)

    @property
    def plot(self) -> Plots:
        """The figures of the report, as matplotlib draws them: ``pool.plot.best_over_trials()``."""
        from nao_ray.api.plots import Plots

        return Plots(self)

    def _is_going_on(self) -> bool:
        return self.status().driver.state == "alive" if self._goes_on is None else self._goes_on()

    # -- decoding -----------------------------------------------------------------------------------------

    def _parsed(self, trials: pd.DataFrame) -> pd.Series[Any]:
        """Genotypes by row; None for what trained shared weights."""
        texts = trials["genotype"].where(trials["phase"].isna())
        known = {text: self.space.parse(str(text)) for text in texts.dropna().unique()}
        return pd.Series([known.get(text) for text in texts], index=trials.index, dtype=object, name="genotype")

    def _operations(self, genotype: Genotype) -> dict[str, int]:
        names = self.space.op_names
        cells = self.space.ops_by_cell(genotype).values()
        return dict(Counter(f"op:{names.get(op, op)}" for ops in cells for op in ops))

    def _edges(self, genotype: Genotype) -> dict[str, str]:
        names = self.space.op_names
        return {
            f"{role}:{cell.inputs + node}:{index}": f"{edge.source} {names.get(edge.op, edge.op)}"
            for role, cell in self.space.lower(genotype).cells
            for node, edges in enumerate(cell.nodes)
            for index, edge in enumerate(edges)
        }

    # -- how it shows itself ------------------------------------------------------------------------------

    def __repr__(self) -> str:
        try:
            view = self.status()
        except NaoRayError as error:
            return f"<Pool {self.url}: {error}>"
        return f"<Pool {self.url}: {view.line}>"

    def _repr_html_(self) -> str:
        from nao_ray.api.html import pool_html

        try:
            view = self.status()
            return pool_html(self, view, view.progress)
        except NaoRayError as error:
            return pool_html(self, None, str(error))


def open_pool(path_or_url: str | Path) -> Pool:
    """A pool, to read: a folder, or an address of object storage.

    Raises:
        PoolError: it is missing, is no pool, or of a newer nao_ray.
    """
    return Pool.open(path_or_url)


def _by_genotype(parsed: pd.Series[Any], of: Callable[[Genotype], dict[str, Any]], decode: Decoded) -> pd.DataFrame:
    """A column for each key of what `of` gives, a row for each genotype."""
    found = {genotype: of(genotype) for genotype in parsed.dropna().unique()}
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    rows = [found.get(genotype, {}) for genotype in parsed]
    if decode == "operations":
        counts = {name: [row.get(name, 0) for row in rows] for name in sorted(names)}
        return pd.DataFrame(counts, index=parsed.index, dtype="int64")
    texts = {name: pd.Categorical([row.get(name) for row in rows]) for name in names}
    return pd.DataFrame(texts, index=parsed.index)
