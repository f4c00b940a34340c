"""The language model that NAO and DARTS train their recurrent cells in.

Published sizes: Luo et al., NeurIPS 2018, arXiv 1808.07233, and Liu et al., ICLR 2019, arXiv 1806.09055: 850 units for
PTB, 700 for WikiText-2, 300 for shared weights. NAO's search without shared weights trains networks of 850 units; here
they have 300, like the shared ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from nao_ray.sizes import Size
from nao_ray.skeletons.texts.base import LanguageConfig, RecurrentSize, RecurrentSkeleton


class Recurrent(RecurrentSkeleton[LanguageConfig]):
    """Its decoder has a bias."""

    name: ClassVar[str] = "recurrent"
    published: ClassVar[Mapping[str, Size]] = {
        "ptb": RecurrentSize(hidden=850),
        "wikitext2": RecurrentSize(hidden=700),
        "text": RecurrentSize(hidden=300),
    }
    searched: ClassVar[Size] = RecurrentSize(hidden=300)
    shared: ClassVar[Size | None] = RecurrentSize(hidden=300)
    relaxed: ClassVar[Size | None] = RecurrentSize(hidden=300)
