"""`nao-ray describe` as a user types it."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nao_ray.training import cost


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def test_describe_counts_like_the_reference(call):
    done = call("describe", "NAONet-A", "--json")
    facts = json.loads(done.out)
    assert facts["num_params"] == 11_470_150
    assert facts["num_params_auxiliary"] == 476_426
    assert facts["macs"] == 1_673_814_240
    assert facts["loose_ends"] == {"normal": [3, 5, 6], "reduction": [3, 4, 5, 6]}
    assert (facts["space"], facts["network"], facts["published"]) == ("nao_cnn", "cifar10", "NAONet-A")
    assert (facts["cells_per_stage"], facts["channels"], facts["num_classes"]) == (6, 36, 10)


def test_describe_takes_sizes_and_text(call):
    text = "0 1 0 2 0 1 2 2 1 3 0 2 4 0 1 3 2 1 0 3 1 1 1 0 2 1 2 4 1 0 2 3 3 1 2 2 0 2 0 2"
    words = ["--space", "nao_cnn_small", "--cells-per-stage", "6", "--channels", "128", "--num-classes", "10"]
    facts = json.loads(call("describe", f" {text.replace(' ', ', ')} ", *words, "--json").out)
    assert facts["num_params"] == 33_868_170
    assert facts["genotype"] == text
    assert facts["published"] == "NAONet-B"
    assert facts["canonical"] != text


def test_describe_reads_other_dialects(call):
    text = "0 2 1 10 2 3 1 2 0 1 1 2 0 3 4 2 1 0 0 2 0 2 1 8 0 1 0 9 0 4 1 5 0 9 2 1 1 6 0 2"
    facts = json.loads(call("describe", text, "--space", "nao_cnn", "--dialect", "v2", "--json").out)
    assert facts["published"] == "NAONet-A"


def test_describe_draws(call):
    done = call("describe", "NAONet-V2", "--svg", "v2.svg", "--network", "imagenet", "--channels", "52")
    assert done.code == 0, done.err
    assert "7,026,850" in done.out
    assert "sep conv 5\u00d75 of c_{k-1}" in done.out
    assert ElementTree.fromstring(Path("v2.svg").read_text()).tag.endswith("svg")


def test_describe_the_networks_of_darts(call):
    done = call("describe", "DARTS_V2", "--space", "darts_cnn", "--network", "imagenet", "--json")
    facts = json.loads(done.out)
    assert (facts["num_params"], facts["num_params_auxiliary"], facts["macs"]) == (4_718_752, 1_260_776, 529_911_552)
    assert (facts["published"], facts["layers"], facts["channels"]) == ("DARTS_V2", 14, 48)
    text = facts["notations"]["genotype"]
    assert text.startswith("Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ")
    assert text.endswith("reduce_concat=range(2, 6))")
    pasted = call("describe", f"MINE = {text}", "--layers", "3", "--channels", "4")
    assert pasted.out.splitlines()[-1] == text
    assert "cifar10, L = 3, C = 4, 10 classes" in pasted.out
    amoeba = json.loads(call("describe", "AmoebaNet", "--layers", "20", "--channels", "36", "--json").out)
    assert (amoeba["num_params"], amoeba["loose_ends"]) == (3_145_078, {"normal": [4, 5, 6], "reduction": [3, 4, 6]})


def test_describe_the_networks_of_enas(call):
    micro = json.loads(call("describe", "ENAS-micro", "--svg", "micro.svg", "--json").out)
    assert (micro["num_params"], micro["num_params_auxiliary"]) == (3_894_372, 494_848)
    assert (micro["published"], micro["cells_per_stage"], micro["channels"]) == ("ENAS-micro", 5, 36)
    assert Path("micro.svg").read_text().count("<title>c_{k}<") == 2
    macro = json.loads(call("describe", "ENAS-macro", "--json").out)
    assert (macro["published"], "cells_per_stage" in macro, macro["channels"]) == ("ENAS-macro", False, 96)
    assert macro["num_params"] < 42_559_392, "its separable convolutions are separable"
    small = json.loads(call("describe", "0 1 0 2 0 1", "--space", "enas_macro", "--network", "small", "--json").out)
    assert (small["published"], small["channels"], small["loose_ends"]) == (None, 16, {"network": [3]})


@pytest.mark.parametrize(
    ("words", "shared", "relaxed"),
    [
        (("NAO-RNN", "--network", "ptb"), {"num_params": 50_890_000, "hidden": 300}, None),
        (("ENAS-RNN",), {"num_params": 13_680_000, "hidden": 200}, None),
        (
            ("DARTS-RNN",),
            {"num_params": 29_290_000, "hidden": 300},
            {"num_params": 4_810_000, "hidden": 300},
        ),
        (  # 36 pairs of states, 4 activations, 200 weights each, beside W0, embedding and bias
            ("0:tanh", "--space", "darts_rnn", "--hidden", "10", "--num-classes", "7"),
            {"num_params": 36 * 4 * 200 + 400 + 77, "hidden": 10},
            {"num_params": 8 * 200 + 400 + 77, "hidden": 10},
        ),
        (
            ("DARTS_V2",),
            {"num_params": 1_930_618, "layers": 8, "channels": 16},
            {"num_params": 1_930_618, "layers": 8, "channels": 16},
        ),
    ],
)
def test_describe_counts_the_shared_weights_of_a_space(words, shared, relaxed, call):
    facts = json.loads(call("describe", *words, "--shared", "--json").out)
    assert facts["shared"] == shared
    assert facts.get("relaxed") == relaxed


def test_describe_tells_of_shared_weights_on_request(call):
    told = call("describe", "DARTS-RNN", "--shared").out
    assert "shared weights    29,290,000 parameters, H = 300" in told
    assert "relaxed supernet  4,810,000 parameters, H = 300" in told
    assert "shared" not in call("describe", "DARTS-RNN").out
    done = call("describe", "0 5 " * 20, "--space", "nao_cnn_tf", "--shared")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "space nao_cnn_tf has no shared supernet; spaces of the skeletons " in done.err


def test_describe_draws_png_and_refuses_other_pictures(call):
    small = ("describe", "0 1 0 2 0 1", "--space", "enas_macro", "--network", "small")
    assert call(*small, "--draw", "cells.png").out.splitlines()[-1] == "picture  cells.png"
    assert Path("cells.png").read_bytes().startswith(b"\x89PNG")
    done = call(*small, "--draw", "cells.jpg")
    assert (done.code, done.err) == (2, "nao-ray: --draw cells.jpg: a picture is .svg or .png, not .jpg\n")
    assert not Path("cells.jpg").exists()


def test_a_space_without_networks_is_described_and_drawn_without_counts(call, monkeypatch, fresh_modules):
    """It was refused for having no network."""
    code = "from nao_ray.spaces.nas_bench_201 import NasBench201\nclass Looked(NasBench201):\n    skeleton = ''\n"
    Path("looked_up.py").write_text(code)
    monkeypatch.syspath_prepend(".")
    words = ("describe", "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|")
    words += ("--space", "looked_up:Looked")
    done = call(*words, "--draw", "cell.svg")
    assert done.code == 0, done.err
    assert "none: the space is looked up in tables alone" in done.out
    assert Path("cell.svg").read_text().count(">none</text>") == 3
    facts = json.loads(call(*words, "--json").out)
    assert (facts["num_params"], facts["macs"], facts["network"]) == (None, None, None)
    assert facts["ops"] == {"normal": ["conv_3x3", "zero", "identity", "zero", "zero", "avg_pool_3x3"]}
    refused = call(*words, "--channels", "4")
    assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_describe_measures(call, monkeypatch):
    monkeypatch.setattr(cost, "_SECONDS", 0)
    words = ("describe", "DARTS_V2", "--layers", "2", "--channels", "2", "--measure")
    facts = json.loads(call(*words, "--device", "cpu", "--json").out)
    assert 0 < facts["latency_ms_1"] < facts["latency_ms_128"]
    assert facts["peak_memory_bytes"] > 10_000_000
    assert (facts["latency_device"], facts["latency_threads"] >= 1) == ("cpu", True)
    told = call(*words)
    assert told.code == 0, told.err
    for text in ("ms for 1 image, ", "ms for 128 (medians; cpu, ", "in a training step of 128 images"):
        assert text in " ".join(told.out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("DARTS_V2", "--measure", "--device", "tpu"), "--device tpu: with --measure, one of auto, cpu, cuda"),
        (("DARTS_V2", "--device", "cpu"), "--device cpu: with --measure"),
    ],
)
def test_describe_measures_where_it_can(words, message, call):
    done = call("describe", *words)
    assert done.code == 2
    assert message in done.err
