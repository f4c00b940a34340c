"""Shared weights of DARTS' cells: one path of the relaxed supernet's operations, and networks on their own."""

import pytest
import torch
from relaxing import PUBLISHED

from nao_ray import rng
from nao_ray.networks.darts import SEARCH_OPS
from nao_ray.networks.one_shot import pool_logits
from nao_ray.networks.relaxed import RelaxedSupernet
from nao_ray.networks.supernet import batch_statistics
from nao_ray.spaces.darts_cnn import LOWERED, PRIMITIVES, DartsCnn
from tests.networks.building import reached, supernet

SPACE = DartsCnn()
NAMES = [LOWERED[name] for name in PRIMITIVES]
EDGES = [(node, source) for node in range(4) for source in range(2 + node)]
SMALL = {"layers": 3, "channels": 4}


@pytest.fixture
def shared():
    torch.manual_seed(0)
    net = supernet.build(SPACE, **SMALL).double()
    with torch.no_grad():
        for tensor in (*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())):
            tensor.add_(torch.rand_like(tensor), alpha=0.1)
    return net


def graphs(count):
    return [SPACE.lower(SPACE.sample(rng.child(index, "graphs"))) for index in range(count)]


def images():
    return torch.from_numpy(rng.child(0, "images").standard_normal((3, 3, 16, 16)))


def relaxed(shared):
    """With the same weights; an edge's place there is a number."""
    net = RelaxedSupernet(NAMES, SEARCH_OPS, **SMALL).double()
    state = net.state_dict()
    for name, value in shared.state_dict().items():
        words = name.split(".")
        if words[2:3] == ["nodes"]:
            edge = EDGES.index((int(words[3]), int(words[4])))
            name = ".".join([*words[:2], "edges", str(edge), *words[5:]])
        if name in state:
            state[name] = value
    net.load_state_dict(state)
    return net


def one_hot(graph):
    """Alphas whose softmax is 1 at an edge's operation, at `none` where a node does not read the state."""
    found = []
    for _, cell in graph.cells:
        alpha = torch.zeros(len(EDGES), len(NAMES), dtype=torch.float64)
        ops = {(node, edge.source): edge.op for node, edges in enumerate(cell.nodes) for edge in edges}
        for row, place in zip(alpha, EDGES, strict=True):
            row[NAMES.index(ops.get(place, "zero"))] = 1e4
        found.append(alpha)
    return found


def test_it_has_the_parameters_of_the_relaxed_one():
    with torch.device("meta"):
        net = supernet.build(SPACE, layers=8, channels=16)
    assert sum(p.numel() for p in net.parameters()) == PUBLISHED["total"]


@pytest.mark.parametrize("graph", graphs(3))
def test_a_path_is_the_relaxed_supernet_with_one_operation_an_edge(shared, graph):
    x = images()
    with batch_statistics(shared):
        ours = shared(x, graph)
    torch.testing.assert_close(ours, relaxed(shared).train()(x, one_hot(graph)), rtol=1e-10, atol=1e-10)


def test_a_derived_network_is_the_same_function_in_training_too(shared):
    (graph,) = graphs(1)
    derived, x = shared.derive(graph), images()
    for train in (False, True, False):  # and so are the statistics after it
        torch.testing.assert_close(shared.train(train)(x, graph), derived.train(train)(x))
    used = reached(shared, x, graph)
    assert sum(grad.numel() for grad in used.values()) == sum(p.numel() for p in derived.parameters())


def test_many_are_scored_as_each_alone(shared):
    paths, x = graphs(4), images()
    with batch_statistics(shared), torch.inference_mode():
        alone = torch.stack([shared(x, graph) for graph in paths])
    torch.testing.assert_close(pool_logits(shared, x, paths), alone)
