"""A table at one number of epochs: what a query gives, and what its training takes."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from nao_ray import rng
from nao_ray.evaluators.parts.table import Column, Table
from nao_ray.evaluators.parts.table_config import TabularConfig


class Rung:
    """The values of a table after so many epochs, as they are in its columns."""

    def __init__(self, table: Table, share_of_cost: float = 1.0) -> None:
        """As described above.

        Args:
            table: its config names the columns of these epochs.
            share_of_cost: of the seconds in the column of the costs, those that these epochs take.
        """
        self.table, self._share = table, share_of_cost

    @property
    def config(self) -> TabularConfig:
        """Its columns."""
        return self.table.config

    def value(self, row: int, seed: int) -> float:
        """What a query gives: of several runs one, drawn by the trial's seed, or their mean."""
        if not self.config.runs:
            return float(self.truth[row])
        if self.config.draw == "mean":
            return float(self.mean[row])
        values = np.array([self.table.columns[name][row] for name in self.config.runs])
        return float(rng.child(seed, "run").choice(values[np.isfinite(values)]))

    def seconds(self, row: int) -> float | None:
        """Of the training; None: the table has none."""
        return float(self.table.columns[self.config.cost][row]) * self._share if self.config.cost else None

    @cached_property
    def truth(self) -> Column:
        """What is searched by, without noise."""
        return self.mean if self.config.valid is None else self.table.columns[self.config.valid]

    @cached_property
    def mean(self) -> Column:
        """Mean of the runs; an architecture may have fewer runs than there are columns."""
        columns = self.table.columns
        mean: Column = np.nanmean(np.stack([columns[name] for name in self.config.runs]), axis=0)
        return mean
