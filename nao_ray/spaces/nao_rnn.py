"""The recurrent cells of NAO: 11 nodes (Luo, Tian, Qin, Chen, Liu, NeurIPS 2018, arXiv 1808.07233).

Its two programs number the activations differently, so genotypes have their names; numbers need their dialect.

Differs from the published search with shared weights, whose cells average state 0 too, which its final ones do not:
here both average the nodes (the skeleton's `average_first` is as published).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from nao_ray.spaces.base import SpaceConfig
from nao_ray.spaces.parts.recurrent_cell import RecurrentConfig, RecurrentSpace
from nao_ray.spaces.parts.recurrent_text import MAX_NODES


class NaoRnnConfig(RecurrentConfig):
    """Settings of the space."""

    nodes: int = Field(default=11, ge=1, le=MAX_NODES)
    """n."""


class NaoRnn(RecurrentSpace[NaoRnnConfig]):
    """tanh, relu, sigmoid, identity."""

    name: ClassVar[str] = "nao_rnn"
    Config: ClassVar[type[SpaceConfig]] = NaoRnnConfig
    dialects: ClassVar[tuple[str, ...]] = ("nao_rnn", "nao", "nao_ws", "genotype", "tokens")
    """`nao`: numbers of the program without shared weights, `nao_ws`: of that with them."""
    ids: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "nao": ("tanh", "relu", "identity", "sigmoid"),
        "nao_ws": ("tanh", "relu", "sigmoid", "identity"),
    }
    published: ClassVar[Mapping[str, str]] = {
        "NAO-RNN": "0:relu 0:relu 1:relu 3:tanh 4:relu 4:relu 5:relu 1:relu 7:relu 1:relu 1:identity",
        "NAO-WS-RNN": "0:relu 1:relu 2:sigmoid 1:sigmoid 4:relu 4:relu 4:relu 7:relu 8:sigmoid 1:tanh 4:relu",
    }
