"""Generated source computes what our networks do, in a process that has none of us, and is a file as one writes it."""

import ast
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from nao_ray import registry
from nao_ray.errors import ConfigError, RunError
from nao_ray.export import source
from nao_ray.networks.ops import NAMES, Operation
from nao_ray.skeletons.base import with_settings
from nao_ray.spaces.base import Cell, Edge
from nao_ray.training.recipe import ImageRegularisation, TextRegularisation

DROPPING = ImageRegularisation(auxiliary_weight=0.4, drop_path_keep=0.8, dropout=0.3)
DROPPING_ALL = DROPPING.model_copy(update={"drop_path_schedule": "epoch", "drop_path_identity": True})
PLAIN_TEXT = TextRegularisation()
DROPPING_TEXT = TextRegularisation(
    dropout=0.5, dropout_hidden=0.25, dropout_input=0.2, dropout_embedding=0.3, dropout_words=0.1,
    activation_penalty=2.0, slowness_penalty=3.0,
)  # fmt: skip
CELL_201 = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
ZEROS_201 = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
TF_OPEN = " ".join(["1 7 1 5 2 5 1 13 1 6 2 8 3 9 4 5 1 12 5 14"] * 2)  # input 0 is a loose end
TF_WIDE = "0 5 0 10 0 8 0 13 1 12 2 14 0 6 3 5 4 9 5 7 1 8 0 9 0 5 2 10 3 11 1 5 0 15 4 7 5 6 2 8"
MACRO = "1  5 1  2 0 1  3 1 0 1  0 0 1 1 0  4 1 0 0 0 1"
CASES = {
    "nao": ("NAONet-A", "nao_cnn", "cifar10", {"cells_per_stage": 1, "channels": 4}, DROPPING),
    "nao_v2": ("NAONet-V2", "nao_cnn_small", "imagenet", {"cells_per_stage": 1, "channels": 4}, DROPPING_ALL),
    "nao_rectified": (
        "NAONet-B", "nao_cnn_small", "small",
        {"cells_per_stage": 1, "channels": 4, "relu_before_head": True, "count_padding": False}, None,
    ),
    "nao_tf": ("NAONet-TF", "nao_cnn_tf", "cifar10", {"cells_per_stage": 1, "channels": 4}, DROPPING),
    "nao_tf_open": (TF_OPEN, "nao_cnn_tf", "cifar10", {"cells_per_stage": 1, "channels": 4}, DROPPING),
    "nao_tf_wide": (TF_WIDE, "nao_cnn_tf", "small", {"cells_per_stage": 1, "channels": 4}, DROPPING_ALL),
    "darts": ("DARTS_V2", "darts_cnn", "cifar10", {"layers": 4, "channels": 4}, DROPPING_ALL),
    "darts_plain": ("AmoebaNet", "darts_cnn", "imagenet", {"layers": 4, "channels": 4}, DROPPING),
    "enas_micro": ("ENAS-micro", "enas_micro", "cifar10", {"cells_per_stage": 1, "channels": 4}, DROPPING),
    "enas_macro": (MACRO, "enas_macro", "cifar10", {"channels": 4}, DROPPING),
    "enas_macro_epoch": (MACRO, "enas_macro", "cifar10", {"channels": 4, "plain_separable": True}, DROPPING_ALL),
    "nas_bench_201": (CELL_201, "nas_bench_201", "cifar10", {"cells_per_stage": 1, "channels": 4}, DROPPING),
    "nas_bench_201_zeros": (ZEROS_201, "nas_bench_201", "cifar10", {"cells_per_stage": 1, "channels": 4}, DROPPING_ALL),
    "recurrent": ("NAO-RNN", "nao_rnn", "text", {"hidden": 6}, DROPPING_TEXT),
    "enas_recurrent": ("ENAS-RNN", "enas_rnn", "text", {"hidden": 6}, PLAIN_TEXT),
}  # fmt: skip


def _graph(text, space_name):
    space = registry.load("space", space_name).for_text(text)
    return space, space.lower(space.parse(text))


def _built(text, space_name, network, settings, regularisation):
    """A network whose statistics are not those of fresh weights, in float64, and an example."""
    space, graph = _graph(text, space_name)
    skeleton, size = with_settings(space, settings)
    shapes = skeleton.shapes(network, num_classes=13)
    made = skeleton.build(graph, shapes, size, *(() if regularisation is None else (regularisation,))).double()
    example = skeleton.example(shapes)
    if example.dtype.is_floating_point:
        example = example[:, :, :24, :24] if network == "imagenet" else example[:, :, :9, :9]  # a side that is odd
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if tensor.dtype.is_floating_point:
                drawn = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.copy_(
                    0.5 + drawn if name.endswith(("running_var", "weight")) and tensor.dim() == 1 else drawn - 0.5
                )
    return made.eval(), example


@pytest.fixture(scope="module")
def built():
    return {name: _built(*case) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def plain(built):
    return {name: source.write_plain(*each, [f"{name}."]) for name, each in built.items()}


@pytest.mark.parametrize("name", CASES)
def test_logits_are_ours(name, built, plain):
    network, example = built[name]
    batch = source.probe(network, example, 3)
    expected = source.first(network(batch))
    theirs = plain[name].network.double()
    torch.testing.assert_close(source.first(theirs(batch)), expected, rtol=0, atol=1e-9)
    assert expected.std() > 1e-4, "no logits that tell anything"


@pytest.mark.parametrize("name", CASES)
def test_a_step_of_training_is_ours(name, built, plain, monkeypatch):
    """What is dropped is drawn as kept, all of it, so that the shares by which all is made larger are compared."""
    monkeypatch.setattr(torch.Tensor, "bernoulli_", lambda like, p: like.fill_(1))
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, p, training, *_: x / (1 - p) if training else x)
    network, example = built[name]
    ours, theirs = network.train(), source.load(plain[name].text).double().train()
    theirs.load_state_dict(plain[name].network.double().state_dict())
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    if hasattr(theirs, "drop_path"):
        ours.set_step(4, 10)  # as the docstring says
        theirs.drop_path *= (4 if ours.config.drop_path_schedule == "epoch" else 5) / 10
    batch = source.probe(network, example, 3)
    expected, found = ours(batch), theirs(batch)
    if isinstance(expected[1], tuple):  # what a text carries on
        expected = (expected[0], *expected[1], *expected[2:])
    pairs = [(expected, found)] if isinstance(expected, torch.Tensor) else list(zip(expected, found, strict=True))
    assert len(pairs) == {"nao": 2, "recurrent": 3, "enas_recurrent": 2}.get(name, len(pairs))
    for one, other in pairs:
        torch.testing.assert_close(other, one, rtol=0, atol=1e-9)
    renamed = source.renamed(ours.state_dict(), source._written(network, example))
    start = plain[name].network.double().state_dict()
    moved = [key for key, value in theirs.state_dict().items() if not torch.equal(value, start[key])]
    assert moved or "recurrent" in name
    for key in moved:  # of a state that nothing reads, statistics stay
        torch.testing.assert_close(theirs.state_dict()[key], renamed[key], rtol=0, atol=1e-9)
    ours.load_state_dict(before)
    ours.eval()


RUN = """
import sys, importlib.util, pathlib
sys.modules["nao_ray"] = None
import torch
from safetensors.torch import load_file, save_file
folder = pathlib.Path(sys.argv[1])
inputs, logits = load_file(folder / "inputs.st"), {}
for name, batch in inputs.items():
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    out = module.load().double()(batch)
    logits[name] = (out[0] if isinstance(out, tuple) else out).detach().contiguous()
save_file(logits, folder / "logits.st")
"""


def test_files_run_where_nao_ray_cannot_be_imported(built, plain, tmp_path):
    batches = {name: source.probe(*built[name], 2) for name in CASES}
    save_file(batches, tmp_path / "inputs.st")
    for name, each in plain.items():
        (tmp_path / f"{name}.py").write_text(each.text)
        save_file(each.network.float().state_dict(), tmp_path / f"{name}.safetensors")
    done = subprocess.run([sys.executable, "-I", "-c", RUN, str(tmp_path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "logits.st")
    for name, batch in batches.items():
        with torch.no_grad():
            expected = source.first(built[name][0].float().double()(batch))
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-9)


def test_files_are_formatted_and_have_no_line_too_many(plain, tmp_path):
    for name, each in plain.items():
        (tmp_path / f"{name}.py").write_text(each.text)
        assert "nao_ray" not in each.text
        assert "channels_last" not in each.text
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--line-length", "120", str(tmp_path)]
    for command in (["format", "--diff"], ["check", "--select", "E,W,F,I,B,UP,D1,ARG", "--ignore", "D102,D107,D103"]):
        done = subprocess.run([*ruff, *command, *options], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout


def test_every_operation_has_source():
    """Those that a cell of a final network may have, at both strides; a new one has to be given its own."""
    space, graph = _graph("DARTS_V2", "darts_cnn")
    skeleton, size = with_settings(space, {"layers": 3, "channels": 2})
    nodes = tuple((Edge(0, op),) for op in NAMES)
    cell = Cell(2, nodes, (0, *range(2, 2 + len(nodes))))
    graph = replace(graph, cells=(("normal", cell), ("reduction", cell)))
    network = skeleton.build(graph, skeleton.shapes(), size).eval()
    text = source.write_plain(network, torch.empty(1, 3, 8, 8), ["All."]).text
    assert "torch.zeros_like(s0[:, :, ::2, ::2])" in text
    assert "self.reduce0 = ReLUFactorizedReduce(channels, channels)" in text


class Mine(Operation):
    def __init__(self, channels, stride):
        super().__init__()


def test_an_operation_of_ones_own_has_none():
    network, example = _built("DARTS_V2", "darts_cnn", "cifar10", {"layers": 3, "channels": 2}, None)
    network.cells[0].nodes[0][0] = Mine(2, 1)
    with pytest.raises(ConfigError, match=r"operation .*:Mine has no plain source.* --format torch or onnx"):
        source.write_plain(network, example, ["Mine."])


def test_source_that_computes_something_else_is_not_given_out(built, monkeypatch):
    monkeypatch.setitem(source.write_stack.__globals__["_PREPROCESS"], type(built["nao"][0].cells[0]),
                        ("ReLUConvBN(before, channels)", "InputBase(last, channels)"))  # fmt: skip
    with pytest.raises((RunError, RuntimeError)):
        source.write_plain(*built["nao"], ["nao."])


def test_a_name_may_hold_anything_and_runs_nothing(plain, built):
    name = 'odd """\nraise SystemExit("run")\n""" \\'
    network, example = built["nas_bench_201"]
    text = source.write_plain(network, example, [name]).text
    assert ast.get_docstring(ast.parse(text), clean=False).startswith(name)
    assert source.load(text).state_dict().keys() == plain["nas_bench_201"].network.state_dict().keys()
