"""Shapes of the encoder-predictor-decoder: one immutable config, and every published size as a preset.

Luo, Tian, Qin, Chen, Liu, "Neural Architecture Optimization", NeurIPS 2018, arXiv 1808.07233; Luo, Qin, Chen,
arXiv 1909.10815 (V2). The released programs differ in more than width: the TensorFlow ones have one bias per LSTM,
dropout behind the encoder's LSTM and Bahdanau attention with input feeding; the PyTorch ones have two biases, dropout
on the embeddings and Luong attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from nao_ray.settings import Settings


class EpdConfig(Settings):
    """Architecture of one encoder-predictor-decoder."""

    encoder: Literal["lstm", "lstm_one_bias", "steps"] = "steps"
    """`lstm` as the PyTorch releases; `lstm_one_bias` as TensorFlow's; `steps`: each step by itself, then the mean."""
    decoder: Literal["general", "dot", "bahdanau", "steps"] = "steps"
    """LSTM with bilinear, dot or normalised Bahdanau attention; `steps`: position queries, all tokens in one call."""
    embedding: int = Field(default=32, ge=1)
    """Width of a token's embedding in the encoder."""
    hidden: int = Field(default=64, ge=1)
    """H: width of the encoder's outputs, of the decoder, and of the embedding of an architecture."""
    mlp_layers: int = Field(default=1, ge=0)
    mlp_width: int = Field(default=64, ge=1)
    encoder_dropout: float = Field(default=0.0, ge=0, lt=1)
    mlp_dropout: float = Field(default=0.0, ge=0, lt=1)
    attention_bias: bool = False
    """Bias of the projection behind the attention (NAO-WS recurrent only)."""
    init_range: float | None = Field(default=None, gt=0)
    """Uniform initialisation in +-range, orthogonal for the decoder's LSTM (TensorFlow); None: torch's own."""
    mlp_init_range: float | None = Field(default=None, gt=0)
    """The same for the predictor alone (NAO-WS recurrent)."""


_TF = {"encoder": "lstm_one_bias", "decoder": "bahdanau", "hidden": 96, "encoder_dropout": 0.1, "init_range": 0.1}
_V1 = {"encoder": "lstm", "decoder": "general", "embedding": 48, "hidden": 96}

SIZES: Mapping[str, EpdConfig] = MappingProxyType(
    {
        # NAO, convolutional, TensorFlow: 208,535 parameters over 21 tokens, three a step
        "tf_nao_cnn": EpdConfig.model_validate({**_TF, "embedding": 32, "mlp_layers": 0}),
        # NAO, recurrent, TensorFlow: 308,338 over 16 tokens, one a step
        "tf_nao_rnn": EpdConfig.model_validate(
            {**_TF, "embedding": 96, "mlp_layers": 3, "mlp_width": 200, "mlp_dropout": 0.1}
        ),
        # NAO-WS, convolutional, TensorFlow: 236,606 over 12 tokens, two a step
        "tf_nao_ws_cnn": EpdConfig.model_validate(
            {**_TF, "embedding": 48, "mlp_layers": 3, "mlp_width": 100, "mlp_dropout": 0.1}
        ),
        # NAO-WS, recurrent, PyTorch: 311,577 over 16 tokens, two a step
        "nao_ws_rnn": EpdConfig.model_validate(
            {**_V1, "decoder": "dot", "mlp_layers": 4, "mlp_width": 200, "encoder_dropout": 0.1}
            | {"attention_bias": True, "mlp_init_range": 0.04}
        ),
        # NAO_pytorch V1, search: 279,533 over 12 tokens
        "v1": EpdConfig.model_validate({**_V1, "mlp_layers": 3, "mlp_width": 200, "mlp_dropout": 0.1}),
        # NAO_pytorch V2, and V1's stand-alone trainer: 80,845 over 12 tokens, 81,650 over 17
        "v2": EpdConfig.model_validate({**_V1, "embedding": 32, "hidden": 64, "mlp_layers": 0}),
        "default": EpdConfig(),
    }
)
