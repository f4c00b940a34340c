"""The three spaces of NAO's convolutional cells, against the reference's facts and against brute force."""

import itertools
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest

from nao_ray import registry, rng
from nao_ray.errors import GenotypeError
from nao_ray.spaces.parts import cnn_cell
from nao_ray.spaces.parts.cnn_cell import CnnCellSpace

SMALL = registry.load("space", "nao_cnn_small")()
LARGE = registry.load("space", "nao_cnn")()
MIDDLE = registry.load("space", "nao_cnn_middle")()

# The controller's sequences of the published cells (NAO_pytorch: node id + 1, operation id + 7).
CONTROLLER_SEQUENCES = {
    "NAONet-B": "1 8 1 9 1 8 3 9 2 10 1 9 5 7 2 10 3 8 1 10 2 8 2 7 3 8 3 11 2 7 3 10 4 8 3 9 1 9 1 9",
    "NAONet-V2": "2 8 1 8 3 11 1 7 1 7 3 8 1 7 1 9 1 10 1 7 1 9 1 9 3 9 2 7 1 7 1 8 1 7 1 10 1 7 1 8",
    "NAONet-WS": "1 8 1 11 3 9 2 10 2 7 3 7 3 10 2 10 2 9 1 11 2 8 1 10 3 10 3 10 2 7 1 8 1 11 3 11 3 10 3 10",
}
LOOSE_ENDS = {
    (LARGE, "NAONet-A"): ((3, 5, 6), (3, 4, 5, 6)),
    (LARGE, "NAONet-A-TF"): ((3, 5, 6), (3, 4, 5, 6)),
    (SMALL, "NAONet-B"): ((3, 5, 6), (4, 5, 6)),
    (SMALL, "NAONet-V2"): ((3, 4, 5, 6), (3, 4, 5, 6)),
    (SMALL, "NAONet-WS"): ((3, 4, 5, 6), (3, 4, 5, 6)),
}
TF_DAG = """{"conv_dag": {
 "node_1": ["node_1", null, null, null, null], "node_2": ["node_2", null, null, null, null],
 "node_3": ["node_3", "node_1", "node_2", "conv 3x3", "avg_pool 5x5"],
 "node_4": ["node_4", "node_3", "node_2", "conv 1x3+3x1", "conv 3x3"],
 "node_5": ["node_5", "node_1", "node_2", "conv 1x1", "conv 3x3"],
 "node_6": ["node_6", "node_1", "node_5", "conv 1x3+3x1", "conv 3x3"],
 "node_7": ["node_7", "node_2", "node_1", "identity", "conv 3x3"]},
"reduc_dag": {
 "node_1": ["node_1", null, null, null, null], "node_2": ["node_2", null, null, null, null],
 "node_3": ["node_3", "node_1", "node_2", "conv 3x3", "avg_pool 2x2"],
 "node_4": ["node_4", "node_1", "node_1", "conv 1x1", "avg_pool 3x3"],
 "node_5": ["node_5", "node_2", "node_1", "conv 1x7+7x1", "max_pool 2x2"],
 "node_6": ["node_6", "node_1", "node_3", "avg_pool 3x3", "conv 1x1"],
 "node_7": ["node_7", "node_2", "node_1", "max_pool 3x3", "conv 3x3"]}}"""


@pytest.mark.parametrize(("name", "sequence"), CONTROLLER_SEQUENCES.items())
def test_controller_sequences(name, sequence):
    tokens = SMALL.encode(SMALL.parse(name))
    assert tokens.tolist() == list(map(int, sequence.split()))
    assert SMALL.parse(sequence, "tokens") == SMALL.parse(name)


@pytest.mark.parametrize(
    ("space", "vocabulary", "ops"),
    [(SMALL, 12, 5), (MIDDLE, 17, 10), (LARGE, 18, 11)],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_vocabularies(space, vocabulary, ops):
    assert (space.length, space.vocabulary, len(space.ops), space.tokens_per_step) == (40, vocabulary, ops, 2)


@pytest.mark.parametrize(("where", "ends"), LOOSE_ENDS.items(), ids=lambda item: str(item[1]))
def test_loose_ends(where, ends):
    space, name = where
    graph = space.lower(space.parse(name))
    assert (graph.cell("normal").output, graph.cell("reduction").output) == ends


def test_an_unused_input_is_a_loose_end():
    genotype = SMALL.parse(" ".join(["1 4 1 4"] + ["1 0 2 0"] * 4 + ["0 4 0 4"] * 5))
    graph = SMALL.lower(genotype)
    assert graph.cell("normal").output == (0, 3, 4, 5, 6)
    assert graph.cell("reduction").output == (1, 2, 3, 4, 5, 6)


def test_the_dialects_of_the_large_space():
    v1 = LARGE.parse("NAONet-A")
    v2 = "0 2 1 10 2 3 1 2 0 1 1 2 0 3 4 2 1 0 0 2 0 2 1 8 0 1 0 9 0 4 1 5 0 9 2 1 1 6 0 2"
    assert LARGE.parse(v2, "v2") == v1
    with pytest.raises(GenotypeError, match=r"_op 2 is illegal, expected 5\.\.15"):
        LARGE.parse(v2)


def test_the_tensorflow_graph_is_the_other_naonet_a():
    read = LARGE.parse(TF_DAG, "tf_dag")
    assert read == LARGE.parse("NAONet-A-TF")
    assert LARGE.canonical(read) != LARGE.canonical(LARGE.parse("NAONet-A"))
    with pytest.raises(GenotypeError, match="TensorFlow DAG"):
        LARGE.parse(TF_DAG.replace("avg_pool 5x5", "sep_conv 5x5"), "tf_dag")
    with pytest.raises(GenotypeError, match="TensorFlow DAG"):
        LARGE.parse("{}", "tf_dag")


def test_the_two_naonets_differ_in_one_node():
    words = LARGE.published["NAONet-A"].split(), LARGE.published["NAONet-A-TF"].split()
    assert [index for index, pair in enumerate(zip(*words, strict=True)) if len(set(pair)) > 1] == [28, 30]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({0: "2"}, "normal cell, node 2: x_id 2 is illegal, expected 0..1"),
        ({22: "-1"}, "reduction cell, node 2: y_id -1 is illegal"),
        ({39: "5"}, "reduction cell, node 6: y_op 5 is illegal, expected 0..4"),
        ({3: "x"}, "40 integers"),
        ({3: "3 3"}, "got 41"),
        ({3: "9999999999999999999999"}, "out of range"),
        ({3: "1.0"}, "40 integers"),
    ],
)
def test_errors_say_where(change, told):
    words = SMALL.published["NAONet-B"].split()
    for position, word in change.items():
        words[position] = word
    with pytest.raises(GenotypeError, match="space nao_cnn_small") as caught:
        SMALL.parse(" ".join(words))
    assert told in str(caught.value)


def test_a_close_name_is_suggested():
    with pytest.raises(GenotypeError, match="did you mean NAONet-WS"):
        SMALL.parse("NAOnet-WS")


# -- against brute force, on a space small enough ------------------------------------------------------------


class Tiny(CnnCellSpace):
    """Two operations; with two nodes a cell 4**2 * 6**2 strings in each cell."""

    name: ClassVar[str] = "tiny"
    ops: ClassVar[tuple[str, ...]] = ("identity", "max_pool_3x3")
    dialects: ClassVar[tuple[str, ...]] = ("v1", "tokens")
    id_offset: ClassVar[dict[str, int]] = {"v1": 0}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(cnn_cell, "NODES", 2)
    monkeypatch.setattr(cnn_cell, "ROLES", ("normal",))
    return Tiny()


def _everything(space):
    legal = [np.flatnonzero(row) for row in space.token_mask]
    return [space.decode(np.array(tokens)) for tokens in itertools.product(*legal)]


def test_numbers_against_brute_force(tiny):
    genotypes = _everything(tiny)
    assert len(genotypes) == len(set(genotypes)) == tiny.num_genotypes == 16 * 36
    classes = {tiny.canonical(genotype) for genotype in genotypes}
    assert len(classes) == tiny.num_architectures == 10 * 21


def test_canonical_classes_are_the_exchanges_of_edges(tiny):
    for genotype in _everything(tiny)[::7]:
        nodes = np.array(genotype.key.split()).reshape(-1, 2, 2)
        twins = {
            " ".join(np.stack([node[::-1] if swap else node for node, swap in zip(nodes, swaps, strict=True)]).ravel())
            for swaps in itertools.product([False, True], repeat=2)
        }
        canonical = tiny.canonical(genotype)
        assert {tiny.canonical(tiny.parse(text)) for text in twins} == {canonical}
        assert canonical.key in twins


def test_samples_are_uniform_over_strings(tiny):
    """Chi-square over all 210 classes, each expected by its number of strings; the seed is fixed."""
    strings = Counter(tiny.canonical(genotype) for genotype in _everything(tiny))
    draws = 40 * tiny.num_genotypes
    drawn = Counter(tiny.sample(rng.child(0, "chi-square", k)) for k in range(draws))
    assert set(drawn) <= set(strings)
    expected = {key: draws * count / tiny.num_genotypes for key, count in strings.items()}
    statistic = sum((drawn[key] - mean) ** 2 / mean for key, mean in expected.items())
    degrees = len(strings) - 1
    assert abs(statistic - degrees) < 4 * np.sqrt(2 * degrees)


def test_mutation_reaches_every_neighbour_and_no_other(tiny):
    start = tiny.canonical(_everything(tiny)[100])
    words = start.key.split()
    neighbours = set()
    for position, word in enumerate(words):
        choices = range(2) if position % 2 else range(2 + position // 4)
        for choice in choices:
            if str(choice) != word:
                text = " ".join([*words[:position], str(choice), *words[position + 1 :]])
                neighbours.add(tiny.canonical(tiny.parse(text)))
    neighbours.discard(start)
    reached = {tiny.mutate(start, rng.child(0, "neighbours", k)) for k in range(600)}
    assert reached == neighbours


@pytest.mark.parametrize("space", [SMALL, MIDDLE, LARGE], ids=lambda space: space.name)
def test_positions_are_sampled_uniformly(space):
    """Sources and operations of the full spaces, pooled over the exchange of edges; chi-square per position."""
    tokens = np.stack([space.encode(space.sample(rng.child(0, "positions", k))) for k in range(3000)])
    edges = tokens.reshape(len(tokens), 10, 2, 2)
    for node in range(10):
        for what in range(2):
            legal = np.flatnonzero(space.token_mask[4 * node + what])
            counts = np.array([(edges[:, node, :, what] == token).sum() for token in legal])
            assert counts.sum() == 2 * len(tokens)
            mean = counts.sum() / len(legal)
            statistic, degrees = ((counts - mean) ** 2 / mean).sum(), len(legal) - 1
            assert statistic < degrees + 6 * np.sqrt(2 * degrees)
