"""What every LSTM policy has: its settings, its cell, and one walk for drawing and for scoring.

Legend: `n` sequences, `L` tokens per genotype, `V` token ids, `H` hidden, `K` decisions taken at once, `C` choices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from nao_ray.controllers.base import one_thread
from nao_ray.settings import Settings
from nao_ray.spaces.base import Tokens


class LstmConfig(Settings):
    """Network and update of an LSTM policy; the defaults are for searches of some hundred evaluations."""

    hidden: int = Field(default=64, ge=1)
    """H."""
    init_range: float = Field(default=0.1, gt=0)
    """Every parameter starts uniform in +- this, but for micro's bias of the operations."""
    tanh_constant: float = Field(default=2.5, gt=0)
    """Logits are this times a tanh, so no choice ever gets certain (2.5: ENAS, appendix)."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides what that tanh is of."""
    op_tanh_reduce: float = Field(default=1.0, gt=0)
    """Micro: divides the constant for operations."""
    entropy: Literal["exact", "sampled"] = "exact"
    """`exact`: of each decision's distribution; `sampled`: its one term -p log p of what was drawn, as published."""
    skip_penalty: Literal["bernoulli", "sigmoid"] = "bernoulli"
    """Macro: divergence of the probability a skip is drawn with, or of the sigmoid of its logit, as published."""
    skip_target: float = Field(default=0.4, gt=0, lt=1)
    """Macro: share of skips the penalty pulls to."""
    skip_weight: float = Field(default=0.8, ge=0)
    """Macro: of the penalty in the loss."""
    learning_rate: float = Field(default=0.03, gt=0)
    """Of Adam. NAS-Bench-201 CIFAR-10 takes 148 of at most 200 queries, with 0.01 and 0.1: 184 and 175 (means over 20
    seeds)."""
    betas: tuple[float, float] = (0.0, 0.999)
    """Of Adam, each in [0, 1)."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Of Adam, where TensorFlow has it: beside the second moment before its bias is corrected."""
    num_aggregate: int = Field(default=10, ge=1)
    """Sequences drawn for one update; the gradient is their mean."""
    entropy_weight: float = Field(default=1e-4, ge=0)
    """Of the entropy that is added to a score, in nats per sequence."""
    baseline_decay: float = Field(default=0.9, ge=0, lt=1)
    """Of the moving average of the rewards, per sequence."""
    baseline_start: Literal["zero", "first_reward"] = "first_reward"
    """`zero`, as published: until about 1 / (1 - decay) sequences were scored, everything drawn is encouraged."""

    @model_validator(mode="after")
    def _betas_in_range(self) -> Self:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")
        return self


@dataclass(frozen=True, slots=True)
class Draws:
    """`n` sequences and what the policy says of them; differentiable where they were given."""

    tokens: Tokens
    """``[n, L]``."""
    log_prob: Tensor
    """``[n]``: log probability of the whole sequence, in nats."""
    entropy: Tensor
    """``[n]``: summed over the decisions along the sequence, in nats."""
    skip_penalty: Tensor
    """``[n]``: mean divergence of a layer's skips from the target rate; 0 in spaces without skips."""


class Decisions:
    """The tokens of `n` sequences, taken in any order: drawn by inverse distribution functions, or given."""

    def __init__(self, mask: NDArray[np.bool_], config: LstmConfig, given: Tensor | None, uniforms: Tensor) -> None:
        """As described above.

        Args:
            mask: ``[L, V]``, the legal tokens.
            config: which entropy counts.
            given: ``[n, L]`` tokens; None: draw.
            uniforms: ``[n, L]`` in [0, 1), what is drawn with.
        """
        self._mask, self._config, self._given, self._uniforms = mask, config, given, uniforms
        self.tokens = torch.zeros(uniforms.shape, dtype=torch.int64)
        self.log_prob: Tensor = torch.zeros(len(uniforms))
        self.entropy: Tensor = torch.zeros(len(uniforms))

    @property
    def count(self) -> int:
        """`n`."""
        return len(self.tokens)

    def take(self, positions: slice, logits: Tensor) -> Tensor:
        """K independent decisions over the same legal tokens, in the order of their ids.

        `positions` are K places in the sequence, `logits` ``[n, K, C]``; returns the choices ``[n, K]`` in 0..C-1.
        """
        legal = torch.from_numpy(np.flatnonzero(self._mask[positions.start]))
        assert logits.shape[-1] == len(legal), (positions, logits.shape)
        log_probs = logits.log_softmax(dim=-1)
        if self._given is None:
            bounds = log_probs.double().exp().cumsum(dim=-1)
            beyond = self._uniforms[:, positions, None] * bounds[..., -1:] >= bounds
            choices = beyond.sum(dim=-1).clamp_max(len(legal) - 1)
        else:
            choices = (self._given[:, positions, None] == legal).long().argmax(dim=-1)
        taken = log_probs.gather(-1, choices[..., None]).squeeze(-1)
        if self._config.entropy == "exact":
            entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
        else:
            entropy = -taken.exp() * taken
        self.tokens[:, positions] = legal[choices]
        self.log_prob = self.log_prob + taken.sum(dim=-1)
        self.entropy = self.entropy + entropy.sum(dim=-1)
        return choices


class LstmPolicy(nn.Module, ABC):
    """An autoregressive policy over the tokens of a space; runs on the CPU, where steps this small are fastest."""

    def __init__(self, mask: NDArray[np.bool_], config: LstmConfig) -> None:
        """`mask` ``[L, V]``: the space's legal tokens. A subclass makes its parameters, then calls `initialise`."""
        super().__init__()
        self.mask, self.config = mask, config
        hidden = config.hidden
        self.cell = nn.Parameter(torch.empty(2 * hidden, 4 * hidden))  # on [x, h]; gates i, f, o, g; no bias
        self.start = nn.Parameter(torch.empty(1, hidden))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Every parameter, uniform."""
        for parameter in self.parameters():
            parameter.uniform_(-self.config.init_range, self.config.init_range, generator=generator)

    def sample(self, n: int, generator: np.random.Generator) -> Draws:
        """`n` sequences, drawn; the same in any process for the same parameters and generator."""
        uniforms = torch.from_numpy(generator.random((n, len(self.mask))))
        with one_thread(), torch.no_grad():
            return self._run(Decisions(self.mask, self.config, None, uniforms))

    def score(self, tokens: Tokens) -> Draws:
        """What the policy says of ``[n, L]`` legal tokens, differentiable with respect to its parameters."""
        tokens = np.asarray(tokens, dtype=np.int64)
        assert tokens.ndim == 2, tokens.shape
        assert tokens.shape[1] == len(self.mask), tokens.shape
        assert self.mask[np.arange(len(self.mask)), tokens].all(), "a token is illegal at its position"
        given = torch.from_numpy(tokens)
        with one_thread():
            return self._run(Decisions(self.mask, self.config, given, given))

    def _run(self, decisions: Decisions) -> Draws:
        penalty = self.walk(decisions)
        return Draws(decisions.tokens.numpy(), decisions.log_prob, decisions.entropy, penalty)

    @abstractmethod
    def walk(self, decisions: Decisions) -> Tensor:
        """Take every decision of the sequences; the skip penalty ``[n]``."""

    # -- parts --------------------------------------------------------------------------------------------

    def first_state(self, n: int) -> tuple[Tensor, Tensor]:
        """The first h and c, ``[n, H]`` zeros."""
        zeros = self.start.new_zeros(n, self.config.hidden)
        return zeros, zeros

    def first_input(self, n: int) -> Tensor:
        """``[n, H]``, the learnt start embedding g."""
        return self.start.expand(n, -1)

    def step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step of the LSTM on ``[n, H]``: the new h and c."""
        h, c = state
        i, f, o, g = (torch.cat([x, h], dim=1) @ self.cell).chunk(4, dim=1)
        c = i.sigmoid() * g.tanh() + f.sigmoid() * c
        return o.sigmoid() * c.tanh(), c

    def bounded(self, logits: Tensor) -> Tensor:
        """`tanh_constant` times the tanh of the logits over the `temperature`."""
        return self.config.tanh_constant * (logits / self.config.temperature).tanh()
