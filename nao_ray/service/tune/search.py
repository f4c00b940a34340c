"""`NAOSearch`: our spaces and strategies as a searcher of Ray Tune, for any trainable, scheduler and callback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nao_ray.addresses import absolute
from nao_ray.metric import Goal
from nao_ray.search.executor import Failure
from nao_ray.service.hosting.checks import Checked
from nao_ray.service.hosting.manifest import metric_of
from nao_ray.service.told import Space, Told, section
from nao_ray.service.tune.searcher import PoolSearcher, value_of
from nao_ray.trial import Measurement, Trial


class NAOSearch(PoolSearcher):
    """Suggests architectures of a space, and keeps their results in a pool like any other.

    The trainable finds in its config `genotype`, the text that `nao_ray.build_network` and the space's `parse` read,
    `space`, the name of its space, `trial_id`, the trial's number in the pool, and `seed`, an integer of the trial's
    own. A trial that a scheduler stops has the last score it reported, and says after how many epochs; one that fails
    is recorded as failed. Proposals are asked ahead, in a thread of their own. ``nao-ray pool`` and ``report`` show the
    pool, also while the Tuner runs.

    After `tune.Tuner.restore` each trial goes on under the proposal that it had, and what was recorded stays. A new
    Tuner with the same arguments goes on with the pool: first with what was left open.
    """

    def __init__(
        self,
        space: Space,
        strategy: str | Mapping[str, Any] = "nao",
        *,
        pool: str,
        seed: int = 0,
        metric: str | None = None,
        mode: str | None = None,
        time_attr: str = "training_iteration",
    ) -> None:
        """As described above.

        Args:
            space: its name, a mapping with `name` and its settings, one of your own as ``package.module:Class``, or a
                class or an instance.
            strategy: its name, or a mapping with `name` and its settings; none that trains shared weights.
            pool: folder or URL, made if it is missing.
            seed: names every draw of the strategy, in [0, 2**63).
            metric: key of the trainable's results; None: as `tune.TuneConfig` says.
            mode: `max` or `min`; None: likewise.
            time_attr: key of the results that says how many epochs a trial has had.

        Raises:
            ConfigError: there is no such space or strategy, or a setting is wrong.
        """
        super().__init__(absolute(pool), metric=metric, mode=mode, time_attr=time_attr)
        self._space, self._strategy, self._seed = section(space), strategy, seed
        self._told(1).config(type(self).__name__)

    def _told(self, samples: int | None) -> Told:
        told = Told(self._space, self._strategy, self._seed, trials=samples)
        goal: Goal = "minimize" if self._mode == "min" else "maximize"
        return told._replace(metric=self._metric, goal=goal) if self._metric else told

    def search(self, samples: int | None) -> Checked:
        """As `PoolSearcher.search`."""
        return self._told(samples).search(type(self).__name__)

    def given(self, trial: Trial) -> dict[str, Any]:
        """As `PoolSearcher.given`."""
        return {
            "genotype": trial.genotype.key,
            "space": trial.genotype.space,
            "trial_id": trial.trial_id,
            "seed": trial.proposal.seed,
        }

    def measured(self, result: Mapping[str, Any], curve: tuple[float, ...]) -> Measurement | Failure:
        """As `PoolSearcher.measured`."""
        value = value_of(result, self._metric, metric_of(self._told(1).config(type(self).__name__)))
        if isinstance(value, Failure):
            return value
        return Measurement(**value, curve=curve, wall_seconds=result.get("time_total_s"))
