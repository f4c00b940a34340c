"""The LSTM policies of ENAS, macro, micro and recurrent, and one for any other space.

Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018, arXiv 1802.03268;
order of steps, biases and constants as in the authors' code (github.com/melodyguan/enas, for recurrent cells
google-research's enas_lm).

Legend: `n` sequences, `L` tokens per genotype, `V` token ids, `H` hidden; `g` the start embedding; W1, W2, v the
attention over anchors, q_j = v . tanh(W1 anchor_j + W2 h); W1 anchor_j is the key of j.

Differs from the code: all sequences of a batch take a step together; the entropy is exact and the skips' divergence is
that of the probability they are drawn with, unless `LstmConfig` says otherwise.
"""

from __future__ import annotations

from math import log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nao_ray.controllers.policy import Decisions, LstmConfig, LstmPolicy

_NODES, _INPUTS = 5, 2
"""Of a micro cell."""
_FIRST_OP_BIAS = 10.0
"""Of the convolutions, at the start (micro)."""
_FIXED_OP_BIAS = 0.25
"""Of the normal cell's operations, never trained: + for convolutions, - for the others (micro)."""
_CONVOLUTIONS = 2
"""The first operations of the micro space."""
_RECENCY, _NEAREST = 6.0, 0.1
"""Of recurrent cells: what the squared distance of a source is divided by, and what is added to its distance."""


class _AttentionPolicy(LstmPolicy):
    """What the three share: operations by a softmax, earlier layers or nodes by attention."""

    def __init__(self, mask: NDArray[np.bool_], config: LstmConfig, num_ops: int, *, tied: bool = False) -> None:
        super().__init__(mask, config)
        hidden = config.hidden
        self.op_embedding = nn.Parameter(torch.empty(num_ops, hidden))
        self.op_head = None if tied else nn.Parameter(torch.empty(hidden, num_ops))
        self.key = nn.Parameter(torch.empty(hidden, hidden))  # W1
        self.query = nn.Parameter(torch.empty(hidden, hidden))  # W2
        self.attention = nn.Parameter(torch.empty(hidden, 1))  # v

    def op_logits(self, h: Tensor) -> Tensor:
        """``[n, H]`` -> ``[n, ops]``."""
        return h @ (self.op_embedding.t() if self.op_head is None else self.op_head)

    def attend(self, h: Tensor, keys: list[Tensor]) -> Tensor:
        """``[n, H]`` and j keys ``[n, H]`` -> q ``[n, j]``."""
        mixed = torch.stack(keys, dim=1) + (h @ self.query)[:, None]
        return (mixed.tanh() @ self.attention).squeeze(-1)


class MacroPolicy(_AttentionPolicy):
    """A layer's operation, then all its skips; 41,856 parameters, whatever the number of layers."""

    def __init__(self, mask: NDArray[np.bool_], config: LstmConfig, generator: torch.Generator) -> None:
        super().__init__(mask, config, num_ops=int(mask[0].sum()))
        self._layers = int(mask[:, np.flatnonzero(mask[0])[0]].sum())
        self.initialise(generator)

    def walk(self, decisions: Decisions) -> Tensor:
        n = decisions.count
        state, x = self.first_state(n), self.first_input(n)
        anchors: list[Tensor] = []
        keys: list[Tensor] = []
        penalties: list[Tensor] = []
        for layer in range(self._layers):
            at = layer * (layer + 1) // 2
            state = self.step(x, state)
            op = decisions.take(slice(at, at + 1), self.bounded(self.op_logits(state[0]))[:, None])
            state = self.step(self.op_embedding[op[:, 0]], state)
            h = state[0]
            if layer == 0:
                x = self.first_input(n)
            else:
                logits = self.bounded(self.attend(h, keys))
                skips = decisions.take(slice(at + 1, at + 1 + layer), torch.stack([-logits, logits], dim=-1))
                penalties.append(self._divergence(logits).sum(dim=1))
                chosen = torch.stack(anchors, dim=1) * skips[..., None]
                x = chosen.sum(dim=1) / (1 + skips.sum(dim=1, keepdim=True))
            anchors.append(h)
            keys.append(h @ self.key)
        return torch.stack(penalties).mean(dim=0)

    def _divergence(self, logits: Tensor) -> Tensor:
        """Kullback-Leibler divergence of a skip from the target rate; its two choices have the logits -l and l."""
        scaled = 2 * logits if self.config.skip_penalty == "bernoulli" else logits
        target = self.config.skip_target
        divergence = scaled.sigmoid() * (F.logsigmoid(scaled) - log(target))
        return divergence + (-scaled).sigmoid() * (F.logsigmoid(-scaled) - log(1 - target))


class MicroPolicy(_AttentionPolicy):
    """A node's two sources, then its two operations; normal cell, then reduction cell; 41,733 parameters."""

    op_fixed: Tensor

    def __init__(self, mask: NDArray[np.bool_], config: LstmConfig, generator: torch.Generator) -> None:
        num_ops = int(mask[1].sum())
        super().__init__(mask, config, num_ops)
        self.op_bias = nn.Parameter(torch.empty(1, num_ops))
        self.initialise(generator)
        convolution = torch.arange(num_ops) < _CONVOLUTIONS
        with torch.no_grad():
            self.op_bias.copy_(convolution * _FIRST_OP_BIAS)
        self.register_buffer("op_fixed", torch.where(convolution, _FIXED_OP_BIAS, -_FIXED_OP_BIAS), persistent=False)

    def walk(self, decisions: Decisions) -> Tensor:
        state = self.first_state(decisions.count)
        half = len(self.mask) // 2
        state = self._walk_cell(decisions, state, 0, self.op_fixed)
        self._walk_cell(decisions, state, half, torch.zeros_like(self.op_fixed))
        return torch.zeros(decisions.count)

    def _walk_cell(
        self, decisions: Decisions, state: tuple[Tensor, Tensor], at: int, op_fixed: Tensor
    ) -> tuple[Tensor, Tensor]:
        n = decisions.count
        anchors = [torch.zeros_like(state[0])] * _INPUTS
        keys = []
        rows = torch.arange(n)
        for _ in range(_INPUTS):
            state = self.step(self.first_input(n), state)
            keys.append(state[0] @ self.key)
        for node in range(_NODES):
            x = self.first_input(n)
            first = at + 4 * node
            for position in (first, first + 2):
                state = self.step(x, state)
                logits = self.bounded(self.attend(state[0], keys))
                source = decisions.take(slice(position, position + 1), logits[:, None])[:, 0]
                x = torch.stack(anchors, dim=1)[rows, source]
            for position in (first + 1, first + 3):
                state = self.step(x, state)
                logits = self.bounded(self.op_logits(state[0]) + self.op_bias) / self.config.op_tanh_reduce + op_fixed
                op = decisions.take(slice(position, position + 1), logits[:, None])[:, 0]
                x = self.op_embedding[op]
            state = self.step(x, state)
            anchors.append(state[0])
            keys.append(state[0] @ self.key)
        return state


class RecurrentPolicy(_AttentionPolicy):
    """A node's source, then its activation; 41,344 parameters, whatever the number of nodes.

    Sources far back are held back by a term that is not trained, and come weaker into the next step.
    """

    def __init__(self, mask: NDArray[np.bool_], config: LstmConfig, generator: torch.Generator) -> None:
        super().__init__(mask, config, num_ops=int(mask[1].sum()), tied=True)
        self.initialise(generator)

    def walk(self, decisions: Decisions) -> Tensor:
        n = decisions.count
        state, x, rows = self.first_state(n), self.first_input(n), torch.arange(n)
        anchors = [torch.zeros_like(state[0])]  # state 0's; its key is 0 too
        keys = [torch.zeros_like(state[0])]
        for node in range(1, 1 + len(self.mask) // 2):
            at = 2 * (node - 1)
            state = self.step(x, state)
            distance = torch.arange(node, 0, -1).to(state[0])
            logits = self.bounded(self.attend(state[0], keys)) - distance.square() / _RECENCY
            source = decisions.take(slice(at, at + 1), logits[:, None])[:, 0]
            x = torch.stack(anchors, dim=1)[rows, source] / (_NEAREST + distance[source])[:, None]
            anchors.append(state[0])
            keys.append(state[0] @ self.key)
            state = self.step(x, state)
            op = decisions.take(slice(at + 1, at + 2), self.bounded(self.op_logits(state[0]))[:, None])
            x = self.op_embedding[op[:, 0]]
        return torch.zeros(n)


class TokenPolicy(LstmPolicy):
    """Any space: one step per token, each position with a softmax of its own over its legal tokens.

    A softmax per decision, its choice the next step's input, as Zoph, Le, "Neural Architecture Search with
    Reinforcement Learning", ICLR 2017, arXiv 1611.01578, section 3.1.
    """

    def __init__(self, mask: NDArray[np.bool_], config: LstmConfig, generator: torch.Generator) -> None:
        super().__init__(mask, config)
        self.embedding = nn.Parameter(torch.empty(mask.shape[1], config.hidden))
        self.head = nn.Parameter(torch.empty(config.hidden, int(mask.sum())))  # the positions' softmaxes, side by side
        self._widths = mask.sum(axis=1).tolist()
        self.initialise(generator)

    def walk(self, decisions: Decisions) -> Tensor:
        state, x = self.first_state(decisions.count), self.first_input(decisions.count)
        for position, head in enumerate(torch.split(self.head, self._widths, dim=1)):
            state = self.step(x, state)
            decisions.take(slice(position, position + 1), self.bounded(state[0] @ head)[:, None])
            x = self.embedding[decisions.tokens[:, position].clone()]
        return torch.zeros(decisions.count)


_POLICIES: dict[str, type[MacroPolicy | MicroPolicy | RecurrentPolicy]] = {
    "enas_macro": MacroPolicy,
    "enas_micro": MicroPolicy,
    "enas_rnn": RecurrentPolicy,
}
"""By space; the others have a `TokenPolicy`."""


def make_policy(space_name: str, mask: NDArray[np.bool_], config: LstmConfig, generator: torch.Generator) -> LstmPolicy:
    """The policy of a space, by its name and token mask ``[L, V]``; `generator` draws the first parameters."""
    return _POLICIES.get(space_name, TokenPolicy)(mask, config, generator)
