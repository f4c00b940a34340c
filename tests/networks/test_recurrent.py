"""Recurrent cells: what was measured of the published code, and an implementation apart from ours."""

import json
from pathlib import Path

import naive_recurrent
import pytest
import torch

from nao_ray import rng
from nao_ray.networks import recurrent_network
from nao_ray.networks.recurrent import segment
from nao_ray.networks.recurrent_network import RecurrentConfig, RecurrentNetwork
from nao_ray.networks.recurrent_relaxed import RelaxedRecurrent
from nao_ray.spaces.base import ArchGraph, Cell, Edge

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "recurrent.json").read_text())
VOCABULARY, HIDDEN = 7, 4
TOKENS = torch.tensor([[1, 4], [0, 2], [3, 3]])
"""``[T, B]``."""
UNLISTED = {
    "one node": ([("sigmoid", 0)], [1]),
    "a chain, its end": ([("tanh", 0), ("identity", 1), ("relu", 2), ("sigmoid", 3)], [4]),
    "a star, s0 averaged too": ([("relu", 0), ("sigmoid", 0), ("identity", 0)], [0, 1, 2, 3]),
    "a tree, loose ends": ([("identity", 0), ("tanh", 0), ("relu", 1), ("tanh", 1), ("sigmoid", 2)], [3, 4, 5]),
}


def u(*shape):
    """The fill rule's numbers in [-1/2, 1/2)."""
    k = torch.arange(1, torch.Size(shape).numel() + 1, dtype=torch.int64)
    return (((k * 2654435761) % 2**32).double() / 2**32 - 0.5).view(shape)


def cell_of(recurrent, output):
    return Cell(1, tuple((Edge(source, op),) for op, source in recurrent), tuple(output))


def weights(count, hidden=HIDDEN):
    return u(2 * hidden, 2 * hidden), [u(hidden, 2 * hidden)] * count


@pytest.mark.parametrize("name", GOLDEN["genotypes"])
def test_outputs_of_the_published_cells(name):
    genotype = GOLDEN["genotypes"][name]
    embedding, (w0, nodes) = u(VOCABULARY, HIDDEN), weights(len(genotype["recurrent"]))
    cell = cell_of(genotype["recurrent"], genotype["concat"])
    out = segment(cell, w0, nodes, embedding[TOKENS], torch.zeros(2, HIDDEN, dtype=torch.double), None)
    golden = GOLDEN["numbers"][f"rnn_eval_V7_H4_{name}"]
    assert out[-1].flatten().tolist() == pytest.approx(golden["hidden_last"], abs=1e-9)
    logits = (out[-1, 0] @ embedding.T).log_softmax(0)
    assert logits.tolist() == pytest.approx(golden["log_prob_last_step_batch0"], abs=1e-9)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", UNLISTED)
def test_outputs_of_cells_that_are_listed_nowhere(name, masked):
    recurrent, output = UNLISTED[name]
    draw = torch.Generator().manual_seed(0)
    w0, *nodes = (
        torch.randn(rows, 2 * HIDDEN, generator=draw, dtype=torch.double)
        for rows in (2 * HIDDEN, *[HIDDEN] * len(recurrent))
    )
    inputs = torch.randn(3, 2, HIDDEN, generator=draw, dtype=torch.double)
    state = torch.randn(2, HIDDEN, generator=draw, dtype=torch.double)
    mask = torch.rand(2, HIDDEN, generator=draw, dtype=torch.double).round() / 0.5 if masked else None
    out = segment(cell_of(recurrent, output), w0, nodes, inputs, state, mask)
    lists = [tensor.tolist() for tensor in (w0, *nodes, inputs, state)]
    naive = naive_recurrent.outputs(
        recurrent, output, lists[0], lists[1:-2], *lists[-2:], None if mask is None else mask.tolist()
    )
    torch.testing.assert_close(out, torch.tensor(naive, dtype=torch.double), rtol=1e-12, atol=1e-12)
    assert mask is None or 0 < int((mask == 0).sum()) < mask.numel()


def test_a_segment_in_two_parts_is_the_segment():
    recurrent, output = UNLISTED["a tree, loose ends"]
    cell, (w0, nodes) = cell_of(recurrent, output), weights(len(recurrent))
    inputs, state = u(5, 2, HIDDEN), torch.zeros(2, HIDDEN, dtype=torch.double)
    first = segment(cell, w0, nodes, inputs[:2], state, None)
    both = torch.cat((first, segment(cell, w0, nodes, inputs[2:], first[-1], None)))
    torch.testing.assert_close(both, segment(cell, w0, nodes, inputs, state, None), rtol=0, atol=0)


def test_gradients_of_a_segment():
    recurrent, output = UNLISTED["a star, s0 averaged too"]
    cell, (w0, nodes) = cell_of(recurrent, output), weights(len(recurrent), 2)
    given = [tensor.requires_grad_() for tensor in (w0, u(3, 2, 2) + 0.1, u(2, 2) * 0.3)]
    torch.autograd.gradcheck(lambda w0, x, state: segment(cell, w0, nodes, x, state, None), given)


# -- the language model ---------------------------------------------------------------------------------------


def model(recurrent=UNLISTED["a tree, loose ends"], **config):
    graph = ArchGraph("recurrent", (("recurrent", cell_of(*recurrent)),))
    with rng.torch_seeded(0, "weights"):
        network = RecurrentNetwork(graph, RecurrentConfig(vocabulary=VOCABULARY, hidden=HIDDEN, **config))
    return network.double()


def test_the_model_carries_its_state_from_segment_to_segment():
    network, tokens = model().eval(), torch.randint(VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(0))
    logits, carry = network(tokens)
    first, between = network(tokens[:, :2])
    second, after = network(tokens[:, 2:], between)
    torch.testing.assert_close((torch.cat((first, second), dim=1), after), (logits, carry))
    assert logits.shape == (2, 6, VOCABULARY)
    assert not torch.equal(network(tokens[:, 2:])[0], second)


def test_its_decoder_is_its_embedding():
    for bias in (True, False):
        network = model(decoder_bias=bias).eval()
        logits, (state,) = network(TOKENS.t())
        torch.testing.assert_close(logits[:, -1], state @ network.embedding.T)  # the bias is 0 yet
        assert ("decoder_bias" in dict(network.named_parameters())) == bias


DROPPED = {"dropout_hidden": 0.5, "dropout_input": 0.5, "dropout_embedding": 0.25, "dropout_words": 0.2}


def test_what_is_dropped_is_the_same_at_all_tokens_of_a_segment(monkeypatch):
    seen = []

    def kept(cell, w0, nodes, inputs, state, mask):
        seen.append((inputs, mask))
        return segment(cell, w0, nodes, inputs, state, mask)

    monkeypatch.setattr(recurrent_network, "segment", kept)
    network, tokens = model(**DROPPED).train(), torch.arange(20).view(2, 10) % VOCABULARY
    with rng.torch_seeded(0, "dropout"):
        for _ in range(2):
            network(tokens)
    network.eval()(tokens)
    (first, mask), (second, other), (_, none) = seen
    assert none is None
    assert mask.unique().tolist() == [0, 2]
    assert not torch.equal(first == 0, second == 0)
    assert not torch.equal(mask, other)
    ratio = first / network.embedding[tokens.t()].detach()  # of each word and unit: 0, or 1 / (0.5 0.75 0.8)
    torch.testing.assert_close(ratio[ratio != 0], torch.full_like(ratio[ratio != 0], 1 / 0.3))
    units = (ratio != 0).any(dim=0)  # where a column's unit is dropped it is so at all tokens
    assert 0 < int(units.sum()) < units.numel()
    for word in range(VOCABULARY):  # a word that is dropped is so wherever it stands
        heard = (ratio != 0)[tokens.t() == word]
        at = units.expand(10, -1, -1)[tokens.t() == word]
        assert torch.equal(heard, at) or not heard.any()


def test_outputs_are_dropped_before_the_decoder_alone_and_cost_what_they_are():
    settings = {"dropout": 0.5, "activation_penalty": 2.0, "slowness_penalty": 3.0}
    network, plain, tokens = model(**settings).train(), model().eval(), TOKENS.t()
    with rng.torch_seeded(0, "dropout"):
        logits, carry, penalty = network(tokens)
    torch.testing.assert_close(carry, plain(tokens)[1])
    raw = segment(plain.cell, plain.w0, list(plain.nodes), plain.embedding[TOKENS], torch.zeros_like(carry[0]), None)
    with rng.torch_seeded(0, "dropout"):
        mask = torch.empty_like(carry[0]).bernoulli_(0.5) * 2
    torch.testing.assert_close(logits, ((raw * mask) @ plain.embedding.T).transpose(0, 1))
    slow = (raw[1:] - raw[:-1]).square().mean()
    torch.testing.assert_close(penalty, 2 * (raw * mask).square().mean() + 3 * slow)
    assert torch.isfinite(network(tokens[:, :1])[2]), "one token has no difference"
    assert len(network.eval()(tokens)) == 2


# -- the relaxed cell -----------------------------------------------------------------------------------------

PRIMITIVES = ("none", "tanh", "relu", "sigmoid", "identity")


def relaxed(names=PRIMITIVES, nodes=8):
    network = RelaxedRecurrent(names, nodes, RecurrentConfig(vocabulary=VOCABULARY, hidden=HIDDEN)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.copy_(u(*parameter.shape))
    return network


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_outputs_of_the_published_relaxed_cell(mode):
    network, alphas = relaxed().train(mode == "train"), u(36, 5)
    logits, (state,) = network(TOKENS.t(), None, [alphas])
    golden = GOLDEN["numbers"][f"rnn_search_V7_H4_{mode}"]
    assert state.flatten().tolist() == pytest.approx(golden["hidden_last"], abs=1e-8)
    assert logits[0, -1].log_softmax(0).tolist() == pytest.approx(golden["log_prob_last_step_batch0"], abs=1e-8)


def test_gradients_of_alphas():
    network, alphas = relaxed(PRIMITIVES[:3], nodes=2).train(), (u(3, 3) * 2).requires_grad_()
    torch.autograd.gradcheck(lambda alpha: network(TOKENS.t(), None, [alpha])[0], alphas, atol=1e-6)


def test_alphas_that_choose_one_edge_a_node_are_the_cell_of_these_edges():
    recurrent, output = [("tanh", 0), ("sigmoid", 1), ("relu", 0)], [1, 2, 3]
    network, alphas = relaxed(nodes=3).eval(), torch.full((6, 5), -1e3, dtype=torch.double)
    network.norm = torch.nn.Identity()
    alphas[:, 0] = 0  # none, where nothing is chosen
    for node, (op, source) in enumerate(recurrent):
        alphas[node * (node + 1) // 2 + source, PRIMITIVES.index(op)] = 1e3
    logits, _ = network(TOKENS.t(), None, [alphas])
    cell, (w0, nodes) = cell_of(recurrent, output), weights(3)
    out = segment(cell, w0, nodes, u(VOCABULARY, HIDDEN)[TOKENS], torch.zeros(2, HIDDEN, dtype=torch.double), None)
    torch.testing.assert_close(logits, (out @ u(VOCABULARY, HIDDEN).T).transpose(0, 1))
