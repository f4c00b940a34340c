"""The recurrent cells of DARTS: 8 nodes (Liu, Simonyan, Yang, ICLR 2019, arXiv 1806.09055).

Without `none`, which no derived cell has. Its code also has ENAS's cell, which is of 11 nodes and averages some of
them: that one is built and trained, not searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nao_ray.spaces.base import Genotype, SpaceConfig
from nao_ray.spaces.parts.recurrent_cell import ROLE, RecurrentConfig, RecurrentSpace
from nao_ray.spaces.parts.relaxed import NONE, strongest

_V2 = "0:sigmoid 1:relu 1:relu 1:identity 2:tanh 5:sigmoid 3:tanh 5:relu"


class DartsRnn(RecurrentSpace[RecurrentConfig]):
    """tanh, relu, sigmoid, identity."""

    name: ClassVar[str] = "darts_rnn"
    Config: ClassVar[type[SpaceConfig]] = RecurrentConfig
    dialects: ClassVar[tuple[str, ...]] = ("darts_rnn", "genotype", "tokens")
    # V1 and V2 are releases of the code, not its first and second order.
    published: ClassVar[Mapping[str, str]] = {
        "DARTS-RNN-V1": "0:relu 1:relu 2:tanh 3:relu 4:relu 1:identity 5:relu 1:relu",
        **dict.fromkeys(("DARTS-RNN-V2", "DARTS-RNN"), _V2),
        "ENAS-RNN-DARTS": (
            "0:tanh 1:tanh 1:relu 3:tanh 3:tanh 3:relu 4:relu 7:relu 8:relu 8:relu 8:relu out=2,5,6,9,10,11"
        ),
    }

    def __init__(self, config: RecurrentConfig | None = None) -> None:
        super().__init__(config)
        self.alpha_edges = {ROLE: self.nodes * (self.nodes + 1) // 2}

    @property
    def primitives(self) -> tuple[str, ...]:
        return (NONE, *self.activations)

    def derive(self, alphas: Sequence[Any]) -> Genotype:
        """Each node has its strongest edge; `none` takes its share of the softmax and is never chosen."""
        (alpha,) = alphas
        nodes = strongest(alpha, self.primitives, inputs=1, kept=1)
        return self.read(" ".join(f"{source}:{op}" for ((op, source),) in nodes), self.dialects[0])
