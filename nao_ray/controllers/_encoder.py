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

    The mean over steps is then a bag of edges, and what the parts are scaled by says what is learnt first, which is
    what matters with few observations: an operation (a step's last token) is worth about the same wherever it stands;
    less depends on the region of the cells it stands in, a smooth code over the steps; less again on where its
    input comes from. A free code per position, 0 at first, leaves the rest to the data.
    """

    _SOURCE, _POSITION, _WAVES = 0.3, 0.6, 4  # measured on functions of random cells, 24 to 600 observations

    def __init__(self, config: EpdConfig, vocabulary: int, tokens_per_step: int, steps: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens_per_step * vocabulary, config.hidden)
        self.region = nn.Parameter(torch.randn(self._WAVES, config.hidden))
        self.position = nn.Parameter(torch.zeros(steps, config.hidden))
        self.inner = nn.Linear(config.hidden, config.hidden)
        self.dropout = nn.Dropout(config.encoder_dropout)
        at = (torch.arange(steps)[:, None] + 0.5) / steps
        waves = torch.cos(torch.pi * at * torch.arange(self._WAVES)) * self._WAVES**-0.5
        scales = torch.tensor([self._SOURCE] * (tokens_per_step - 1) + [1.0])[:, None]
        offsets = torch.arange(tokens_per_step) * vocabulary  # the same id means another thing in another slot
        self.register_buffer("waves", waves, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, L]`` -> ``[B, T, H]``, unit length per step."""
        waves, scales, offsets = (self.get_buffer(name) for name in ("waves", "scales", "offsets"))
        slots = self.embedding(tokens.reshape(len(tokens), -1, len(offsets)) + offsets)
        codes = self._POSITION * (waves @ self.region + self.position)
        x = (self.dropout(slots) * scales).sum(dim=2) + codes
        return F.normalize(x + F.relu(self.inner(x)), dim=-1)
