"""The recurrent cells of ENAS (Pham, Guan, Zoph, Le, Dean, ICML 2018, arXiv 1802.03268).

In the corrected form of its authors, google-research's `enas_lm`. Node 0, which is not sampled, is state 0. A search
samples 9 nodes, the published cell has 8. The search and the final training on GPUs average all nodes; that on TPUs
averages the loose ends alone. The language model of the first code is declared wrong by its authors: its arcs are read,
whose first number is the activation of node 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import Genotype, SpaceConfig
from nao_ray.spaces.parts.recurrent_cell import RecurrentConfig, RecurrentSpace

_CELL = "0:sigmoid 1:tanh 2:relu 2:sigmoid 4:tanh 5:tanh 3:sigmoid 6:sigmoid"
_FIRST = ("tanh", "relu", "identity", "sigmoid")


class EnasRnn(RecurrentSpace[RecurrentConfig]):
    """tanh, relu, sigmoid, identity."""

    name: ClassVar[str] = "enas_rnn"
    skeleton: ClassVar[str] = "enas_recurrent"
    Config: ClassVar[type[SpaceConfig]] = RecurrentConfig
    dialects: ClassVar[tuple[str, ...]] = ("enas_rnn", "enas_lm", "enas", "genotype", "tokens")
    """`enas_lm`: numbers of the corrected code, `enas`: of the first one."""
    ids: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "enas_lm": ("tanh", "relu", "sigmoid", "identity"),
        "enas": _FIRST,
    }
    published: ClassVar[Mapping[str, str]] = {
        "ENAS-RNN": _CELL,
        "ENAS-RNN-loose-ends": f"{_CELL} out=7,8",
    }

    def read(self, text: str, dialect: str) -> Genotype:
        if dialect != "enas":
            return super().read(text, dialect)
        first, *numbers = self.text.integers(text)
        if first != 0:
            raise GenotypeError(f"space {self.name}: node 0 is always tanh, 0 in this dialect, got {first}")
        return super().read(" ".join(map(str, numbers)), dialect)

    def notations(self, genotype: Genotype) -> dict[str, str]:
        told = super().notations(genotype)
        return {dialect: f"0 {text}" if dialect == "enas" else text for dialect, text in told.items()}
