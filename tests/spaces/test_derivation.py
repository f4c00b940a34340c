"""From alphas to genotypes, as published."""

import numpy as np
import pytest

from nao_ray import rng
from nao_ray.errors import GenotypeError
from nao_ray.spaces.darts_cnn import PRIMITIVES, DartsCnn
from nao_ray.spaces.nao_cnn import NaoCnn
from nao_ray.spaces.parts.relaxed import strongest

EDGES = 14


def pairs(text):
    """Of both cells, in the order that they stand there."""
    nodes = text.replace(" ", "+").split("+")
    words = [edge.split("~") for node in nodes for edge in node.strip("|").split("|")]
    return [(op, int(source)) for op, source in words]


def test_none_competes_and_is_never_chosen():
    alphas = np.zeros((EDGES, len(PRIMITIVES)))
    alphas[:, 0] = 10.0  # none everywhere
    alphas[:, 4] = 1.0
    alphas[1, 0] = 0.0  # but less on one edge, whose operations thereby have more
    edges = strongest(alphas, PRIMITIVES)[0]
    assert edges == [("sep_conv_3x3", 1), ("sep_conv_3x3", 0)]


def test_of_equal_edges_and_operations_the_first():
    nodes = strongest(np.zeros((EDGES, len(PRIMITIVES))), PRIMITIVES)
    assert nodes == [[("max_pool_3x3", 0), ("max_pool_3x3", 1)]] * 4


def test_edges_stay_in_the_order_of_their_strength():
    alphas = np.zeros((EDGES, len(PRIMITIVES)))
    alphas[12, 5], alphas[10, 3] = 3.0, 2.0  # of the last node, whose edges are 9 to 13
    genotype = DartsCnn().derive([alphas, np.zeros_like(alphas)])
    assert pairs(genotype.key)[6:8] == [("sep_conv_5x5", 3), ("skip_connect", 1)]
    DartsCnn().validate(genotype)


@pytest.mark.parametrize("index", range(20))
def test_as_the_authors_loop_says(index):
    """Their loop, written out: edges ranked by their best operation but none, two of them, the best operation each."""
    alphas = rng.child(3, "alphas", index).normal(size=(2, EDGES, len(PRIMITIVES)))
    expected = []
    for cell in alphas:
        weights, start = np.exp(cell) / np.exp(cell).sum(1, keepdims=True), 0
        for node in range(4):
            rows = weights[start : start + node + 2]
            ranked = sorted(range(node + 2), key=lambda j: -max(rows[j][k] for k in range(1, 8)))[:2]
            expected += [(PRIMITIVES[max(range(1, 8), key=lambda k: rows[j][k])], j) for j in ranked]
            start += node + 2
    assert pairs(DartsCnn().derive(alphas).key) == expected


def test_a_space_without_alphas_says_so():
    with pytest.raises(GenotypeError, match="space nao_cnn has no alphas"):
        NaoCnn().derive([])
