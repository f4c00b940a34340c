"""The cells of DARTS: the published ones in the notation of the code, a measured table, counts and tokens."""

import itertools
import json
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nao_ray import rng
from nao_ray.controllers.descriptors import Descriptors
from nao_ray.errors import GenotypeError
from nao_ray.networks.ops import NAMES
from nao_ray.report.pictures.cells import draw_cells
from nao_ray.spaces.base import Edge
from nao_ray.spaces.darts_cnn import LOWERED, DartsCnn

SPACE = DartsCnn()
REFERENCE = json.loads((Path(__file__).parents[1] / "golden" / "darts.json").read_text())["genotypes"]
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
        (("avg_pool_3x3", "none"), "reduction cell, node 5: no operation 'none'"),
        (("avg_pool_3x3", "sep_conv_9x9"), "reduction cell, node 5: no operation 'sep_conv_9x9'"),
        (("normal_concat=[2, 3, 4, 5]", "normal_concat=[1, 2]"), r"normal_concat must be nodes of \[2, 3, 4, 5\]"),
        (("normal_concat=[2, 3, 4, 5]", "normal_concat=[2, 2]"), r"each at most once, got \[2, 2\]"),
        (("normal_concat=[2, 3, 4, 5]", "normal_concat=range(9999)"), r"got \[0, 1, .*\.\.\."),
        (("normal_concat=[2, 3, 4, 5]", "normal_concat=[]"), r"normal_concat must be nodes"),
        (("normal_concat=[2, 3, 4, 5]", "normal_concat=normal"), "'normal' is no list of literals"),
        (("normal_concat=", "normal="), "keyword argument repeated|field 'normal' is no name, or stands there twice"),
        (("normal_concat=", "normals="), "unexpected 'normals' at character"),
        (("Genotype(", "range("), "expected Genotype"),
        (("'sep_conv_3x3', 1", "'sep_conv_3x3', True"), "unexpected 'True'"),
        (("'sep_conv_3x3', 1", "'sep_conv_3x3', 1.0"), "unexpected '.'"),
        (("'sep_conv_3x3', 1", "'sep_conv_3x3', -1"), "unexpected '-'"),
        (("normal_concat=[2, 3, 4, 5]", "normal_concat=range(10**9)"), "cannot read the DARTS genotype"),
        ((", ('skip_connect', 2)],", "],"), "normal cell: expected a list of two edges a node, .* got 7 edges"),
        (("('skip_connect', 2)],", "'skip_connect'],"), "an edge is a pair of operation and source"),
        (("reduce=", "reduction="), "unexpected 'reduction' at character .*; fields are normal, .*, reduce_concat$"),
        (("reduce=", "reduce_concat="), "keyword argument repeated|stands there twice|no field 'reduce'"),
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


HOSTILE = [
    "",
    "[]",
    "3",
    "{}",
    "{'normal': 3, 'reduce': 4}",
    "{'normal': {'normal': 1}, 'reduce': []}",
    "Genotype(1)",
    "Genotype",
    "Genotype()",
    "Genotype([], [], [], [])",
    "Genotype(normal=[], reduce=[])",
    "Genotype(**{'normal': []})",
    "Genotype(normal=__import__('os').system('true'), reduce=[])",
    "Genotype(normal=[(lambda: 'max_pool_3x3')()], reduce=[])",
    "Genotype(normal=[x for x in range(9)], reduce=[])",
    "Genotype(normal=range(9999), reduce=range(9999))",
    "Genotype(normal=[['max_pool_3x3', 0]] * 99999, reduce=[])",
    "Genotype(normal='" + "a" * 9000 + "', reduce=[])",
    "Genotype(normal=[('max_pool_3x3', " + "9" * 9000 + ")], reduce=[])",
    "Genotype(normal=" + "[" * 5000 + "]" * 4900 + ")",
    "Genotype(normal=" + "(" * 90 + ")" * 90 + ", reduce=[])",
    "Genotype(normal=" + "range(" * 1000 + ")" * 1000 + ", reduce=[])",
    "Genotype(normal=" + "{1:" * 1000 + "1" + "}" * 1000 + ", reduce=[])",
    "Genotype(normal=[1][" + "0][" * 1000 + "0], reduce=[])",
    "Genotype(normal=[('max_pool_3x3', 0), ('max_pool_3x3', 1)" * 400,
    "Genotype(normal=[" + "('max_pool_3x3', 0), " * 42 + "], reduce=[])",
    "Genotype(normal=f'{1}', reduce=[])",
    "Genotype(normal='\\x41', reduce=[])",
    "Genotype(normal=[('max_pool_3x3', \u0661)], reduce=[])",
    "Genotype(normal=\x00, reduce=[])",
    "Genotype(normal=[],\nreduce=[])\nimport os",
    "Genotype(normal=[])Genotype(reduce=[])",
    "A = B = Genotype(normal=[], reduce=[])",
    "(" * 300,
    "-" * 9999 + "1",
    "not " * 2499 + "1",
    "a." * 4999 + "a",
    "x" * 10_000_000,
]


@pytest.mark.parametrize("dialect", ["genotype", "darts_cnn", "tokens", None])
def test_hostile_texts_are_refused_in_a_short_line(dialect):
    """In any notation, and with no warning of Python's parser."""
    for text in HOSTILE:
        with pytest.raises(GenotypeError, match=r"^space darts_cnn") as caught:
            SPACE.parse(text, dialect)
        said = str(caught.value)
        assert len(said.splitlines()) == 1
        assert len(said) < 500, text[:100]


WORDS = [*"()[]{},:='*-2 ", "Genotype(", "range(2, 6)", "normal", "reduce=", "normal_concat=", "'skip_connect'", "[("]
WORDS += ["('sep_conv_3x3', 0)", "'none'", "99", "\n", ")]", "lambda", "if"]


@settings(max_examples=60)
@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(WORDS), max_size=40).map("".join)))
def test_any_text_is_read_or_refused(text):
    try:
        genotype = SPACE.parse(text, "genotype")
    except GenotypeError as error:
        said = str(error).splitlines()
    else:
        SPACE.validate(genotype)
        said = [genotype.key]
    assert len(said) == 1


CELL = st.integers(1, 6).flatmap(
    lambda nodes: st.tuples(
        st.tuples(
            *[
                st.tuples(st.sampled_from([op for op in LOWERED if op != "none"]), st.integers(0, 1 + node))
                for node in range(nodes)
                for _ in range(2)
            ]
        ),
        st.sets(st.integers(2, 1 + nodes), min_size=1),
    )
)


@settings(max_examples=40)
@given(CELL, CELL)
def test_genotypes_go_through_every_notation(normal, reduce):
    """Read, written in ours and in theirs, read again; theirs is what the published code prints."""
    kind = namedtuple("Genotype", "normal normal_concat reduce reduce_concat")
    made = kind([*normal[0]], sorted(normal[1]), [*reduce[0]], sorted(reduce[1]))
    genotype = SPACE.parse(str(made))
    assert SPACE.parse(genotype.key) == genotype
    text = SPACE.notations(genotype)["genotype"]
    assert eval(text, {"Genotype": kind, "range": lambda *ends: [*range(*ends)]}) == made
    assert SPACE.parse(f"MINE = {text}") == SPACE.parse(json.dumps(made._asdict())) == genotype
    graph = SPACE.lower(genotype)
    assert [cell.output for _, cell in graph.cells] == [tuple(sorted(concat)) for _, concat in (normal, reduce)]
    canonical = SPACE.canonical(genotype)
    assert SPACE.canonical(canonical) == canonical
    swapped = kind(_swapped(made.normal), made.normal_concat, _swapped(made.reduce), made.reduce_concat)
    assert SPACE.canonical(SPACE.parse(str(swapped))) == canonical


def _swapped(pairs):
    return [pairs[at ^ 1] for at in range(len(pairs))]


@pytest.mark.parametrize("name", REFERENCE)
def test_every_published_genotype(name):
    genotype = SPACE.parse(name)
    assert SPACE.parse(json.dumps(REFERENCE[name])) == genotype
    graph = SPACE.lower(genotype)
    for role, field in (("normal", "normal"), ("reduction", "reduce")):
        cell = graph.cell(role)
        assert [[SPACE.op_names[e.op], e.source] for node in cell.nodes for e in node] == REFERENCE[name][field]
        assert list(cell.output) == REFERENCE[name][f"{field}_concat"]


def test_names_of_published_genotypes():
    assert SPACE.parse("DARTS") == SPACE.parse("DARTS_V2")
    with pytest.raises(GenotypeError, match=r"no published architecture 'NasNt'; did you mean NASNet\?$"):
        SPACE.parse("NasNt")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("NASNet", "normal cell .*: it has 5 nodes, not 4$"),
        (
            GENOTYPES["DARTS_V2"].replace("avg_pool", "max_pool").replace("range(2, 6)", "[3, 5]", 1),
            r"\[3, 5\], not all$",
        ),
        (
            GENOTYPES["DARTS_V1"].replace("avg_pool_3x3", "sep_conv_7x7"),
            "reduction cell .*: sep_conv_7x7 is none of max",
        ),
        (GENOTYPES["DARTS_V1"].replace("3', 1)", "3', 0)", 1), "normal cell .*: both edges of node 2 come from one"),
    ],
)
def test_cells_that_are_not_searched_have_neither_tokens_nor_mutants(text, reason):
    genotype = SPACE.parse(text)
    SPACE.validate(genotype)
    for use in (SPACE.encode, lambda genotype: SPACE.mutate(genotype, rng.child(0, "mutant"))):
        with pytest.raises(GenotypeError, match=reason):
            use(genotype)
