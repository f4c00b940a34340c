"""A stated function of the cell instead of a training, so that a whole search runs in milliseconds.

For tests, the virtual clock and studies of strategies. The landscape has what real ones have and a predictor must
learn: operations of different worth, worth that depends on where in the cell an operation sits, interactions between
the two edges of a node and between an edge and the node it reads, and a depth that is neither chain nor star.

    worth(edge)  = quality(op) * 0.85 ** (longest path from the cell's inputs to the edge's source)
    node         = mean worth of its edges, + 0.15 if their operations differ, - 0.15 if op and source are equal
                   + 0.1 for each edge that puts a convolution on a node with a pooling edge
    cell         = mean over nodes - 0.6 * (longest path / nodes - 0.6) ** 2 - 0.04 * max(0, loose ends - 3)
    accuracy     = 0.5 + 0.5 * sigmoid(6 * (0.7 * normal + 0.3 * reduction - 0.4))        in (0.5, 1)

Roles other than normal and reduction share the weight evenly.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from nao_ray import rng
from nao_ray.evaluators.base import Evaluator, EvaluatorConfig
from nao_ray.metric import ACCURACY, Metric
from nao_ray.spaces.base import ArchGraph, Cell
from nao_ray.tasks.base import Task
from nao_ray.trial import Fidelity, Measurement, Proposal

_QUALITY = {  # worth of an operation on fresh input, made up; others get a hash of their name in [0, 1]
    "identity": 0.45,
    "zero": 0.0,
    "conv_1x1": 0.5,
    "conv_3x3": 0.9,
    "conv_1x3_3x1": 0.85,
    "conv_1x7_7x1": 0.7,
    "sep_conv_3x3": 1.0,
    "sep_conv_5x5": 0.9,
    "sep_conv_7x7": 0.75,
    "dil_sep_conv_3x3": 0.7,
    "dil_sep_conv_5x5": 0.6,
    "dil_sep_conv_7x7": 0.5,
    "max_pool_2x2": 0.2,
    "max_pool_3x3": 0.35,
    "max_pool_5x5": 0.3,
    "avg_pool_2x2_padded": 0.2,
    "avg_pool_3x3": 0.4,
    "avg_pool_3x3_padded": 0.35,
    "avg_pool_5x5_padded": 0.25,
}
_ROLE_WEIGHT = {"normal": 0.7, "reduction": 0.3}


class ClosedFormConfig(EvaluatorConfig):
    """Noise, and what an evaluation costs."""

    noise: float = Field(default=0.0, ge=0)
    """Standard deviation of Gaussian noise on the accuracy, drawn with the proposal's seed."""
    sleep_seconds: float = Field(default=0.0, ge=0)
    """Real time that an evaluation takes, in seconds."""
    cost_seconds: float = Field(default=1.0, gt=0)
    """Reported time of a cell without convolutions, in seconds; each convolution adds a tenth of it."""
    epochs: int | None = Field(default=None, ge=1)
    """Length of the reported curve, which rises to the accuracy; on a ladder of fidelities it ends at its rung, and a
    rung takes its share of the time."""


class ClosedForm(Evaluator[ClosedFormConfig]):
    """The accuracy of a genotype by formula; sees no data."""

    Config: ClassVar[type[EvaluatorConfig]] = ClosedFormConfig
    needs_task: ClassVar[bool] = False
    keeps_states: ClassVar[bool] = False

    @classmethod
    def fidelity(cls, config: ClosedFormConfig) -> Fidelity:
        return Fidelity(epochs=config.epochs)

    @classmethod
    def metric(cls, config: ClosedFormConfig, task: Task[Any] | None) -> Metric:  # noqa: ARG003
        return ACCURACY

    @classmethod
    def check_rungs(cls, config: ClosedFormConfig, epochs: Sequence[int]) -> None:
        """Any."""

    def evaluate(self, proposal: Proposal) -> Measurement:
        if self.config.sleep_seconds:
            time.sleep(self.config.sleep_seconds)
        graph = self.space.lower(proposal.genotype)
        value, epochs = accuracy(graph), proposal.fidelity.epochs
        if self.config.noise:
            draw = rng.child(proposal.seed, "closed form noise").normal(0, self.config.noise)
            value = float(np.clip(value + draw, 0.0, 1.0))
        convolutions = sum("conv" in edge.op for _, cell in graph.cells for node in cell.nodes for edge in node)
        seconds = self.config.cost_seconds * (1 + 0.1 * convolutions)
        curve = tuple(value * (1 - 0.5 ** (epoch + 1)) for epoch in range(epochs)) if epochs else None
        if self.rungs and epochs and curve:  # as far up the curve as this rung is, in its share of the time
            value, seconds = curve[-1], seconds * (epochs - self.epochs_before(proposal)) / self.rungs[-1]
        return Measurement(
            valid_accuracy=value, curve=curve, wall_seconds=seconds, device_seconds=seconds, device="closed_form"
        )


def accuracy(graph: ArchGraph) -> float:
    """The formula above, in (0.5, 1)."""
    weights = [_ROLE_WEIGHT.get(role, 1.0) for role, _ in graph.cells]
    total = sum(weight * _cell(cell) for weight, (_, cell) in zip(weights, graph.cells, strict=True)) / sum(weights)
    return float(0.5 + 0.5 / (1 + np.exp(-6 * (total - 0.4))))


def _cell(cell: Cell) -> float:
    depth = [0] * cell.inputs  # longest path from an input, per state
    pooled = [False] * cell.inputs
    values = []
    for node in cell.nodes:
        value = float(np.mean([_quality(edge.op) * 0.85 ** depth[edge.source] for edge in node]))
        ops = {edge.op for edge in node}
        if len(ops) > 1:
            value += 0.15
        elif len(set(node)) < len(node):
            value -= 0.15
        value += 0.1 * sum("conv" in edge.op and pooled[edge.source] for edge in node)
        values.append(value)
        depth.append(1 + max(depth[edge.source] for edge in node))
        pooled.append(any("pool" in op for op in ops))
    spread = max(depth) / len(cell.nodes) - 0.6
    return float(np.mean(values)) - 0.6 * spread**2 - 0.04 * max(0, len(cell.output) - 3)


def _quality(op: str) -> float:
    if op in _QUALITY:
        return _QUALITY[op]
    return hashlib.sha256(op.encode()).digest()[0] / 255
