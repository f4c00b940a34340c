"""Ray Tune on a trial that does nothing, set to its fastest and as it is used: what nao_ray's loop is held against."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from nao_ray.bench._scale_course import Course
from nao_ray.errors import RunError

FORMS = ("class", "class, checkpoint at the end", "class, results logged", "function")
"""A class whose actor is used again, with no result written anywhere and no checkpoint: Tune at its fastest. The same
as it comes but for its loggers: a trial that ends is saved, the experiment's state from time to time. The fastest with
the loggers that Tune brings. A function, which is how most write a trial, with no result written."""

_TERSE = {"RAY_AIR_NEW_OUTPUT": "0"}  # with it `verbose=0` is not silent
_NO_LOGGERS = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
_FASTEST = {
    **_NO_LOGGERS,
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the experiment's own state: at the end only
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


class _Trial(tune.Trainable):  # type: ignore[misc]  # ray has no types
    def step(self) -> dict[str, Any]:
        return {"score": self.config["x"], "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"score": self.config["x"]}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True


def _trial(config: dict[str, Any]) -> dict[str, Any]:
    return {"score": config["x"]}


class _Notes(tune.Callback):  # type: ignore[misc]
    def __init__(self, course: Course, concurrent: int) -> None:
        self._course, self._concurrent, self._finished = course, concurrent, 0

    def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: object, **info: object) -> None:
        self._finished += 1
        self._course.add(self._finished, self._concurrent)


def search(form: str, trials: int, concurrent: int, folder: Path) -> Course:
    """Run so many trials, so many at once, on the Ray that is there.

    Raises:
        RunError: not all of them ended.
    """
    course = Course()
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # that results are not logged is what is asked for
    variables = {"class, checkpoint at the end": _NO_LOGGERS, "class, results logged": {}}.get(form, _FASTEST)
    at_end = {"function": None, "class, checkpoint at the end": True}.get(form, False)
    with _environment(_TERSE | variables):
        tune.Tuner(
            _trial if form == "function" else _Trial,
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=concurrent, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=str(folder),
                verbose=0,
                callbacks=[_Notes(course, concurrent)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=at_end),
            ),
        ).fit()
    if course.finished != trials:
        raise RunError(f"bench scale: Ray Tune finished {course.finished} of {trials} trials")
    return course


@contextmanager
def _environment(names: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
