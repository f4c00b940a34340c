"""The LSTM policies: published sizes, the authors' order of steps, draws that follow the stated probabilities."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from nao_ray import registry, rng
from nao_ray.controllers.lstm import MacroPolicy, MicroPolicy, RecurrentPolicy, TokenPolicy, make_policy
from nao_ray.controllers.policy import Draws, LstmConfig, LstmPolicy
from nao_ray.spaces.enas_macro import EnasMacro, EnasMacroConfig
from nao_ray.spaces.enas_micro import EnasMicro
from nao_ray.spaces.enas_rnn import EnasRnn
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config
from tests.controllers.naive_lstm import Naive

WIDE = LstmConfig(init_range=0.8)  # far from uniform


def make(space: Any, config: LstmConfig = WIDE, seed: int = 0) -> LstmPolicy:
    return make_policy(space.name, space.token_mask, config, rng.torch_generator(seed, "policy"))


def small_macro() -> EnasMacro:
    return EnasMacro(EnasMacroConfig(layers=3))


def detached(policy: LstmPolicy, tokens: np.ndarray) -> Draws:
    with torch.no_grad():
        return policy.score(tokens)


def all_tokens(space: Any) -> np.ndarray:
    return np.array(list(itertools.product(*[np.flatnonzero(legal) for legal in space.token_mask])))


@pytest.mark.parametrize(
    ("space", "kind", "count"),
    [
        (EnasMacro(), MacroPolicy, 41_856),
        (EnasMacro(EnasMacroConfig(layers=24)), MacroPolicy, 41_856),
        (EnasMicro(), MicroPolicy, 41_733),
        (EnasRnn(), RecurrentPolicy, 41_344),
        (NasBench201(), TokenPolicy, 128 * 256 + 64 + 6 * 64 + 64 * 6 * 5),
    ],
)
def test_published_sizes(space: Any, kind: type, count: int) -> None:
    policy = make(space)
    assert type(policy) is kind
    assert sum(parameter.numel() for parameter in policy.parameters()) == count


@pytest.mark.parametrize("name", registry.names("space"))
def test_draws_are_legal_and_scored_as_drawn(name: str) -> None:
    space = registry.load("space", name)()
    policy = make(space)
    draws = policy.sample(50, rng.child(0, "draws"))
    for row in draws.tokens:
        space.decode(row)
    scored = policy.score(draws.tokens)
    np.testing.assert_array_equal(scored.tokens, draws.tokens)
    for field in ("log_prob", "entropy", "skip_penalty"):
        torch.testing.assert_close(getattr(scored, field).detach(), getattr(draws, field))
    again = policy.sample(50, rng.child(0, "draws"))
    np.testing.assert_array_equal(again.tokens, draws.tokens)
    assert torch.equal(again.log_prob, draws.log_prob)
    alone = policy.score(draws.tokens[7:8])
    torch.testing.assert_close(alone.log_prob, scored.log_prob[7:8])


def test_illegal_tokens_are_not_scored() -> None:
    policy = make(EnasMicro())
    with pytest.raises(AssertionError, match="illegal"):
        policy.score(np.ones((1, 40), dtype=np.int64))


@pytest.mark.parametrize("layers", [3, 12])
def test_macro_takes_the_authors_steps(layers: int) -> None:
    space = EnasMacro(EnasMacroConfig(layers=layers))
    config = WIDE.model_copy(update={"tanh_constant": 1.5})
    policy = make(space, config).double()
    tokens = policy.sample(4, rng.child(0, "draws")).tokens
    scored = detached(policy, tokens)
    policy.config = config.model_copy(update={"entropy": "sampled", "skip_penalty": "sigmoid"})
    published = detached(policy, tokens)
    for row, sequence in enumerate(tokens):
        naive = Naive(policy, [int(word) for word in space.decode(sequence).key.split()])
        one, two = naive.macro(layers, target=0.4)
        assert float(scored.log_prob[row]) == pytest.approx(naive.log_prob)
        assert float(scored.entropy[row]) == pytest.approx(naive.entropy)
        assert float(scored.skip_penalty[row]) == pytest.approx(two)
        assert float(published.entropy[row]) == pytest.approx(naive.sampled_entropy)
        assert float(published.skip_penalty[row]) == pytest.approx(one)


def test_micro_takes_the_authors_steps() -> None:
    space = EnasMicro()
    policy = make(space, WIDE.model_copy(update={"tanh_constant": 1.1, "op_tanh_reduce": 2.5})).double()
    tokens = policy.sample(4, rng.child(0, "draws")).tokens
    scored = detached(policy, tokens)
    for row, sequence in enumerate(tokens):
        naive = Naive(policy, [int(word) for word in space.decode(sequence).key.split()])
        assert naive.micro() == 2 * 27
        assert float(scored.log_prob[row]) == pytest.approx(naive.log_prob)
        assert float(scored.entropy[row]) == pytest.approx(naive.entropy)


def test_recurrent_takes_the_authors_steps() -> None:
    space = EnasRnn()
    policy = make(space, WIDE.model_copy(update={"tanh_constant": 2.25, "temperature": 5.0})).double()
    tokens = policy.sample(4, rng.child(0, "draws")).tokens
    scored = detached(policy, tokens)
    for row, sequence in enumerate(tokens):
        naive = Naive(policy, (sequence.reshape(-1, 2) - [1, 9]).reshape(-1).tolist())
        assert naive.recurrent() == 2 * 8
        assert float(scored.log_prob[row]) == pytest.approx(naive.log_prob)
        assert float(scored.entropy[row]) == pytest.approx(naive.entropy)


def test_recurrent_begins_with_what_is_near() -> None:
    tokens = make(EnasRnn(), LstmConfig(init_range=0.01)).sample(4000, rng.child(0, "draws")).tokens
    distance = np.arange(1, 9) - (tokens[:, ::2] - 1)
    powers = np.exp(-(np.arange(1, 9) ** 2) / 6)
    assert (distance[:, 7] == 1).mean() == pytest.approx(powers[0] / powers.sum(), abs=0.02)


def test_micro_starts_with_its_bias_for_convolutions() -> None:
    policy = make(EnasMicro(), LstmConfig(tanh_constant=1.1, op_tanh_reduce=2.5))
    tokens = policy.sample(4000, rng.child(0, "draws")).tokens
    for cell, fixed in ((slice(0, 20), 0.25), (slice(20, 40), 0.0)):
        powers = 2 * np.exp(1.1 / 2.5 + fixed), 3 * np.exp(-fixed)  # tanh(10) and tanh(0)
        share = np.isin(tokens[:, cell][:, 1::2], (7, 8)).mean()
        assert share == pytest.approx(powers[0] / sum(powers), abs=0.02)


@pytest.mark.parametrize(
    "space", [small_macro(), NasBench201(NasBench201Config(ops=("none", "skip_connect", "nor_conv_3x3")))]
)
def test_probabilities_are_a_distribution_that_draws_follow(space: Any) -> None:
    policy, tokens, count = make(space), all_tokens(space), 40_000
    scored = detached(policy, tokens)
    probs = scored.log_prob.double().exp().numpy()
    assert probs.sum() == pytest.approx(1, abs=1e-5)
    joint = -(probs * np.log(probs)).sum()
    assert (probs * scored.entropy.numpy()).sum() == pytest.approx(joint, rel=1e-5), "the exact entropy"
    assert joint < 0.95 * np.log(len(tokens)), "not uniform"
    rows = {tuple(row): number for number, row in enumerate(tokens.tolist())}
    drawn = policy.sample(count, rng.child(0, "draws")).tokens
    observed = np.bincount([rows[tuple(row)] for row in drawn.tolist()], minlength=len(tokens))
    expected = count * probs
    rare = expected < 5
    statistic = ((observed - expected)[~rare] ** 2 / expected[~rare]).sum()
    statistic += (observed[rare].sum() - expected[rare].sum()) ** 2 / expected[rare].sum()
    freedom = (~rare).sum()
    assert abs(statistic - freedom) < 4 * np.sqrt(2 * freedom), (statistic, freedom)


@pytest.mark.parametrize("name", ["enas_micro", "enas_macro", "darts_cnn", "nao_cnn"])
def test_log_probabilities_are_minus_the_entropy_on_average(name: str) -> None:
    draws = make(registry.load("space", name)()).sample(3000, rng.child(0, "draws"))
    surplus = (draws.log_prob + draws.entropy).double().numpy()
    assert abs(surplus.mean()) < 4 * surplus.std() / np.sqrt(len(surplus))
    assert surplus.std() > 0.5


@pytest.mark.parametrize("space", [small_macro(), EnasMicro(), NasBench201()])
def test_scores_have_the_gradient_of_finite_differences(space: Any) -> None:
    policy = make(space, LstmConfig(hidden=8, init_range=0.5)).double()
    tokens = policy.sample(3, rng.child(0, "draws")).tokens

    def value() -> torch.Tensor:
        scored = policy.score(tokens)  # with a weight each, so that no part hides another
        return (scored.log_prob + 0.3 * scored.entropy + 0.5 * scored.skip_penalty).sum()

    value().backward()
    grads = {name: parameter.grad.view(-1).tolist() for name, parameter in policy.named_parameters()}
    draw, step = rng.child(0, "entries"), 1e-6
    for name, parameter in policy.named_parameters():
        flat = parameter.data.view(-1)
        for at in draw.integers(len(flat), size=2).tolist():
            sides, here = [], float(flat[at])
            for side in (-step, step):
                flat[at] = here + side
                with torch.no_grad():
                    sides.append(float(value()))
            flat[at] = here
            slope = (sides[1] - sides[0]) / (2 * step)
            assert grads[name][at] == pytest.approx(slope, abs=1e-6, rel=1e-5), name


def test_the_cell_is_torchs_without_biases() -> None:
    policy = make(NasBench201())
    theirs = torch.nn.LSTMCell(64, 64, bias=False)
    i, f, o, g = policy.cell.detach().T.chunk(4)
    weights = torch.cat([i, f, g, o])  # torch's order
    with torch.no_grad():
        theirs.weight_ih.copy_(weights[:, :64])
        theirs.weight_hh.copy_(weights[:, 64:])
        x, h, c = torch.randn(3, 5, 64, generator=rng.torch_generator(0, "inputs"))
        for mine, torchs in zip(policy.step(x, (h, c)), theirs(x, (h, c)), strict=True):
            torch.testing.assert_close(mine, torchs)
