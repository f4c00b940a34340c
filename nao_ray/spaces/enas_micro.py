"""The micro space of ENAS: a normal and a reduction cell (Pham, Guan, Zoph, Le, Dean, ICML 2018, arXiv 1802.03268).

Text: the code's arc, ``index_1 op_1 index_2 op_2`` per node. NAO's 5-operation space has the same strings; what differs
is the network, see `networks/enas_micro.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nao_ray.spaces.parts.cnn_cell import CnnCellSpace


class EnasMicro(CnnCellSpace):
    """Separable convolutions 3 and 5, average and max pool 3, identity."""

    name: ClassVar[str] = "enas_micro"
    skeleton: ClassVar[str] = "enas_micro"
    ops: ClassVar[tuple[str, ...]] = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity")
    dialects: ClassVar[tuple[str, ...]] = ("enas", "tokens")
    id_offset: ClassVar[Mapping[str, int]] = {"enas": 0}
    published: ClassVar[Mapping[str, str]] = {
        "ENAS-micro": "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1",
        # NAO's with shared weights, whose published training is in ENAS's network.
        "NAONet-WS-TF": "0 1 0 4 2 2 1 3 1 0 2 0 2 3 1 3 1 2 0 4 1 1 0 3 2 3 2 3 1 0 0 1 0 4 2 4 2 3 2 3",
    }
