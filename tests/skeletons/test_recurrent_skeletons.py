"""Networks around recurrent cells: exact counts of the published ones, what is refused, and shared weights."""

import json
from pathlib import Path

import pytest
import torch

import nao_ray
from nao_ray import registry, rng
from nao_ray.errors import ConfigError
from nao_ray.skeletons.base import relaxed_skeleton_of, skeleton_of
from nao_ray.skeletons.recurrent import Recurrent
from nao_ray.skeletons.texts.base import LanguageConfig, RecurrentSize
from nao_ray.spaces.darts_rnn import DartsRnn
from nao_ray.spaces.enas_rnn import EnasRnn
from nao_ray.spaces.nao_rnn import NaoRnn
from nao_ray.spaces.parts.recurrent_cell import RecurrentConfig
from nao_ray.tasks.images.base import ImageShapes
from nao_ray.tasks.texts.base import TokenShapes
from nao_ray.training.recipe import Recipe

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "recurrent.json").read_text())
COUNTS, NAO_COUNTS = GOLDEN["counts"], GOLDEN["nao_counts"]
SMALL, TOKENS = TokenShapes(7), torch.tensor([[1, 0, 3, 6], [4, 2, 3, 5]])


@pytest.mark.parametrize(
    ("name", "space", "network", "hidden", "num_params"),
    [
        ("NAO-RNN", "nao_rnn", "ptb", None, NAO_COUNTS["final_ptb_vocab10000_850"]),
        ("NAO-WS-RNN", "nao_rnn", "wikitext2", None, NAO_COUNTS["final_wt2_vocab33278_700"]),
        ("NAO-WS-RNN", "nao_rnn", "ptb", 300, NAO_COUNTS["fixed_ptb_vocab10000_300"]),
        ("DARTS-RNN-V1", "darts_rnn", "ptb", None, COUNTS["rnn_eval_850_ntoken10000"]["DARTS_V1"]["total"]),
        ("DARTS-RNN", "darts_rnn", "wikitext2", None, COUNTS["rnn_eval_wikitext2_700_ntoken33278"]["total"]),
        ("ENAS-RNN-DARTS", "darts_rnn", "ptb", None, COUNTS["rnn_eval_850_ntoken10000"]["ENAS"]["total"]),
        ("ENAS-RNN", "enas_rnn", "ptb", None, 20_800_000),
        ("ENAS-RNN-loose-ends", "enas_rnn", "ptb", 850, 22_950_000),
    ],
)
def test_counts_of_published_networks(name, space, network, hidden, num_params):
    made = registry.load("space", space)()
    graph, skeleton = made.lower(made.parse(name)), skeleton_of(made)
    shapes, size = skeleton.shapes(network), RecurrentSize(hidden=hidden)
    counts = skeleton.count(graph, shapes, size)
    assert (counts.num_params, counts.num_params_auxiliary) == (num_params, 0)
    width, nodes = skeleton.sized(graph, shapes, size).hidden, len(graph.cell("recurrent").nodes)
    assert counts.macs == (4 + 2 * nodes) * width**2 + width * shapes.vocabulary, "of one token"


@pytest.mark.parametrize(
    ("space", "num_params"),
    [
        (NaoRnn(), NAO_COUNTS["supernet_ptb_vocab10000_300"]),
        (EnasRnn(RecurrentConfig(nodes=9)), 16_560_000),
    ],
)
def test_counts_of_published_shared_weights(space, num_params):
    skeleton = skeleton_of(space, shared=True)
    with torch.device("meta"):
        net = skeleton.supernet(space, skeleton.shapes("ptb"))
    assert sum(parameter.numel() for parameter in net.parameters()) == num_params


def test_one_number_is_the_width_of_the_embedding_too():
    network = nao_ray.build_network("NAO-RNN", space="nao_rnn", num_classes=7, network="ptb", hidden=4)
    assert network.embedding.shape == (7, 4)
    assert all(parameter.abs().max() <= 0.04 for parameter in network.parameters())
    with pytest.raises(ConfigError, match=r"^unknown key embedding_width; .*known: .*hidden[^\n]*$|did you mean"):
        nao_ray.build_network("NAO-RNN", space="nao_rnn", hidden=4, embedding_width=5)


def test_weights_of_enas_begin_as_published():
    space, large = EnasRnn(), RecurrentSize(hidden=20)
    skeleton = skeleton_of(space, shared=True)
    own = skeleton.build(space.lower(space.parse("ENAS-RNN")), SMALL, large)
    for network, most in ((own, 0.05), (skeleton.supernet(space, SMALL, large), 0.04)):
        assert 0.98 * most < max(parameter.abs().max() for parameter in network.parameters()) <= most


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        (ImageShapes(1, 8, 8, 10, "small"), "recurrent makes networks for text, and the task has none"),
        (TokenShapes(7, "poems"), "recurrent has no network poems; choose one of ptb, wikitext2, text"),
        (TokenShapes(0), "network text: vocabulary must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_built_is_refused(shapes, told):
    with pytest.raises(ConfigError, match=f"^{told}$"):
        Recurrent().check(shapes)


def made_supernet(**settings):
    space = NaoRnn(RecurrentConfig(nodes=4))
    skeleton = Recurrent(LanguageConfig(**settings))
    with rng.torch_seeded(0, "shared weights"):
        net = skeleton.supernet(space, SMALL, RecurrentSize(hidden=3)).double().eval()
    return net, space.lower(space.parse("0:tanh 1:relu 0:sigmoid 3:identity"))


@pytest.mark.parametrize("average_first", [False, True])
def test_a_choice_of_shared_weights_is_its_derived_network(average_first):
    net, graph = made_supernet(average_first=average_first)
    logits, carry = net(TOKENS, None, graph)
    derived = net.derive(graph)
    assert (0 in derived.cell.output) == average_first
    torch.testing.assert_close(derived(TOKENS), (logits, carry), rtol=0, atol=0)
    assert derived.embedding.data_ptr() != net.embedding.data_ptr()


def test_only_the_chosen_matrices_have_a_gradient():
    net, graph = made_supernet()
    logits, _ = net(TOKENS, None, graph)
    logits.sum().backward()
    used = {name for name, parameter in net.named_parameters() if parameter.grad is not None}
    chosen = {"nodes.0.0_tanh", "nodes.1.1_relu", "nodes.2.0_sigmoid", "nodes.3.3_identity"}
    assert used == {"embedding", "w0", "decoder_bias"} | chosen


def test_counts_of_the_published_relaxed_weights():
    space = DartsRnn()
    skeleton = relaxed_skeleton_of(space)
    with torch.device("meta"):
        net = skeleton.relaxed_supernet(space, skeleton.shapes("ptb"))
    assert sum(parameter.numel() for parameter in net.parameters()) == COUNTS["rnn_search_300_ntoken10000"]["total"]
    with pytest.raises(
        ConfigError, match=r"^space nao_rnn has no relaxed supernet; darts_cnn, darts_rnn, nas_bench_201 have one$"
    ):
        relaxed_skeleton_of(NaoRnn())


def test_a_recipe_tells_its_network_what_is_dropped():
    space, shapes = NaoRnn(), Recurrent().shapes("text", num_classes=20)
    graph = space.lower(space.sample(rng.child(0, "a cell")))
    config = Recurrent().build(graph, shapes, RecurrentSize(hidden=4), Recipe(name="darts_ptb")).config
    assert (config.dropout, config.dropout_hidden, config.dropout_input) == (0.75, 0.25, 0.75)
    assert (config.dropout_embedding, config.dropout_words) == (0.2, 0.1)
    assert (config.activation_penalty, config.slowness_penalty) == (0.0, 1e-3)
    with pytest.raises(ConfigError, match=r"recurrent is trained by a recipe of texts, and short is none; give recipe"):
        Recurrent().check(shapes, None, Recipe(name="short"))
