"""The language model that ENAS trains its recurrent cells in: its decoder has no bias.

Published sizes: the corrected code of Pham, Guan, Zoph, Le, Dean, ICML 2018, arXiv 1802.03268 (google-research's
`enas_lm`): 800 units on GPUs, 850 on TPUs, 200 for shared weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from nao_ray.sizes import Size
from nao_ray.skeletons.base import SkeletonConfig
from nao_ray.skeletons.texts.base import LanguageConfig, RecurrentSize, RecurrentSkeleton


class EnasLanguageConfig(LanguageConfig):
    """What one would do otherwise than the published networks."""

    decoder_bias: bool = False
    """The decoder has a bias, which begins at 0."""
    init_range: float = Field(default=0.05, gt=0)
    """Weights of a network of one genotype begin uniform in +- this, 0.04 on TPUs; shared ones in +-0.04."""


class EnasRecurrent(RecurrentSkeleton[EnasLanguageConfig]):
    """As ENAS trains it."""

    Config: ClassVar[type[SkeletonConfig]] = EnasLanguageConfig
    name: ClassVar[str] = "enas_recurrent"
    shared_recipe: ClassVar[str] = "enas_rnn_search"
    shared_batch: ClassVar[int] = 128
    published: ClassVar[Mapping[str, Size]] = {
        "ptb": RecurrentSize(hidden=800),
        "wikitext2": RecurrentSize(hidden=700),
        "text": RecurrentSize(hidden=200),
    }
    searched: ClassVar[Size] = RecurrentSize(hidden=200)
    shared: ClassVar[Size | None] = RecurrentSize(hidden=200)
