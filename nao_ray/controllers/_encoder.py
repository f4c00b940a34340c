"""Encoders: tokens ``[B, L]`` to one unit vector per step ``[B, T, H]``.

Legend: `B` batch, `L` tokens per genotype, `T` = L / r steps of r tokens (an edge), `E` token embedding, `H` hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nao_ray.controllers.sizes import EpdConfig


class OneBiasLstm(nn.LSTM):
    """One-layer LSTM with a single bias, as TensorFlow counts it: the weight of a constant input."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size + 1, hidden_size, bias=False, batch_first=True)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # type: ignore[override]
        out: tuple[Tensor, tuple[Tensor, Tensor]] = super().forward(F.pad(x, (0, 1), value=1.0), state)
        return out


class LstmEncoder(nn.Module):
    """The published encoder: r embeddings concatenated per step, one LSTM layer, unit outputs (section 3.1)."""

    def __init__(self, config: EpdConfig, vocabulary: int, tokens_per_step: int) -> None:
        super().__init__()
        self.tokens_per_step = tokens_per_step
        one_bias = config.encoder == "lstm_one_bias"
        width = tokens_per_step * config.embedding
        self.embedding = nn.Embedding(vocabulary, config.embedding)
        self.lstm: nn.LSTM = (
            OneBiasLstm(width, config.hidden) if one_bias else nn.LSTM(width, config.hidden, batch_first=True)
        )
        # TensorFlow drops the LSTM's outputs, before they are normalised; PyTorch drops the embeddings.
        self.dropout_in = nn.Dropout(0.0 if one_bias else config.encoder_dropout)
        self.dropout_out = nn.Dropout(config.encoder_dropout if one_bias else 0.0)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, L]`` -> ``[B, T, H]``, unit length per step."""
        x = self.dropout_in(self.embedding(tokens))
        outputs, _ = self.lstm(x.reshape(len(tokens), -1, self.tokens_per_step * x.shape[-1]))
        return F.normalize(self.dropout_out(outputs), dim=-1)


class StepEncoder(nn.Module):
    """Each step by itself: the sum of its tokens' embeddings and a position code, a residual layer, unit outputs.

    The mean over steps is then a bag of edges. With few observations that is what can be learnt: an operation is worth
    about the same wherever it stands. So tokens start large and positions small.
    """

    _POSITION_SCALE = 0.3

    def __init__(self, config: EpdConfig, vocabulary: int, tokens_per_step: int, steps: int) -> None:
        super().__init__()
        self.tokens_per_step = tokens_per_step
        self.embedding = nn.Embedding(tokens_per_step * vocabulary, config.hidden)
        self.position = nn.Parameter(torch.randn(steps, config.hidden) * self._POSITION_SCALE)
        self.inner = nn.Linear(config.hidden, config.hidden)
        self.dropout = nn.Dropout(config.encoder_dropout)
        offsets = torch.arange(tokens_per_step) * vocabulary  # the same id means another thing in another slot
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, L]`` -> ``[B, T, H]``, unit length per step."""
        offsets = self.get_buffer("offsets")
        slots = tokens.reshape(len(tokens), -1, self.tokens_per_step) + offsets
        x = self.dropout(self.embedding(slots)).sum(dim=2) + self.position
        return F.normalize(x + F.relu(self.inner(x)), dim=-1)
