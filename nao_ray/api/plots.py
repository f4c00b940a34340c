"""The figures of the report for a notebook: each a method that draws on an Axes of matplotlib and returns it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nao_ray.errors import PoolError
from nao_ray.metric import BY_COLUMN, Metric
from nao_ray.report import charts, shared, tables

if TYPE_CHECKING:
    from nao_ray.pool import PoolReader

_COLUMNS = (
    "trial_id", "log_index", "state", "phase", "weights_version", "round", "predicted_score", *BY_COLUMN, "num_params",
    "wall_seconds", "device_seconds", "epochs", "parent_trial_id",
)  # fmt: skip


class Plots:
    """Of one pool, as it is when a figure is drawn.

    Each method takes `axes`, on which it draws (None: a figure of its own), and raises `PoolError` where the pool has
    nothing for it yet. What was scored with several versions of shared weights is no series: of such a search the
    figures show the networks trained alone, but for `mean_and_best`, `shared_and_alone` and `predicted_and_measured`;
    of a ladder of fidelities those of the highest rung, but for the last of these.
    """

    def __init__(self, pool: PoolReader) -> None:
        self._pool = pool

    def __dir__(self) -> list[str]:
        return [name for name in vars(type(self)) if not name.startswith("_")]

    def best_over_trials(self, axes: Axes | None = None) -> Axes:
        """Every score, and the best so far, over the number of completed trials."""
        done, metric = self._alone()
        return self._draw(axes, charts.best_over_trials, tables.floats(done[metric.column]), metric)

    def best_over_time(self, axes: Axes | None = None) -> Axes:
        """The best so far over device time, added up in the order trials finished."""
        done, metric = self._alone()
        seconds = tables.device_seconds(done)
        if seconds[-1] <= 0:
            raise PoolError(f"no trial of {self._pool.url} has a time")
        return self._draw(axes, charts.best_over_time, seconds, tables.floats(done[metric.column]), metric)

    def scores_by_round(self, axes: Axes | None = None) -> Axes:
        """The scores of each round and their medians; round 0 are the seeds."""
        done, metric = self._alone()
        rounds = tables.by_round(done, metric)
        if not rounds:
            raise PoolError(f"the strategy of {self._pool.url} knows no rounds")
        return self._draw(axes, charts.scores_by_round, rounds, metric)

    def predicted_and_measured(self, axes: Axes | None = None) -> Axes:
        """What the controller predicted against what was measured; on the dashed line they are equal."""
        done, metric, is_shared = self._done()
        done = shared.scores_of_versions(done) if is_shared else done
        scores, predicted = tables.floats(done[metric.column]), tables.floats(done["predicted_score"])
        predicted = predicted * metric.score(1.0)
        known = np.isfinite(predicted)
        if known.sum() < 2:
            raise PoolError(f"{self._pool.url} has {known.sum()} completed trials with a prediction, and it takes two")
        has_line = not is_shared and charts.ranges_meet(predicted[known], scores[known])
        chart = charts.predicted_and_measured
        return self._draw(axes, chart, predicted[known], scores[known], metric, has_line=has_line)

    def map_of_embeddings(self, axes: Axes | None = None) -> Axes:
        """The embeddings that were proposed, on their two principal axes, coloured by score."""
        done, metric = self._alone()
        points = self._pool.trials(["trial_id", "embedding"]).set_index("trial_id")["embedding"]
        found = tables.embedding_map(done.assign(embedding=done["trial_id"].map(points)), metric)
        if found is None:
            raise PoolError(f"{self._pool.url} has fewer than three completed trials with an embedding")
        return self._draw(axes, charts.map_of_embeddings, *found, metric)

    def size_and_score(self, axes: Axes | None = None) -> Axes:
        """Score over the number of parameters."""
        done, metric = self._alone()
        known = done[done["num_params"].notna()]
        if known.empty:
            raise PoolError(f"no completed trial of {self._pool.url} has a number of parameters")
        params = tables.floats(known["num_params"])
        return self._draw(axes, charts.size_and_score, params, tables.floats(known[metric.column]), metric)

    def mean_and_best(self, axes: Axes | None = None) -> Axes:
        """Mean and best score with shared weights, of each round."""
        done, metric, _ = self._done()
        rounds = shared.by_round(done, metric)
        if not rounds:
            raise PoolError(f"no trial of {self._pool.url} was scored with shared weights")
        return self._draw(axes, charts.mean_and_best, rounds, metric)

    def shared_and_alone(self, axes: Axes | None = None) -> Axes:
        """Scores with shared weights against those of the same architectures trained alone."""
        done, metric, _ = self._done()
        texts = self._pool.trials(["trial_id", "genotype"]).set_index("trial_id")["genotype"]
        audit = shared.audit(done.assign(genotype=done["trial_id"].map(texts)), self._pool.fits(), metric)
        if audit is None or not len(audit.alone):
            raise PoolError(f"the shared scores of {self._pool.url} were not audited, or not yet")
        return self._draw(axes, charts.shared_and_alone, audit, metric)

    def fit_quality(self, axes: Axes | None = None) -> Axes:
        """The controller's qualities over the rounds."""
        curves = tables.fit_curves(shared.other_fits(self._pool.fits()))
        if not curves:
            raise PoolError(f"the strategy of {self._pool.url} has told of no fit")
        return self._draw(axes, charts.fit_quality, curves, height=charts.fit_height(curves))

    # -- parts --------------------------------------------------------------------------------------------

    def _done(self) -> tuple[pd.DataFrame, Metric, bool]:
        """The completed trials with a score, in the order they were told; whether they have shared weights."""
        trials = self._pool.trials(_COLUMNS)
        metric = tables.metric_of(self._pool.manifest, trials)
        done = tables.completed(trials, metric)
        if done.empty:
            raise PoolError(f"{self._pool.url} has no completed trial with a score yet")
        return done, metric, shared.is_shared(trials)

    def _alone(self) -> tuple[pd.DataFrame, Metric]:
        done, metric, is_shared = self._done()
        if is_shared and (done := shared.trained_alone(done)).empty:
            raise PoolError(
                f"{self._pool.url} has scores with shared weights alone so far, which are no series: take mean_and_best"
            )
        return tables.at_the_top(done), metric

    def _draw(
        self,
        axes: Axes | None,
        chart: Callable[..., None],
        *data: Any,  # noqa: ANN401 - the chart's own
        height: float = charts.SIZE[1],
        **options: Any,  # noqa: ANN401
    ) -> Axes:
        with mpl.rc_context(charts.STYLE):
            if axes is None:
                from matplotlib import pyplot

                _, axes = pyplot.subplots(figsize=(charts.SIZE[0], height), layout="constrained")
            chart(axes, *data, **options)
        return axes
