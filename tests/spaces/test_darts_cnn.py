"""The cells of DARTS: the published ones in the notation of the code, a measured table, counts and tokens."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from nao_ray import rng
from nao_ray.controllers.descriptors import Descriptors
from nao_ray.errors import GenotypeError
from nao_ray.networks.ops import NAMES
from nao_ray.report.pictures.cells import draw_cells
from nao_ray.spaces.base import Edge
from nao_ray.spaces.darts_cnn import DartsCnn

SPACE = DartsCnn()
GENOTYPES = {  # quark0/darts, genotypes.py
    "DARTS_V1": "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1), "
    "('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=[2, 3, 4, 5])",
    "DARTS_V2": "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))",
}


def fields(genotype):
    """The fields of a genotype as JSON has them."""
    cells = [[pair.split("~") for pair in cell.replace("+", "").strip("|").replace("||", "|").split("|")]
             for cell in genotype.key.split()]  # fmt: skip
    return dict(zip(("normal", "reduce"), ([[op, int(source)] for op, source in cell] for cell in cells), strict=True))


@pytest.mark.parametrize("name", GENOTYPES)
def test_the_published_cells_in_the_notation_of_the_code(name):
    genotype = SPACE.parse(GENOTYPES[name], "genotype")
    assert genotype == SPACE.parse(name)
    as_json = fields(genotype)
    assert SPACE.parse(json.dumps(as_json), "genotype") == genotype
    as_json |= {"normal_concat": [2, 3, 4, 5], "reduce_concat": [5, 4, 3, 2]}
    assert SPACE.parse(json.dumps(as_json), "genotype") == genotype
    tokens = " ".join(map(str, SPACE.encode(genotype)))
    assert SPACE.parse(tokens, "tokens") == genotype


def test_every_row_of_the_measured_table(data_folder):
    """214 random architectures: each is read, encoded, decoded and lowered."""
    frame = pd.read_parquet(data_folder / "darts_random_214" / "darts_random_214.parquet")
    assert len(frame) == 214
    genotypes = []
    for normal, reduce in zip(frame["normal"], frame["reduce"], strict=True):
        genotype = SPACE.parse(f'{{"normal": {normal}, "reduce": {reduce}}}', "genotype")
        assert fields(genotype) == {"normal": json.loads(normal), "reduce": json.loads(reduce)}
        assert SPACE.decode(SPACE.encode(genotype)) == genotype
        genotypes.append(genotype)
        for _, cell in SPACE.lower(genotype).cells:
            assert [len(node) for node in cell.nodes] == [2] * 4
            assert all(edge.op in NAMES for node in cell.nodes for edge in node)
    canonical = [SPACE.canonical(genotype) for genotype in genotypes]
    descriptors = Descriptors(SPACE, canonical)
    assert len(np.unique(descriptors(canonical), axis=0)) == len(set(canonical)) == 214


def test_the_papers_number_of_cells():
    """Section 2.1 and appendix: the product over nodes of k(k-1)/2 pairs of states and 7^2 operations, twice."""
    per_cell = (1 * 3 * 6 * 10) * 49**4
    assert SPACE.num_architectures == per_cell**2
    assert SPACE.num_genotypes == (per_cell * 2**4) ** 2


@pytest.mark.parametrize("node", range(4))
def test_sources_and_their_tokens_are_one_to_one(node):
    """All source tokens of a node against all ordered pairs of different states."""
    base = SPACE.encode(SPACE.parse("DARTS_V2"))
    at = 4 * node
    legal = [np.flatnonzero(SPACE.token_mask[position]) for position in (at, at + 2)]
    seen = []
    for first, second in itertools.product(*legal):
        tokens = base.copy()
        tokens[[at, at + 2]] = first, second
        edges = SPACE.lower(SPACE.decode(tokens)).cell("normal").nodes[node]
        seen.append(tuple(edge.source for edge in edges))
        assert seen[-1][0] == first - 1
        if second != first:
            assert seen[-1][1] == second - 1
    assert sorted(seen) == sorted(itertools.permutations(range(2 + node), 2))


def test_exchanged_edges_are_twins_and_nothing_else_is():
    genotype = SPACE.canonical(SPACE.parse("DARTS_V2"))
    rows = SPACE.twins(np.repeat(SPACE.encode(genotype)[None], 6000, axis=0), rng.child(0, "twins"))
    twins = {SPACE.decode(row) for row in np.unique(rows, axis=0)}
    assert len(twins) == 2**8
    assert {SPACE.canonical(twin) for twin in twins} == {genotype}


def test_samples_are_uniform_over_pairs_and_operations():
    rows = [SPACE.lower(SPACE.sample(rng.child(0, "pairs", k))).cell("reduction").nodes for k in range(4000)]
    for node in range(4):
        pairs = [tuple(edge.source for edge in row[node]) for row in rows]
        ops = [edge.op for row in rows for edge in row[node]]
        for values, kinds in ((pairs, (2 + node) * (1 + node) // 2), (ops, 7)):
            counts = np.unique(np.array(values), axis=0, return_counts=True)[1]
            mean = len(values) / kinds
            assert len(counts) == kinds
            assert ((counts - mean) ** 2 / mean).sum() < kinds + 5 * np.sqrt(2 * kinds)


def test_a_mutation_changes_one_source_or_one_operation():
    start = SPACE.canonical(SPACE.parse("DARTS_V1"))
    before = [set(node) for _, cell in SPACE.lower(start).cells for node in cell.nodes]
    kinds = set()
    for k in range(400):
        mutant = SPACE.lower(SPACE.mutate(start, rng.child(0, "mutants", k)))
        after = [set(node) for _, cell in mutant.cells for node in cell.nodes]
        changed = [(a - b, b - a) for a, b in zip(before, after, strict=True) if a != b]
        assert len(changed) == 1
        (old,), (new,) = changed[0]
        assert (old.source == new.source) != (old.op == new.op)
        kinds.add("source" if old.op == new.op else "op")
    assert kinds == {"source", "op"}


def test_lowered_names():
    node = SPACE.lower(SPACE.parse("DARTS_V2")).cell("normal").nodes[3]
    assert node == (Edge(0, "identity"), Edge(2, "dil_sep_conv_3x3"))
    assert draw_cells(SPACE.lower(SPACE.parse("DARTS_V2"))).count("<title>c_{k}<") == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("('skip_connect', 2)", "('skip_connect', 5)"), "normal cell, node 5: source 5 is illegal, expected 0..4"),
        (("('sep_conv_3x3', 1)", "('sep_conv_3x3', 0)"), "normal cell, node 2: both edges come from state 0"),
        (("avg_pool_3x3", "none"), "reduction cell, node 5: no operation 'none'"),
        (("avg_pool_3x3", "sep_conv_7x7"), "reduction cell, node 5: no operation 'sep_conv_7x7'"),
        (("normal_concat=[2, 3, 4, 5]", "normal_concat=[2, 3, 4]"), r"normal_concat must be the nodes \[2, 3, 4, 5\]"),
        (("normal_concat=[2, 3, 4, 5]", "normal_concat=range(10**9)"), "cannot read the DARTS genotype"),
        ((", ('skip_connect', 2)],", "],"), "normal cell: expected 8 edges, got 7"),
        (("('skip_connect', 2)],", "'skip_connect'],"), "an edge is a pair of operation and source"),
        (("reduce=", "reduction="), "has no field 'reduce'"),
        (("Genotype(", "Genotype(["), "cannot read the DARTS genotype"),
        (("[2, 3, 4, 5]", "__import__('os').getpid()"), "cannot read the DARTS genotype"),
    ],
)
def test_errors_say_where(change, told):
    text = GENOTYPES["DARTS_V1"].replace(*change, 1)
    assert text != GENOTYPES["DARTS_V1"]
    with pytest.raises(GenotypeError, match=f"^space darts_cnn.*{told}") as caught:
        SPACE.parse(text, "genotype")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"normal": 3, "reduce": 4}', "Genotype(1)", "", "(" * 300])
def test_other_texts_are_no_genotypes(text):
    with pytest.raises(GenotypeError, match="space darts_cnn"):
        SPACE.parse(text, "genotype")
