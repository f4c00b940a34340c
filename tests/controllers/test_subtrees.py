"""Subtrees of small cells, counted by hand."""

from collections import Counter

from nao_ray import registry, rng
from nao_ray.controllers.subtrees import subtrees
from nao_ray.spaces.base import ArchGraph, Cell, Edge


def graph(*nodes: tuple[Edge, ...], output: tuple[int, ...], inputs: int = 1) -> ArchGraph:
    return ArchGraph("any", (("normal", Cell(inputs, nodes, output)),))


def counts(of: ArchGraph, level: int, levels: int = 2) -> dict[str, int]:
    return {text: count for (_, at, text), count in subtrees(of, levels).items() if at == level}


def test_subtrees_of_a_cell_counted_by_hand() -> None:
    """0 -conv-> 1, 0 -skip-> 2, 1 -conv-> 2; 2 is the output."""
    cell = graph((Edge(0, "conv"),), (Edge(0, "skip"), Edge(1, "conv")), output=(2,))
    assert counts(cell, 0) == {"conv": 2, "skip": 1, "input 0": 1, "output": 1}
    assert counts(cell, 1) == {
        "conv(input 0)": 1, "skip(input 0)": 1, "conv(conv)": 1, "output(conv skip)": 1, "input 0": 1
    }  # fmt: skip
    assert counts(cell, 2) == {
        "conv(input 0)": 1,
        "skip(input 0)": 1,
        "conv(conv(input 0))": 1,
        "output(conv(conv) skip(input 0))": 1,
        "input 0": 1,
    }
    assert subtrees(cell, 1) == Counter({key: n for key, n in subtrees(cell, 2).items() if key[1] < 2})


def test_the_order_of_nodes_and_edges_does_not_count() -> None:
    first = graph((Edge(0, "conv"),), (Edge(0, "pool"),), (Edge(1, "skip"), Edge(2, "conv")), output=(3,))
    other = graph((Edge(0, "pool"),), (Edge(0, "conv"),), (Edge(1, "conv"), Edge(2, "skip")), output=(3,))
    crossed = graph((Edge(0, "pool"),), (Edge(0, "conv"),), (Edge(2, "conv"), Edge(1, "skip")), output=(3,))
    assert subtrees(first, 2) == subtrees(other, 2)
    assert subtrees(first, 1) != subtrees(crossed, 1), "the convolution now reads the other node"


def test_what_carries_nothing_is_not_counted() -> None:
    alone = graph((Edge(0, "conv"),), output=(1,))
    beside = graph((Edge(0, "conv"),), (Edge(0, "conv"), Edge(1, "pool")), output=(1,))
    cut = graph((Edge(0, "zero"),), (Edge(1, "conv"),), output=(2,))
    assert subtrees(alone, 2) == subtrees(beside, 2)
    assert counts(cut, 1) == {"input 0": 1, "output": 1}


def test_twins_have_equal_subtrees() -> None:
    space = registry.load("space", "nao_cnn_small")()
    generator = rng.child(0, "twins")
    genotypes = [space.sample(generator) for _ in range(20)]
    for genotype in genotypes:
        tokens = space.encode(genotype)[None]
        twin = space.decode(space.twins(tokens, generator)[0])
        assert subtrees(space.lower(twin), 2) == subtrees(space.lower(genotype), 2)
