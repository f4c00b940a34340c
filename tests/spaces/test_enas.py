"""The micro and macro spaces of ENAS: the published arcs, the numbers of the paper, tokens and bits."""

import numpy as np
import pytest

from nao_ray import rng
from nao_ray.errors import GenotypeError
from nao_ray.report.pictures.cells import draw_cells
from nao_ray.spaces.base import Edge
from nao_ray.spaces.enas_macro import EnasMacro, EnasMacroConfig
from nao_ray.spaces.enas_micro import EnasMicro

MICRO, MACRO = EnasMicro(), EnasMacro()
LARGE = EnasMacro.for_text("ENAS-macro")
ROWS = """0 | 3 0 | 0 10 | 2 001 | 2 0000 | 3 11010 | 2 000001 | 2 0110111 | 1 01110101 | 0 000000000 | 2 0000010000
| 0 10011000011 | 2 010000010110 | 1 0010001110101 | 0 11010100000100 | 2 001000000010101 | 2 0100010011110010
| 2 00001010100101001 | 3 011010000010101000 | 3 0110000000001100001 | 0 10010110001000001100 | 3 010110010110110100100
| 0 1010100000000101001000 | 0 11000111010001010011000"""


def small(layers=4):
    return EnasMacro(EnasMacroConfig(layers=layers))


# -- micro ----------------------------------------------------------------------------------------------------


def test_the_published_cells():
    graph = MICRO.lower(MICRO.parse("ENAS-micro"))
    normal, reduction = graph.cell("normal"), graph.cell("reduction")
    assert graph.skeleton == "enas_micro"
    assert normal.output == (2, 3, 4, 5, 6), "every node reads the cell's inputs alone"
    assert reduction.output == (2, 4, 5, 6)
    assert normal.nodes[0] == (Edge(0, "avg_pool_3x3"), Edge(0, "sep_conv_3x3"))
    assert reduction.nodes[2] == (Edge(1, "sep_conv_5x5"), Edge(3, "sep_conv_5x5"))
    assert draw_cells(graph).count("<title>c_{k}<") == 2


def test_the_numbers_of_the_micro_space():
    assert (MICRO.length, MICRO.vocabulary) == (40, 12)
    # The paper's (5 * 5!)^4 = 1.3e11 has 5 operations once a cell; each of 5 nodes chooses two, of 2..6 sources each.
    assert MICRO.num_genotypes == (5**10 * 720**2) ** 2


# -- macro ----------------------------------------------------------------------------------------------------


def test_the_numbers_of_the_macro_space():
    """Section 2.3 of the paper: 6^12 2^66 = 1.6e29 networks of 12 layers; every text is one of its own."""
    assert (MACRO.length, LARGE.length) == (78, 300)
    assert MACRO.num_genotypes == MACRO.num_architectures == 6**12 * 2**66
    assert f"{MACRO.num_genotypes:.1e}" == "1.6e+29"


def test_the_published_network():
    arc = [[int(row.split()[0]), *map(int, "".join(row.split()[1:]))] for row in ROWS.split("|")]
    assert [len(row) for row in arc] == list(range(1, 25))
    genotype = LARGE.parse("ENAS-macro")
    assert genotype.key == " ".join(str(number) for row in arc for number in row)
    assert [[row[0] for row in arc].count(op) for op in range(6)] == [8, 2, 9, 5, 0, 0]
    (cell,) = [cell for _, cell in LARGE.lower(genotype).cells]
    assert sum(len(node) - 1 for node in cell.nodes) == 98
    assert cell.nodes[5] == (Edge(5, "sep_conv_5x5"), *[Edge(entry, "identity") for entry in (0, 1, 3)])
    assert cell.output == (24,)


def test_bit_j_is_entry_j_of_the_stem_and_the_layers():
    """Bit 0 is the stem; the layer just before is always read and has no bit."""
    space = small(3)
    nodes = space.lower(space.parse("5  0 1  4 0 1")).cell("network").nodes
    assert nodes[0] == (Edge(0, "max_pool_3x3"),)
    assert nodes[1] == (Edge(1, "conv_3x3"), Edge(0, "identity"))
    assert nodes[2] == (Edge(2, "avg_pool_3x3"), Edge(1, "identity"))


def test_the_text_says_how_many_layers():
    assert EnasMacro.for_text("ENAS-macro").config.layers == 24
    assert EnasMacro.for_text("0  1 0  2 0 1  3 0 0 0").config.layers == 4
    for text in ("0", "0 1 1", "0 " * 11, "NAONet-A", ""):
        assert EnasMacro.for_text(text).config.layers == 12
    with pytest.raises(GenotypeError, match="a genotype of 12 layers is 78 integers, got 300"):
        MACRO.parse("ENAS-macro")


def test_a_mutation_changes_one_number_and_reaches_every_neighbour():
    space = small(3)
    start = space.parse("0 1 0 2 1 0")
    mutants = {space.mutate(start, rng.child(0, "mutants", k)).key for k in range(600)}
    assert len(mutants) == 3 * 5 + 3
    assert all(sum(a != b for a, b in zip(m.split(), start.key.split(), strict=True)) == 1 for m in mutants)


def test_samples_are_uniform():
    rows = np.stack([MACRO.encode(MACRO.sample(rng.child(0, "uniform", k))) for k in range(2000)])
    for position, legal in enumerate(MACRO.token_mask):
        counts = np.bincount(rows[:, position], minlength=MACRO.vocabulary)[legal]
        degrees, mean = legal.sum() - 1, len(rows) / legal.sum()
        assert counts.sum() == len(rows)
        assert ((counts - mean) ** 2 / mean).sum() < degrees + 6 * np.sqrt(2 * degrees)


@pytest.mark.parametrize(
    ("text", "dialect", "told"),
    [
        ("6  0 0  0 0 0  0 0 0 0", "enas", r"number 6 at position 0 \(layer 0\) is illegal, expected 0\.\.5"),
        ("5  0 0  0 0 2  0 0 0 0", "enas", r"number 2 at position 5 \(layer 2\) is illegal, expected 0\.\.1"),
        ("6  1 7  1 7 6  1 7 7 7", "tokens", r"token 6 at position 5 \(layer 2\) is illegal, expected 7\.\.8"),
        ("0  0 0  0 0 x  0 0 0 0", "enas", "invalid literal"),
        ("99999999999999999999  0 0  0 0 0  0 0 0 0", "enas", "10 integers"),
    ],
)
def test_errors_say_where(text, dialect, told):
    with pytest.raises(GenotypeError, match=f"^space enas_macro: .*{told}"):
        small(4).parse(text, dialect)
