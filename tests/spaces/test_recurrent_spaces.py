"""The recurrent spaces: published cells, whose ids they have, twins, and what is no cell."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from nao_ray import registry, rng
from nao_ray.errors import GenotypeError
from nao_ray.spaces.base import Cell, Edge
from nao_ray.spaces.darts_rnn import DartsRnn
from nao_ray.spaces.enas_rnn import EnasRnn
from nao_ray.spaces.nao_rnn import NaoRnn
from nao_ray.spaces.parts.recurrent_cell import RecurrentConfig, RecurrentSpace, num_trees

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "recurrent.json").read_text())
NAO, ENAS, DARTS = NaoRnn(), EnasRnn(), DartsRnn()
NAO_RNN = "0 1 0 1 1 1 3 0 4 1 4 1 5 1 1 1 7 1 1 1 1 2"
NAO_WS_RNN = "0 1 1 1 2 2 1 2 4 1 4 1 4 1 7 1 8 2 1 0 4 1"


def cell_of(genotype):
    """Of DARTS' fields."""
    return Cell(1, tuple((Edge(source, op),) for op, source in genotype["recurrent"]), tuple(genotype["concat"]))


def lowered(space, text, dialect=None):
    return space.lower(space.parse(text, dialect)).cell("recurrent")


def numbers(values):
    return " ".join(map(str, values))


def test_published_cells_are_those_of_their_code():
    assert NAO.parse(NAO_RNN, "nao") == NAO.parse("NAO-RNN")
    assert NAO.parse(NAO_WS_RNN, "nao_ws") == NAO.parse("NAO-WS-RNN")
    assert NAO.parse(NAO_RNN, "nao_ws") != NAO.parse("NAO-RNN"), "the programs' ids 2 and 3 differ"
    for name, published in (("ENAS-RNN-DARTS", "ENAS"), ("DARTS-RNN-V1", "DARTS_V1"), ("DARTS-RNN", "DARTS_V2")):
        assert lowered(DARTS, name) == cell_of(GOLDEN["genotypes"][published])
    enas = GOLDEN["enas"]["enas_lm"]
    assert ENAS.parse(numbers(enas["ENAS"]), "enas_lm") == ENAS.parse("ENAS-RNN")
    as_darts = enas["ENAS_as_darts_rnn_genotype"]
    for name, concat in (("ENAS-RNN", "all_nodes_gpu"), ("ENAS-RNN-loose-ends", "loose_ends_tpu")):
        fields = {"recurrent": as_darts["recurrent"], "concat": as_darts[f"concat_{concat}_code"]}
        assert lowered(ENAS, name) == cell_of(fields)
    both = lowered(ENAS, numbers(enas["DARTS_V2_as_enas_lm"]), "enas_lm")
    assert both == cell_of(GOLDEN["genotypes"]["DARTS_V2"]), "one cell in two programs"


def test_arcs_of_the_first_code_of_enas():
    """Its first number is the activation of the node that is state 0 here, always tanh."""
    arc = GOLDEN["enas"]["ptb_old_repo_final"]["arc"]
    cell = lowered(ENAS, numbers(arc), "enas")
    assert [(edge.source, edge.op) for (edge,) in cell.nodes[:6]] == [
        (0, "tanh"), (1, "relu"), (2, "relu"), (2, "tanh"), (2, "tanh"), (5, "relu"),
    ]  # fmt: skip
    assert ENAS.notations(ENAS.parse(numbers(arc), "enas"))["enas"] == numbers(arc)
    with pytest.raises(GenotypeError, match=r"^space enas_rnn: node 0 is always tanh, 0 in this dialect, got 1$"):
        ENAS.parse(numbers([1, *arc[1:]]), "enas")


@pytest.mark.parametrize("space", [NAO, ENAS, DARTS], ids=lambda space: space.name)
def test_every_notation_reads_back(space):
    for name in space.published:
        genotype = space.parse(name)
        for dialect, text in space.notations(genotype).items():
            assert space.parse(text, dialect) == genotype
    sampled = space.sample(rng.child(0, "notations"))
    assert len(space.notations(sampled)) == 1 + len(space.ids)


def test_tokens_are_those_of_nao():
    """0 start, 1..11 a source + 1, 12..15 the activations."""
    assert (NAO.vocabulary, NAO.length, NAO.tokens_per_step) == (16, 22, 2)
    assert NAO.encode(NAO.parse("NAO-WS-RNN")).tolist() == [
        int(number) + (12 if at % 2 else 1) for at, number in enumerate(NAO_WS_RNN.split())
    ]
    assert np.flatnonzero(NAO.token_mask[0]).tolist() == [1]
    assert np.flatnonzero(NAO.token_mask[20]).tolist() == list(range(1, 12))
    assert np.flatnonzero(NAO.token_mask[21]).tolist() == [12, 13, 14, 15]


# -- twins ----------------------------------------------------------------------------------------------------


class Two(RecurrentSpace):
    activations = ("relu", "tanh")


def trees(space):
    """Every cell of a space as its tree, in words of this test: a node's activation and what grows from it, sorted."""
    for choice in itertools.product(*(range(count) for count in space._choices.reshape(-1))):
        genotype = space._genotype(np.array(choice).reshape(-1, 2))
        nodes = space.lower(genotype).cell("recurrent").nodes

        def grown(state, nodes=nodes):
            return sorted((edge.op, grown(node)) for node, (edge,) in enumerate(nodes, 1) if edge.source == state)

        yield genotype, str(grown(0))


@pytest.mark.parametrize("output", ["all", "loose_ends"])
@pytest.mark.parametrize("nodes", [1, 2, 3, 4])
def test_cells_of_one_tree_are_twins_and_no_others_are(nodes, output):
    space = Two(RecurrentConfig(nodes=nodes, output=output))
    found = [(space.canonical(genotype).key, tree) for genotype, tree in trees(space)]
    assert len(found) == space.num_genotypes
    assert len({key for key, _ in found}) == len({tree for _, tree in found}) == len(set(found))
    assert len(set(found)) == space.num_architectures


def test_numbers_of_trees():
    """OEIS A000081 and A000151: rooted trees of n + 1 nodes, and of nodes of two colours but the root."""
    assert [num_trees(n, 1) for n in range(8)] == [1, 1, 2, 4, 9, 20, 48, 115]
    assert [num_trees(n, 2) for n in range(7)] == [1, 2, 7, 26, 107, 458, 2058]
    assert NAO.num_architectures == 8_244_075_700


def test_twins_are_all_orders_of_the_nodes():
    space = Two(RecurrentConfig(nodes=3))
    genotype = space.parse("0:tanh 1:relu 0:relu")
    rows = np.repeat(space.encode(genotype)[None], 64, axis=0)
    made = {space.decode(row).key for row in space.twins(rows, rng.child(0, "twins"))}
    assert made == {"0:tanh 1:relu 0:relu", "0:tanh 0:relu 1:relu", "0:relu 0:tanh 2:relu"}


def test_the_output_goes_with_the_nodes():
    space = Two(RecurrentConfig(nodes=3))
    canonical = [
        space.canonical(space.parse(text)).key for text in ("0:tanh 0:relu 1:relu out=3", "0:relu 0:tanh 2:relu out=3")
    ]
    assert canonical == ["0:relu 0:tanh 2:relu out=3"] * 2


# -- what is searched, and what is no cell --------------------------------------------------------------------


def test_nodes_and_output_are_settings():
    space = EnasRnn(RecurrentConfig(nodes=9, output="loose_ends"))
    genotype = space.sample(rng.child(0, "loose ends"))
    cell = space.lower(genotype).cell("recurrent")
    read = {edge.source for (edge,) in cell.nodes}
    assert cell.output == tuple(state for state in range(10) if state not in read)
    assert space.decode(space.encode(genotype)) == genotype
    with pytest.raises(GenotypeError, match=r"its output is the states \[1, 2, 3, 4, 5, 6, 7, 8, 9\], not its loose"):
        space.encode(space.parse(genotype.key.partition(" out=")[0]))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("ENAS-RNN-DARTS", "it has 11 nodes, not 8; the space can be told so, nodes: 11"), ("loose", "its output is")],
)
def test_cells_that_are_not_searched(name, reason):
    text = "0:tanh 1:tanh 1:tanh 1:tanh 1:tanh 1:tanh 1:tanh 1:tanh out=8" if name == "loose" else name
    genotype = DARTS.parse(text)
    DARTS.validate(genotype)
    for refused in (DARTS.encode, lambda g: DARTS.mutate(g, rng.child(0, "x"))):
        with pytest.raises(GenotypeError, match=reason):
            refused(genotype)


@pytest.mark.parametrize(
    ("space", "text", "dialect", "told"),
    [
        (NAO, NAO_RNN, None, "say whose they are, --dialect nao or --dialect nao_ws; or write"),
        (NAO, "0 1 0", "nao", "expected source and activation of each node, got 3 numbers"),
        (NAO, "0 4", "nao", "node 1: no activation 4, choose of 0 tanh, 1 relu, 2 identity, 3 sigmoid"),
        (NAO, "0 -1", "nao_ws", "node 1: no activation -1, choose of 0 tanh, 1 relu, 2 sigmoid, 3 identity"),
        (NAO, "0 x", "nao", "expected integers, got 'x'"),
        (NAO, "1 0", "nao", "node 1: source 1 is illegal, expected 0..0"),
        (DARTS, "0:tanh 1:none", None, "node 2: no activation 'none', choose of tanh, relu, sigmoid, identity"),
        (DARTS, "0:tanh 2:relu", None, "node 2: source 2 is illegal, expected 0..1"),
        (DARTS, "0:tanh out=2", None, "the output must be states of 0..1, each once, got [2]"),
        (DARTS, "0:tanh out=1,1", None, "the output must be"),
        (DARTS, "out=1", "darts_rnn", "expected source:activation for each node"),
        (DARTS, "0tanh", None, "expected source:activation for each node"),
        (DARTS, " ".join(["0:tanh"] * 51), None, "expected a list of 1 to 50 nodes, got 51 nodes"),
        (DARTS, "Genotype(recurrent=[('tanh', 0)], concat=[])", None, "the output must be"),
        (DARTS, "Genotype(recurrent=[('tanh', True)])", None, "cannot read the DARTS genotype: unexpected 'True'"),
        (DARTS, "Genotype(recurrent=[('tanh')])", None, "expected a pair of activation and source"),
        (DARTS, "Genotype(recurrent=__import__('os').system('true'))", None, "cannot read the DARTS genotype"),
        (DARTS, "Genotype(concat=range(1, 9), recurrent=5)", None, "expected a list of 1 to 50 nodes, got 5"),
        (DARTS, '{"concat": [1], "normal": "recurrent"}', None, "cannot read the DARTS genotype"),
        (DARTS, "darts_rnn_v2", None, "did you mean DARTS-RNN-V2?"),
        (NAO, "nao-ws-rnn", None, "did you mean NAO-WS-RNN?"),
    ],
)  # fmt: skip
def test_what_is_no_cell_is_refused_in_one_line(space, text, dialect, told):
    with pytest.raises(GenotypeError) as caught:
        space.parse(text, dialect)
    assert f"space {space.name}" in str(caught.value)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_texts_of_dars_code_are_seen_to_be_of_a_recurrent_cell():
    text = "DARTS = Genotype(recurrent=[('tanh', 0), ('relu', 1)], concat=range(1, 3))"
    as_json = json.dumps({"recurrent": [["tanh", 0], ["relu", 1]], "concat": [1, 2]})
    for given in (text, as_json):
        assert DARTS.parse(given).key == NAO.parse(given).key == "0:tanh 1:relu"
        seeing = [name for name in registry.names("space") if registry.load("space", name).dialect_of(given)]
        assert seeing[0] == "darts_rnn"
        assert "darts_cnn" not in seeing


# -- alphas ---------------------------------------------------------------------------------------------------


def test_a_cell_is_derived_as_by_darts():
    """Of the recorded alphas u(180) as 36 x 5."""
    k = np.arange(1, 181)
    alphas = ((k * 2654435761) % 2**32 / 2**32 - 0.5).reshape(36, 5)
    assert DARTS.alpha_edges == {"recurrent": 36}
    assert DARTS.primitives == ("none", "tanh", "relu", "sigmoid", "identity")
    derived = DARTS.lower(DARTS.derive([alphas])).cell("recurrent")
    assert derived == cell_of(GOLDEN["numbers"]["rnn_search_genotype"])
