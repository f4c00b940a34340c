"""Descriptors of cells that a hand can count."""

import numpy as np
import pytest

from nao_ray import registry, rng
from nao_ray.controllers.descriptors import Descriptors, describe, live_edges, num_live_params
from nao_ray.spaces.nas_bench_201 import NasBench201


def test_counted_by_hand() -> None:
    space = NasBench201()
    # node 1 = conv3(x); node 2 = none + skip(node 1); output = pool(x) + none + conv1(node 2)
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"
    described = describe(space.lower(space.parse(text)))
    assert described == {
        ("normal", "edge", 1, 0, "conv_3x3"): 1,
        ("normal", "edge", 2, 1, "identity"): 1,
        ("normal", "edge", 3, 0, "avg_pool_3x3"): 1,
        ("normal", "edge", 3, 2, "conv_1x1"): 1,
        ("normal", "count", "conv_3x3"): 1,
        ("normal", "count", "identity"): 1,
        ("normal", "count", "avg_pool_3x3"): 1,
        ("normal", "count", "conv_1x1"): 1,
        ("normal", "paths"): pytest.approx(np.log(3)),
        ("normal", "longest", "conv_3x3"): 1,
        ("normal", "longest", "conv_1x1"): 1,
        ("normal", "longest", "avg_pool_3x3"): 1,
        ("normal", "longest"): 2,
        ("normal", "shortest"): 1,
    }


def test_what_is_not_live_is_not_described() -> None:
    space = NasBench201()
    dead_end = space.parse("|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|")
    graph = space.lower(dead_end)
    assert [(node, edge.op) for node, edge in live_edges(graph.cell("normal"))] == [(3, "identity")]
    nothing = space.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    assert live_edges(space.lower(nothing).cell("normal")) == []
    assert set(describe(space.lower(nothing)).values()) == {0.0}


@pytest.mark.parametrize("name", registry.names("space"))
def test_twins_have_equal_descriptors_and_others_differ(name: str) -> None:
    space = registry.load("space", name)()
    genotypes = [space.sample(rng.child(0, "sample", k)) for k in range(60)]
    descriptors = Descriptors(space, genotypes)
    features = descriptors(genotypes)
    assert features.shape == (60, len(descriptors))
    rows = np.stack([space.encode(genotype) for genotype in genotypes])
    twins = [space.decode(row) for row in space.twins(rows, rng.child(0, "twins"))]
    if name != "nas_bench_201":  # whose classes hold cells of different depth: a skip is no edge there
        assert (descriptors(twins) == features).all()
    distinct = {genotype.key for genotype in genotypes}
    assert len(np.unique(features, axis=0)) >= 0.9 * len(distinct)


def test_size_counts_live_operations_alone() -> None:
    space = NasBench201()
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"
    conv, norm = 16 * 16, 2 * 16
    assert num_live_params(space.lower(space.parse(text))) == 9 * conv + norm + conv + norm
    dead_end = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|"
    assert num_live_params(space.lower(space.parse(dead_end))) == 0
