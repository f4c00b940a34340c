"""A space of one's own that chooses of what no network can be built of is refused where it is made."""

import pytest
import torch

from nao_ray.networks.enas_macro import operation
from nao_ray.networks.ops import NAMES
from nao_ray.networks.recurrent import ACTIVATIONS as FUNCTIONS
from nao_ray.registry import load, names
from nao_ray.spaces.enas_macro import _KNOWN
from nao_ray.spaces.parts.operations import OPERATIONS
from nao_ray.spaces.parts.recurrent_cell import ACTIVATIONS

MINE = """
from nao_ray.networks.ops import Operation
from nao_ray.spaces.enas_macro import EnasMacro
from nao_ray.spaces.parts.cnn_cell import CnnCellSpace
from nao_ray.spaces.parts.recurrent_cell import RecurrentSpace

class Twice(Operation):
    def __init__(self, channels, stride):
        super().__init__()

    def forward(self, x):
        return 2 * x

class Cells(CnnCellSpace):
    ops = OPS

class Layers(EnasMacro):
    ops = OPS

class Recurrent(RecurrentSpace):
    activations = OPS
"""
GENOTYPES = {"Cells": "0 1 " * 20, "Layers": "0 0 0 0 0 0", "Recurrent": "0:tanh"}


@pytest.fixture
def mine(tmp_path, monkeypatch, fresh_modules):
    """Writes the user's file."""
    monkeypatch.chdir(tmp_path)
    return lambda ops: (tmp_path / "mine.py").write_text(MINE.replace("OPS", repr(ops)))


@pytest.mark.parametrize("name", GENOTYPES)
@pytest.mark.parametrize(
    ("ops", "says"),
    [
        (("tanh", "identity", "gelu"), "no 'gelu' is known"),
        (("identity", "identity"), "each has to be given once"),
        ((), "each has to be given once"),
    ],
)
def test_describe_and_a_search_say_what_is_known(name, ops, says, mine, call):
    if name != "Recurrent":
        ops = tuple({"tanh": "sep_conv_3x3"}.get(op, op) for op in ops)
    mine(ops)
    done = call("describe", GENOTYPES[name], "--space", f"mine:{name}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith(f"nao-ray: space mine:{name}: {'activations' if name == 'Recurrent' else 'ops'} (")
    assert f"{says}, choose of {'tanh, relu' if name == 'Recurrent' else 'zero, identity'}, " in done.err
    task = "made_up_text" if name == "Recurrent" else "synthetic"
    with open("own.yaml", "w") as file:
        file.write(f"name: own\nspace: mine:{name}\ntask: {task}\nevaluator: standalone\nstrategy: random_search\n"
                   "budget: {trials: 1}\n")  # fmt: skip
    searched = call("search", "own.yaml", "--in-process")
    assert searched.code == 2
    assert says in searched.err
    assert searched.err.count("\n") == 1


def test_an_operation_of_ones_own_is_a_layers_too(mine):
    mine(("conv_7x7", "mine:Twice", "avg_pool_3x3_padded"))
    space = load("space", "mine:Layers")()
    assert space.ops[1] == "mine:Twice"
    for name in space.ops:
        out = operation(name, 4, plain_separable=False)(torch.ones(1, 4, 8, 8))
        assert out.shape == (1, 4, 8, 8)


def test_what_is_known_is_what_can_be_built():
    assert NAMES == OPERATIONS
    assert tuple(FUNCTIONS) == ACTIVATIONS
    for name in {*_KNOWN} - {*OPERATIONS}:
        assert operation(name, 4, plain_separable=False)
    assert all(load("space", name)() for name in names("space"))
