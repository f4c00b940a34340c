"""What every evaluator keeps: a score follows from the constructor and the proposal, however often it is asked for."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

from nao_ray import registry, rng
from nao_ray.contracts.checking import about, require
from nao_ray.evaluators.base import Evaluator
from nao_ray.metric import ACCURACY, Metric
from nao_ray.spaces.base import SearchSpace
from nao_ray.tasks.base import Task
from nao_ray.trial import Fidelity, Measurement, Proposal

Make = Callable[[], Evaluator[Any]]

_CLOSE = 1e-6  # relative: the arithmetic of a device


def check_evaluator(
    evaluator: type[Evaluator[Any]],
    *,
    space: type[SearchSpace[Any]] | SearchSpace[Any] | None = None,
    task: Task[Any] | None = None,
    **settings: object,
) -> None:
    """Check an evaluator as those of nao_ray are checked: it scores one architecture twice, and another one.

    Args:
        evaluator: a class. Of one with shared weights what needs none is checked.
        space: of the architectures; None: `nao_cnn_small`.
        task: None: a small one of made-up images, if it needs one.
        settings: of its `Config`, small enough to be evaluated in a moment.

    Raises:
        AssertionError: says what is broken.
    """
    given = registry.load("space", "nao_cnn_small") if space is None else space
    home: SearchSpace[Any] = given() if isinstance(given, type) else given
    if task is None and evaluator.needs_task:
        made_up = registry.load("task", "synthetic")
        task = made_up(made_up.Config(limit=100))

    def make() -> Evaluator[Any]:
        return evaluator(home, task, evaluator.settings(home)(**settings))

    scores = evaluator.measures and not evaluator.shares_weights
    for check in (*WITHOUT_SCORES, *WITH_SCORES) if scores else WITHOUT_SCORES:
        with about(f"{evaluator.__name__}, {check.__name__.replace('_', ' ')}"):
            check(make)


def what_is_measured_is_known_beforehand(make: Make) -> None:
    """Fidelity and metric follow from the config."""
    evaluator = make()
    fidelity, metric = type(evaluator).fidelity(evaluator.config), evaluator.measure
    require(isinstance(fidelity, Fidelity), f"fidelity gives {fidelity!r}, expected a Fidelity")
    require(isinstance(metric, Metric), f"metric gives {metric!r}, expected a Metric")


def the_hash_names_the_data(make: Make) -> None:
    """The same in each instance."""
    digest = make().data_hash()
    require(isinstance(digest, str) and digest, f"data_hash is {digest!r}, expected a hexadecimal digest")
    require(digest == make().data_hash(), "data_hash is another one when it is asked for again")


def _proposal(evaluator: Evaluator[Any], k: int) -> Proposal:
    space = evaluator.space
    genotype = space.sample(rng.child(7, "contract", k))
    tokens = tuple(space.encode(genotype).tolist())
    fidelity = type(evaluator).fidelity(evaluator.config)
    return Proposal(genotype=genotype, tokens=tokens, fidelity=fidelity, trial_id=k, seed=rng.child_seed(7, "trial", k))


def _value(evaluator: Evaluator[Any], measured: Measurement) -> float:
    metric = evaluator.measure
    value = getattr(measured, metric.column)
    require(value is not None, f"the measurement has no {metric.column}, where metric() says it is")
    return float(value)


def a_score_is_of_the_metric(make: Make) -> None:
    """It stands where the metric says, finite, and an accuracy in [0, 1]; the measurement can be sent."""
    evaluator = make()
    evaluator.prepare()
    measured = evaluator.evaluate(_proposal(evaluator, 0))
    require(isinstance(measured, Measurement), f"evaluate gives {type(measured).__name__}, expected a Measurement")
    value = _value(evaluator, measured)
    require(math.isfinite(value), f"the score is {value}")
    is_accuracy = evaluator.measure == ACCURACY
    require(not is_accuracy or 0 <= value <= 1, f"the accuracy is {value}, expected a share in [0, 1], no percent")
    require(pickle.loads(pickle.dumps(measured)) == measured, "the measurement is another one when it was sent")


def a_proposal_has_one_score(make: Make) -> None:
    """In any instance, whatever was evaluated before."""
    first, again = make(), make()
    value = _value(first, first.evaluate(_proposal(first, 0)))
    again.evaluate(_proposal(again, 1))
    other = _value(again, again.evaluate(_proposal(again, 0)))
    same = math.isclose(value, other, rel_tol=_CLOSE)
    require(same, f"one proposal has the scores {value} and {other}: what is random must follow from proposal.seed")


WITHOUT_SCORES: tuple[Callable[[Make], None], ...] = (what_is_measured_is_known_beforehand, the_hash_names_the_data)
WITH_SCORES: tuple[Callable[[Make], None], ...] = (a_score_is_of_the_metric, a_proposal_has_one_score)
