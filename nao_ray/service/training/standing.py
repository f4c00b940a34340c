"""How full trainings stand, by the checkpoints that they keep: from any machine that sees their folder."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nao_ray.config import TrainConfig
from nao_ray.errors import DataError
from nao_ray.metric import Metric
from nao_ray.pool import Finals
from nao_ray.service.training.about import About, about_of, digest

_NAME = re.compile(r".+-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Of one training, when its last checkpoint was kept."""

    name: str
    done: int
    """Epochs."""
    epochs: int
    loss: float
    """Mean training loss of the last of them, in nats."""
    metric: Metric
    curve: tuple[float, ...]
    """The validation score after each epoch, more is better; empty where nothing validates."""
    seconds_left: float
    test: float | None
    """The test score, once it has ended."""

    @property
    def best(self) -> float | None:
        """The best validation score so far; it is the last epoch that counts."""
        return max(self.curve, default=None)


def mark_of(label: str, config: TrainConfig) -> str:
    """What tells a training from others before its data have been read.

    Args:
        label: begins its name.
        config: what is trained, and how.
    """
    return f"{label}-{config.recipe.name}-{digest(config, '')}"


class Trainings:
    """Those of a folder or URL, to be looked at again and again."""

    def __init__(self, url: str) -> None:
        """Nothing is read.

        Raises:
            PoolError: there is no such kind of URL.
        """
        self._finals = Finals(url)
        self._over: dict[str, Standing] = {}  # which do not change any more

    def look(self) -> list[Standing]:
        """All that have kept a checkpoint, by name.

        Raises:
            PoolReadError: they cannot be read at the moment.
        """
        return [seen for name in self._names("") if (seen := self._seen(name)) is not None]

    def find(self, mark: str) -> Standing | None:
        """The one of a mark; None while there is none.

        Raises:
            PoolReadError: it cannot be read at the moment.
        """
        for name in self._names(mark[:-8]):
            about = self._about(name)
            if about is not None and len(name) == len(mark) and digest(about.config, "") == mark[-8:]:
                return self._seen(name)
        return None

    def _names(self, beginning: str) -> list[str]:
        """Others in the folder, as shared weights, are named otherwise."""
        return [name for name in self._finals.names() if name.startswith(beginning) and _NAME.fullmatch(name)]

    def _about(self, name: str) -> About | None:
        header = self._finals.checkpoint_header(name)
        try:
            return None if header is None else about_of(header, name)
        except DataError:  # of something else, or of a nao_ray to come
            return None

    def _seen(self, name: str) -> Standing | None:
        if name in self._over:
            return self._over[name]
        about = self._about(name)
        if about is None:
            return None
        metric = about.config.make_task().metric
        row = self._finals.row(name) if about.epochs_done == about.config.epochs else None
        tested = None if row is None else row.get(metric.test_column)
        seen = Standing(
            name=name,
            done=about.epochs_done,
            epochs=about.config.epochs,
            loss=about.train_loss,
            metric=metric,
            curve=tuple(map(metric.score, about.curve)),
            seconds_left=about.wall_seconds / about.epochs_done * (about.config.epochs - about.epochs_done),
            test=None if tested is None else metric.score(tested),
        )
        if row is not None:
            self._over[name] = seen
        return seen
