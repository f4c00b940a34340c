"""Decoders: from the memory ``[B, T, H]`` and the embedding ``[B, H]`` of an architecture back to its tokens.

Legend: `B` batch, `L` tokens per genotype, `T` steps of the memory, `H` hidden, `V` vocabulary. The start symbol is
token 0; position masks are additive, 0 where legal and -inf elsewhere, so that every decode is a legal genotype.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nao_ray.controllers._encoder import OneBiasLstm
from nao_ray.controllers.sizes import EpdConfig


class Decoder(nn.Module):
    """Common face of all decoders."""

    @abstractmethod
    def teach(self, memory: Tensor, point: Tensor, tokens: Tensor) -> Tensor:
        """Vocabulary logits ``[B, L, V]`` under teacher forcing with the target `tokens` ``[B, L]``."""

    @abstractmethod
    def greedy(self, memory: Tensor, point: Tensor, mask: Tensor) -> Tensor:
        """The best token at each position, ``[B, L]``; `mask` ``[L, V]`` is added to the logits."""


def shifted(tokens: Tensor) -> Tensor:
    """Decoder input: the start symbol, then the target without its last token."""
    return F.pad(tokens[:, :-1], (1, 0), value=0)


class LuongDecoder(Decoder):
    """LSTM from h = c = e, attention over the memory: o = tanh(W_o [context; h]), logits = W o + b (section 3.2)."""

    def __init__(self, config: EpdConfig, vocabulary: int) -> None:
        super().__init__()
        hidden = config.hidden
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.query = nn.Linear(hidden, hidden, bias=False) if config.decoder == "general" else nn.Identity()
        self.mix = nn.Linear(2 * hidden, hidden, bias=config.attention_bias)
        self.out = nn.Linear(hidden, vocabulary)

    def teach(self, memory: Tensor, point: Tensor, tokens: Tensor) -> Tensor:
        start = point.unsqueeze(0)
        outputs, _ = self.lstm(self.embedding(shifted(tokens)), (start, start))
        return self.attend(outputs, memory)

    def greedy(self, memory: Tensor, point: Tensor, mask: Tensor) -> Tensor:
        state = (point.unsqueeze(0), point.unsqueeze(0))
        token = torch.zeros(len(point), 1, dtype=torch.long, device=point.device)
        chosen = []
        for legal in mask:
            outputs, state = self.lstm(self.embedding(token), state)
            token = (self.attend(outputs, memory) + legal).argmax(dim=-1)
            chosen.append(token)
        return torch.cat(chosen, dim=1)

    def attend(self, outputs: Tensor, memory: Tensor) -> Tensor:
        """Vocabulary logits ``[B, S, V]`` of LSTM outputs ``[B, S, H]``."""
        weights = torch.softmax(self.query(outputs) @ memory.transpose(1, 2), dim=-1)
        logits: Tensor = self.out(torch.tanh(self.mix(torch.cat([weights @ memory, outputs], dim=-1))))
        return logits


class BahdanauDecoder(Decoder):
    """TensorFlow's: normalised Bahdanau attention with input feeding, so a step needs the last one's context.

    The score of memory step t is g v/|v| . tanh(W_q h + W_m H_t + b); logits = W h + b from the LSTM's output itself.
    """

    def __init__(self, config: EpdConfig, vocabulary: int) -> None:
        super().__init__()
        hidden = config.hidden
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.lstm = OneBiasLstm(2 * hidden, hidden)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.direction = nn.Parameter(torch.empty(hidden).uniform_(-1, 1) * hidden**-0.5)
        self.gain = nn.Parameter(torch.tensor(hidden**-0.5))  # the initial value of TensorFlow's layer
        self.out = nn.Linear(hidden, vocabulary)

    def teach(self, memory: Tensor, point: Tensor, tokens: Tensor) -> Tensor:
        inputs = self.embedding(shifted(tokens))
        keys = self.key(memory)
        state, context, logits = self._start(point), torch.zeros_like(point), []
        for position in range(tokens.shape[1]):
            output, state, context = self._step(inputs[:, position], context, state, memory, keys)
            logits.append(self.out(output))
        return torch.stack(logits, dim=1)

    def greedy(self, memory: Tensor, point: Tensor, mask: Tensor) -> Tensor:
        keys = self.key(memory)
        state, context = self._start(point), torch.zeros_like(point)
        token = torch.zeros(len(point), dtype=torch.long, device=point.device)
        chosen = []
        for legal in mask:
            output, state, context = self._step(self.embedding(token), context, state, memory, keys)
            token = (self.out(output) + legal).argmax(dim=-1)
            chosen.append(token)
        return torch.stack(chosen, dim=1)

    @staticmethod
    def _start(point: Tensor) -> tuple[Tensor, Tensor]:
        return point.unsqueeze(0), point.unsqueeze(0)

    def _step(
        self, token: Tensor, context: Tensor, state: tuple[Tensor, Tensor], memory: Tensor, keys: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        outputs, state = self.lstm(torch.cat([token, context], dim=-1).unsqueeze(1), state)
        hidden = torch.tanh(self.query(outputs) + keys + self.bias)
        weights = torch.softmax(hidden @ (self.gain * F.normalize(self.direction, dim=0)), dim=-1)
        return outputs.squeeze(1), state, (weights.unsqueeze(1) @ memory).squeeze(1)


class StepDecoder(Decoder):
    """A learnt query per position attends to the memory; no token waits for another, all come from one call.

    The attention starts at the step that holds the position's token and may learn to look elsewhere.
    """

    _ALIGNMENT = 4.0  # initial logit of a position's own step: most of the weight among 20 steps

    def __init__(self, config: EpdConfig, vocabulary: int, length: int, tokens_per_step: int) -> None:
        super().__init__()
        hidden = config.hidden
        own = torch.arange(length)[:, None] // tokens_per_step == torch.arange(length // tokens_per_step)
        self.alignment = nn.Parameter(self._ALIGNMENT * own.float())
        self.position = nn.Parameter(torch.randn(length, hidden) * hidden**-0.5)
        self.mix = nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Linear(hidden, vocabulary)

    def teach(self, memory: Tensor, point: Tensor, tokens: Tensor) -> Tensor:
        weights = torch.softmax(self.alignment + self.position @ memory.transpose(1, 2), dim=-1)
        logits: Tensor = self.out(torch.tanh(self.mix(weights @ memory) + self.position))
        return logits

    def greedy(self, memory: Tensor, point: Tensor, mask: Tensor) -> Tensor:
        return (self.teach(memory, point, point) + mask).argmax(dim=-1)
