"""Checks of components of your own, by what those of nao_ray keep: AssertionError says what is broken."""

from __future__ import annotations

from nao_ray.contracts.evaluators import check_evaluator
from nao_ray.contracts.skeletons import check_skeleton
from nao_ray.contracts.spaces import check_space
from nao_ray.contracts.strategies import check_strategy
from nao_ray.contracts.tasks import check_task

__all__ = ["check_evaluator", "check_skeleton", "check_space", "check_strategy", "check_task"]
