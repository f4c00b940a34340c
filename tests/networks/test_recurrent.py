"""Recurrent cells: what was measured of the published code, and an implementation apart from ours."""

import json
from pathlib import Path

import naive_recurrent
import pytest
import torch

from nao_ray import rng
from nao_ray.networks.recurrent import segment
from nao_ray.networks.recurrent_network import RecurrentConfig, RecurrentNetwork
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
    torch.testing.assert_close((torch.cat((first, second), dim=1), after), (logits, carry), rtol=0, atol=0)
    assert logits.shape == (2, 6, VOCABULARY)
    assert not torch.equal(network(tokens[:, 2:])[0], second)


def test_its_decoder_is_its_embedding():
    for bias in (True, False):
        network = model(decoder_bias=bias).eval()
        logits, (state,) = network(TOKENS.t())
        torch.testing.assert_close(logits[:, -1], state @ network.embedding.T)  # the bias is 0 yet
        assert ("decoder_bias" in dict(network.named_parameters())) == bias
