"""The reference's procedure for fitting its controller: what our fit is measured against.

Luo, Tian, Qin, Chen, Liu, arXiv 1808.07233, and its PyTorch release V1: 1000 epochs, batch 100, constant Adam 1e-3 with
L2 1e-4, MLP dropout 0.1, loss 0.8 MSE + 0.2 NLL, min-max targets, clip 5, one random double swap at each fetch, and a
decoder that is run token by token although the tokens are given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nao_ray import rng
from nao_ray.controllers._decoder import LuongDecoder
from nao_ray.controllers.base import one_thread
from nao_ray.controllers.epd import Epd
from nao_ray.controllers.mlp_controller import MlpController
from nao_ray.controllers.sizes import SIZES
from nao_ray.controllers.targets import TargetScale
from nao_ray.spaces.base import SearchSpace, Tokens

_BATCH, _RATE, _L2, _TRADE_OFF, _CLIP = 100, 1e-3, 1e-4, 0.8, 5.0


def fit(space: SearchSpace[Any], tokens: Tokens, scores: NDArray[np.float64], epochs: int, seed: int) -> MlpController:
    """Fit V1's controller to ``[N, L]`` tokens and ``[N]`` scores, as V1 does, on one thread."""
    scale = TargetScale.fit(scores, "minmax")
    targets = torch.from_numpy(scale.to_targets(scores)).float()
    draw = rng.child(seed, "reference fit")
    with one_thread(), rng.torch_seeded(seed, "reference fit"):
        epd = Epd(SIZES["v1"], space.vocabulary, space.length, space.tokens_per_step)
        optimiser = torch.optim.Adam(epd.parameters(), lr=_RATE, weight_decay=_L2)
        epd.train()
        for _ in range(epochs):
            order = draw.permutation(len(tokens))
            for at in range(0, len(tokens), _BATCH):
                rows = order[at : at + _BATCH]
                shown = torch.from_numpy(_swapped(tokens[rows], draw))
                loss = _loss(epd, shown, targets[torch.from_numpy(rows)])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(epd.parameters(), _CLIP)
                optimiser.step()
    return MlpController(epd, scale, space)


def _loss(epd: Epd, tokens: Tensor, targets: Tensor) -> Tensor:
    memory = epd.encode(tokens)
    point = epd.embed(memory)
    log_probabilities = _token_by_token(epd.decoder, memory, point, tokens)
    reconstruction = F.nll_loss(log_probabilities.flatten(0, 1), tokens.flatten())
    return _TRADE_OFF * F.mse_loss(epd.predict(point), targets) + (1 - _TRADE_OFF) * reconstruction


def _token_by_token(decoder: nn.Module, memory: Tensor, point: Tensor, tokens: Tensor) -> Tensor:
    """``[B, L, V]`` log probabilities: LSTM, attention, softmax and argmax one token at a time, inputs given."""
    assert isinstance(decoder, LuongDecoder)
    state = (point.unsqueeze(0), point.unsqueeze(0))
    inputs = F.pad(tokens[:, :-1], (1, 0))
    outputs, symbols = [], []
    for position in range(tokens.shape[1]):
        hidden, state = decoder.lstm(decoder.embedding(inputs[:, position : position + 1]), state)
        step = torch.log_softmax(decoder.attend(hidden, memory), dim=-1).squeeze(1)
        outputs.append(step)
        symbols.append(step.topk(1).indices)  # recorded by the reference whether or not it is used
    return torch.stack(outputs, dim=1)


def _swapped(tokens: Tokens, draw: np.random.Generator) -> Tokens:
    """``[B, 40]``: in each row the edges of one node of either cell exchanged."""
    edges = tokens.reshape(len(tokens), 2, -1, 2, 2).copy()
    rows = np.arange(len(tokens))
    for cell in range(2):
        node = draw.integers(0, edges.shape[2], size=len(tokens))
        edges[rows, cell, node] = edges[rows, cell, node][:, ::-1]
    return edges.reshape(tokens.shape)
