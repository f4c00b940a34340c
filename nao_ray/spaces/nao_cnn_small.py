"""The space of NAO with weight sharing: 5 operations (arXiv 1808.07233; ids 0-4 of NAO_pytorch V1, V2 'small')."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nao_ray.spaces.parts.cnn_cell import CnnCellSpace


class NaoCnnSmall(CnnCellSpace):
    """Separable convolutions 3 and 5, average and max pool 3, identity: the operations of ENAS."""

    name: ClassVar[str] = "nao_cnn_small"
    ops: ClassVar[tuple[str, ...]] = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity")
    dialects: ClassVar[tuple[str, ...]] = ("v1", "tokens")
    id_offset: ClassVar[Mapping[str, int]] = {"v1": 0}
    published: ClassVar[Mapping[str, str]] = {
        "NAONet-B": "0 1 0 2 0 1 2 2 1 3 0 2 4 0 1 3 2 1 0 3 1 1 1 0 2 1 2 4 1 0 2 3 3 1 2 2 0 2 0 2",
        "NAONet-V2": "1 1 0 1 2 4 0 0 0 0 2 1 0 0 0 2 0 3 0 0 0 2 0 2 2 2 1 0 0 0 0 1 0 0 0 3 0 0 0 1",
        "NAONet-WS": "0 1 0 4 2 2 1 3 1 0 2 0 2 3 1 3 1 2 0 4 1 1 0 3 2 3 2 3 1 0 0 1 0 4 2 4 2 3 2 3",
    }
