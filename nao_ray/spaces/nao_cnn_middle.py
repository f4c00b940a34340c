"""The 'middle' space of NAO-V2: 10 operations (Luo, Qin, Chen, arXiv 1909.10815; ids 0-9 of NAO_pytorch V2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nao_ray.spaces.parts.cnn_cell import CnnCellSpace


class NaoCnnMiddle(CnnCellSpace):
    """Zero, identity, separable and dilated separable convolutions 3, 5, 7, average and max pool 3."""

    name: ClassVar[str] = "nao_cnn_middle"
    ops: ClassVar[tuple[str, ...]] = (
        "zero",
        "identity",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "sep_conv_7x7",
        "dil_sep_conv_3x3",
        "dil_sep_conv_5x5",
        "dil_sep_conv_7x7",
        "avg_pool_3x3",
        "max_pool_3x3",
    )
    dialects: ClassVar[tuple[str, ...]] = ("v2", "tokens")
    id_offset: ClassVar[Mapping[str, int]] = {"v2": 0}
