"""What alphas are trained on beside their weights: cut from the training split, or the validation split."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nao_ray.errors import DataError
from nao_ray.tasks.base import Facts
from nao_ray.training.alphas import AlphaOptimiser
from nao_ray.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from nao_ray.training.objective import Objective

_FEWEST = 2
"""Examples of a part: one alone has no batch statistics."""


def told(facts: Facts, recipe: Recipe, alphas: AlphaOptimiser, window: int | None) -> Facts:
    """With what is odd about it.

    Args:
        facts: of the task.
        recipe: of the weights.
        alphas: says what they are trained on.
        window: tokens that a network reads at once; None: the examples are no text.

    Raises:
        DataError: a part makes no step.
    """
    if alphas.split == "valid":
        if window is not None and facts.validating is not None and facts.validating // recipe.batch <= window:
            raise DataError(
                f"{facts.validating:,} validation tokens, which train the alphas (evaluator.alphas.split), make no "
                f"step of {recipe.batch} columns and a window of {window}: give a smaller evaluator.recipe.batch"
            )
        odd = "alphas are trained on the validation examples (evaluator.alphas.split), which score the derived cells"
        return replace(facts, odd=(*facts.odd, odd))
    if facts.examples is None:
        return facts
    weights = int(facts.examples * (1 - alphas.share))
    parts = {"weights": weights, "alphas": facts.examples - weights}
    name = min(parts, key=parts.__getitem__)
    fewest, batch = parts[name], recipe.batch
    if window is not None:
        if fewest // batch <= window:
            raise DataError(
                f"{facts.examples:,} training tokens leave the {name} {fewest:,}, which make no step of {batch} "
                f"columns and a window of {window}: give a smaller evaluator.recipe.batch or another "
                "evaluator.alphas.share"
            )
        return facts
    if fewest < _FEWEST:
        raise DataError(
            f"{facts.examples} training examples leave the {name} {fewest}, which make no step: give more of them "
            f"(task.limit), at least {_FEWEST} for each, or another evaluator.alphas.share"
        )
    if fewest >= batch:
        return facts
    odd = (
        f"evaluator.recipe.batch is {batch}, and the {name} have {fewest} training examples: an epoch is a single step"
    )
    return replace(facts, odd=(*facts.odd, odd))


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
