"""The encoder-predictor-decoder of NAO, and its step in embedding space.

Luo, Tian, Qin, Chen, Liu, "Neural Architecture Optimization", NeurIPS 2018, arXiv 1808.07233, section 3.

Legend: `B` batch, `L` tokens per genotype, `T` encoder steps, `H` hidden, `V` vocabulary. `memory` is the encoder's
outputs H ``[B, T, H]``, unit length per step; `point` is the embedding e = normalise(mean over steps) ``[B, H]``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nao_ray.controllers._decoder import BahdanauDecoder, Decoder, LuongDecoder, StepDecoder
from nao_ray.controllers._encoder import LstmEncoder, StepEncoder
from nao_ray.controllers.sizes import EpdConfig


class Epd(nn.Module):
    """Encoder, predictor and decoder over sequences of `length` tokens of `vocabulary` ids."""

    def __init__(self, config: EpdConfig, vocabulary: int, length: int, tokens_per_step: int) -> None:
        super().__init__()
        assert length % tokens_per_step == 0, (length, tokens_per_step)
        self.config = config
        self.encoder: nn.Module
        self.decoder: Decoder
        if config.encoder == "steps":
            self.encoder = StepEncoder(config, vocabulary, tokens_per_step, length // tokens_per_step)
        else:
            self.encoder = LstmEncoder(config, vocabulary, tokens_per_step)
        self.predictor = _mlp(config)
        if config.decoder == "steps":
            self.decoder = StepDecoder(config, vocabulary, length, tokens_per_step)
        elif config.decoder == "bahdanau":
            self.decoder = BahdanauDecoder(config, vocabulary)
        else:
            self.decoder = LuongDecoder(config, vocabulary)
        self._initialise()

    def _initialise(self) -> None:
        if (bound := self.config.init_range) is not None:
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -bound, bound)
            for name, parameter in self.decoder.named_parameters():
                if name.startswith("lstm.weight"):
                    nn.init.orthogonal_(parameter)
            if isinstance(self.decoder, BahdanauDecoder):
                nn.init.constant_(self.decoder.gain, self.config.hidden**-0.5)
                nn.init.zeros_(self.decoder.bias)
        if (bound := self.config.mlp_init_range) is not None:
            for parameter in self.predictor.parameters():
                nn.init.uniform_(parameter, -bound, bound)

    def encode(self, tokens: Tensor) -> Tensor:
        """H: ``[B, L]`` token ids -> ``[B, T, H]``, unit length per step."""
        memory: Tensor = self.encoder(tokens)
        return memory

    def embed(self, memory: Tensor) -> Tensor:
        """e: ``[B, T, H]`` -> ``[B, H]``, unit length."""
        return F.normalize(memory.mean(dim=1), dim=-1)

    def predict(self, point: Tensor) -> Tensor:
        """``[B, H]`` -> ``[B]`` predicted targets, in (0, 1)."""
        values: Tensor = self.predictor(point).squeeze(-1)
        return values

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted targets ``[B]`` and teacher-forced vocabulary logits ``[B, L, V]`` of ``[B, L]`` tokens."""
        memory = self.encode(tokens)
        point = self.embed(memory)
        return self.predict(point), self.decoder.teach(memory, point, tokens)

    @torch.no_grad()
    def decode(self, memory: Tensor, mask: Tensor) -> Tensor:
        """Greedy tokens ``[B, L]`` of a memory; `mask` ``[L, V]`` is 0 where a token is legal, -inf elsewhere."""
        return self.decoder.greedy(memory, self.embed(memory), mask)

    def gradient(self, memory: Tensor) -> Tensor:
        """G = d prediction / d H, ``[B, T, H]``: through mean, normalisation and predictor, H taken as free."""
        with torch.enable_grad():
            free = memory.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.predict(self.embed(free)).sum(), free)
        return gradient

    def step(self, memory: Tensor, step_sizes: Tensor, unit: bool = False) -> Tensor:
        """H' = normalise(H + eta g) towards higher predictions: ``[B, T, H]``, eta ``[B]`` -> ``[B, T, H]``.

        `unit`: g is first scaled, per row, to a mean length of 1 over the steps, so that eta is in units of H's own
        (unit) vectors whatever the predictor's steepness.
        """
        gradient = self.gradient(memory)
        if unit:
            length = gradient.norm(dim=-1).mean(dim=-1)[:, None, None]
            gradient = gradient / length.clamp_min(torch.finfo(length.dtype).tiny)
        return F.normalize(memory + step_sizes[:, None, None] * gradient, dim=-1)


def _mlp(config: EpdConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = config.hidden
    for _ in range(config.mlp_layers):
        layers += [nn.Linear(width, config.mlp_width), nn.ReLU(), nn.Dropout(config.mlp_dropout)]
        width = config.mlp_width
    return nn.Sequential(*layers, nn.Linear(width, 1), nn.Sigmoid())


def additive_mask(legal: Tensor) -> Tensor:
    """0 where true, -inf elsewhere; to be added to logits."""
    return torch.zeros(legal.shape, device=legal.device).masked_fill(~legal, -torch.inf)
