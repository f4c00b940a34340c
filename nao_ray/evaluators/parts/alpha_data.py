"""What alphas are trained on beside their weights: cut from the training split, or the validation split."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nao_ray.errors import DataError
from nao_ray.tasks.base import Facts, Task
from nao_ray.training.alphas import AlphaOptimiser
from nao_ray.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from nao_ray.training.objective import Objective


def check(facts: Facts, task: Task[Any], recipe: Recipe, alphas: AlphaOptimiser) -> None:
    """Refuse parts that make no step.

    Args:
        facts: of the data.
        task: that they are of.
        recipe: of the weights.
        alphas: says what they are trained on.

    Raises:
        DataError: one makes none.
    """
    task.check_step(facts, recipe, "evaluator.recipe")
    setting = f"evaluator.alphas.share {alphas.share:g}"
    parts = _parts(facts, alphas)
    if alphas.split == "valid":
        parts, setting = (
            {} if facts.validating is None else {"alphas": facts.validating},
            "evaluator.alphas.split valid",
        )
    for name, examples in parts.items():
        if lacking := task.too_few(examples, recipe, "evaluator.recipe", f"train the {name} ({setting})"):
            raise DataError(lacking)


def told(facts: Facts, recipe: Recipe, alphas: AlphaOptimiser) -> Facts:
    """With what is odd about it.

    Args:
        facts: of the task.
        recipe: of the weights.
        alphas: says what they are trained on.
    """
    if alphas.split == "valid":
        odd = "alphas are trained on the validation examples (evaluator.alphas.split), which score the derived cells"
        return replace(facts, odd=(*facts.odd, odd))
    parts = _parts(facts, alphas)
    name = min(parts, key=parts.__getitem__, default=None)
    if name is None or parts[name] >= recipe.batch:
        return facts
    odd = (
        f"evaluator.recipe.batch is {recipe.batch}, and the {name} have {parts[name]} training examples: an epoch is a "
        "single step"
    )
    return replace(facts, odd=(*facts.odd, odd))


def _parts(facts: Facts, alphas: AlphaOptimiser) -> dict[str, int]:
    """Examples of the training split by what they train; {}: unknown."""
    if facts.examples is None:
        return {}
    weights = int(facts.examples * (1 - alphas.share))
    return {"weights": weights, "alphas": facts.examples - weights}


def parts_of(
    whole: Objective, alphas: AlphaOptimiser, order: torch.Generator, *, augment: bool
) -> tuple[Objective, Objective]:
    """What weights are trained on, and what alphas are.

    Args:
        whole: under the recipe of the weights.
        alphas: says what they are trained on.
        order: names the cut.
        augment: examples are augmented for the alphas as for the weights.

    Raises:
        DataError: a part makes no step.
    """
    first, second = (whole, whole.on_validation()) if alphas.split == "valid" else whole.cut(order, alphas.share)
    recipe = whole.recipe.of_alphas(augment=augment)
    return first, second if recipe is whole.recipe else second.under(recipe)
