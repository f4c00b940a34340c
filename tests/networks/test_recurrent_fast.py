"""The fast segment against the plain one, in float64: values and gradients of any cell."""

import gc
from contextlib import nullcontext

import pytest
import torch
from torch.func import vmap

from nao_ray import rng
from nao_ray.networks import recurrent, recurrent_fast
from nao_ray.networks.fast import differentiable_twice
from nao_ray.networks.recurrent_fast import segment
from nao_ray.spaces.base import Cell, Edge

HIDDEN = 5
NAO = [0, 1, 0, 1, 1, 1, 3, 0, 4, 1, 4, 1, 5, 1, 1, 1, 7, 1, 1, 1, 1, 2]
NAMES = ["tanh", "relu", "identity", "sigmoid"]


def cell_of(nodes, output):
    return Cell(1, tuple((Edge(source, name),) for source, name in nodes), tuple(output))


def random_cell(seed):
    draw = rng.child(seed, "fast recurrent cell")
    count = int(draw.integers(1, 9))
    nodes = [(int(draw.integers(i + 1)), NAMES[draw.integers(4)]) for i in range(count)]
    output = draw.choice(count + 1, size=int(draw.integers(1, count + 2)), replace=False)  # s0 and loose ends too
    return cell_of(nodes, [int(number) for number in output])


CELLS = {
    "NAO": cell_of([(NAO[i], NAMES[NAO[i + 1]]) for i in range(0, 22, 2)], range(1, 12)),
    "one node": cell_of([(0, "sigmoid")], [1]),
    "only s0": cell_of([(0, "relu")], [0]),
    "loose ends": cell_of([(0, "tanh"), (1, "identity"), (1, "relu"), (0, "sigmoid"), (4, "tanh")], [2, 3, 5]),
    "a state twice": cell_of([(0, "tanh"), (1, "relu")], [2, 1, 2]),
    **{f"random {seed}": random_cell(seed) for seed in range(8)},
}


def given(cell, length=10, batch=3, hidden=HIDDEN, dtype=torch.float64):
    draw = torch.Generator().manual_seed(len(cell.nodes))

    def randn(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()

    w0, nodes = randn(2 * hidden, 2 * hidden), [randn(hidden, 2 * hidden) for _ in cell.nodes]
    inputs, state = randn(length, batch, hidden), randn(batch, hidden)
    mask = (torch.rand(batch, hidden, generator=draw) < 0.7).to(dtype) / 0.7
    return w0, nodes, inputs, state, mask


def results(function, cell, tensors, masked=True):
    """The outputs, and gradients of a sum with weights that no two of them share."""
    w0, nodes, inputs, state, mask = tensors
    out = function(cell, w0, nodes, inputs, state, mask if masked else None)
    ahead = torch.arange(1, out.numel() + 1, dtype=out.dtype).view_as(out) / out.numel()
    return out, torch.autograd.grad((out * ahead).sum(), [w0, *nodes, inputs, state], allow_unused=True)


def assert_equal(mine, theirs, tolerance=1e-12):
    for a, b in zip([mine[0], *mine[1]], [theirs[0], *theirs[1]], strict=True):
        assert (a is None) == (b is None)
        if b is not None:
            assert (a - b).norm() <= tolerance * b.norm()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients_of_any_cell(name, masked):
    tensors = given(CELLS[name])
    assert_equal(*(results(function, CELLS[name], tensors, masked) for function in (segment, recurrent.segment)))


@pytest.mark.parametrize(("length", "batch"), [(1, 1), (1, 3), (7, 1), (8, 2), (17, 2)])
def test_any_length_and_batch(length, batch):
    tensors = given(CELLS["NAO"], length, batch)
    assert_equal(*(results(function, CELLS["NAO"], tensors) for function in (segment, recurrent.segment)))


def test_float32_to_a_hundred_thousandth():
    tensors = given(CELLS["NAO"], dtype=torch.float32)
    assert_equal(*(results(function, CELLS["NAO"], tensors) for function in (segment, recurrent.segment)), 1e-5)


def test_a_segment_goes_on_from_the_one_before_and_so_does_its_gradient():
    cell = CELLS["loose ends"]
    w0, nodes, inputs, state, mask = given(cell)

    def two(cell, w0, nodes, inputs, state, mask):
        first = segment(cell, w0, nodes, inputs[:4], state, mask)
        return torch.cat((first, segment(cell, w0, nodes, inputs[4:], first[-1], mask)))

    tensors = (w0, nodes, inputs, state, mask)
    assert_equal(results(two, cell, tensors), results(recurrent.segment, cell, tensors))


def test_weights_may_be_views_of_shared_ones_and_one_may_be_of_several_nodes():
    cell = CELLS["loose ends"]
    w0, nodes, inputs, state, mask = given(cell)
    bank = torch.stack([node.detach() for node in nodes]).view(1, 5, HIDDEN, 2 * HIDDEN).requires_grad_()
    gradients = []
    for function in (segment, recurrent.segment):
        views = [bank[0, index] for index in (0, 1, 1, 3, 0)]
        out = function(cell, w0, views, inputs.transpose(0, 1).contiguous().transpose(0, 1), state, mask)
        gradients.append(torch.autograd.grad(out.square().sum(), bank)[0])
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)
    assert not gradients[0][0, 2].any()


@pytest.mark.parametrize("needing", [0, 1, 2, 3])
def test_gradients_are_of_what_needs_one(needing):
    cell = CELLS["NAO"]
    w0, nodes, inputs, state, mask = given(cell, 3)
    every = [w0, nodes[4], inputs, state]
    for tensor in (w0, *nodes, inputs, state):
        tensor.requires_grad_(tensor is every[needing])
    found = [
        torch.autograd.grad(function(cell, w0, nodes, inputs, state, mask).square().sum(), every[needing])[0]
        for function in (segment, recurrent.segment)
    ]
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-12)


def test_without_gradients_nothing_is_kept_and_the_values_are_the_same():
    cell = CELLS["NAO"]
    w0, nodes, inputs, state, mask = given(cell)
    with torch.inference_mode():
        mine = segment(cell, w0, nodes, inputs, state, mask)
    out = segment(cell, w0, nodes, inputs, state, mask)
    torch.testing.assert_close(mine, out.detach(), rtol=1e-13, atol=1e-14)
    out.sum().backward()
    assert w0.grad is not None


def test_a_graph_that_is_retained_gives_its_gradients_again_and_others_do_not_touch_it():
    cell = CELLS["NAO"]
    tensors = given(cell)
    w0, nodes, inputs, state, mask = tensors
    out = segment(cell, w0, nodes, inputs, state, mask)
    first = torch.autograd.grad(out.sum(), w0, retain_graph=True)[0]
    others = [segment(cell, w0, nodes, inputs + 1, state, mask) for _ in range(3)]
    torch.autograd.grad(sum(other.sum() for other in others), w0)
    assert torch.equal(torch.autograd.grad(out.sum(), w0)[0], first)


@pytest.mark.parametrize("said", [False, True])
def test_a_second_derivative_is_the_plain_ones(said):
    cell = CELLS["loose ends"]
    w0, nodes, inputs, state, mask = given(cell, 2)

    def second(function):
        out = function(cell, w0, nodes, inputs, state, mask)
        gradient = torch.autograd.grad(out.square().sum(), nodes[1], create_graph=True)[0]
        return torch.autograd.grad(gradient.square().sum(), w0)[0]

    with differentiable_twice() if said else nullcontext():
        torch.testing.assert_close(second(segment), second(recurrent.segment), rtol=1e-11, atol=1e-12)


def test_functorch_gets_the_plain_one():
    cell = CELLS["one node"]
    w0, nodes, inputs, state, _ = (
        [t.detach() for t in part] if isinstance(part, list) else part.detach() for part in given(cell, 2)
    )
    many = torch.stack((w0, 2 * w0))
    out = vmap(lambda w: segment(cell, w, nodes, inputs, state, None))(many)
    torch.testing.assert_close(out[1], recurrent.segment(cell, many[1], nodes, inputs, state, None))


def test_shapes_alone_are_computed_by_the_plain_one():
    w0, nodes, inputs, state, mask = (
        [t.to("meta") for t in part] if isinstance(part, list) else part.to("meta") for part in given(CELLS["NAO"])
    )
    assert segment(CELLS["NAO"], w0, nodes, inputs, state, mask).shape == inputs.shape


def test_under_autocast_it_computes_in_the_type_of_the_weights():
    cell = CELLS["NAO"]
    w0, nodes, inputs, state, mask = given(cell, dtype=torch.float32)
    plain = segment(cell, w0, nodes, inputs, state, mask)
    with torch.autocast("cpu", torch.bfloat16):
        out = segment(cell, w0, nodes, inputs, state, mask)
    assert torch.equal(out, plain)


def test_memory_is_used_again():
    cell = CELLS["NAO"]
    tensors = given(cell)
    results(segment, cell, tensors)
    before = {block.data_ptr() for blocks in recurrent_fast._idle.values() for block in blocks}
    for _ in range(3):
        results(segment, cell, tensors)
    after = {block.data_ptr() for blocks in recurrent_fast._idle.values() for block in blocks}
    assert after == before


def test_memory_given_back_by_a_collection_of_garbage_is_not_used_twice():
    like, usual = torch.zeros(1), gc.get_threshold()
    try:
        for often in range(1, 40):  # so that it comes at any place of the next one's beginning
            cycle = [recurrent_fast._Block(10, like)]
            cycle.append(cycle)
            del cycle
            gc.set_threshold(often)
            blocks = [recurrent_fast._Block(10, like) for _ in range(4)]
            assert len({block.cut(1).data_ptr() for block in blocks}) == 4
            del blocks
            gc.set_threshold(*usual)
    finally:
        gc.set_threshold(*usual)


def test_nodes_of_one_source_are_one_unit():
    units = recurrent_fast.plan(CELLS["NAO"]).units
    assert [len(unit.nodes) for unit in units] == [1, 2, 4, 1, 2, 1, 1]
    assert recurrent_fast.plan(CELLS["only s0"]).places == 1  # its node is computed by nobody


def test_gradcheck_of_a_network_of_it():
    cell = CELLS["random 3"]
    w0, nodes, inputs, state, mask = given(cell, 3, 1, 2)
    torch.autograd.gradcheck(lambda *w: segment(cell, w[0], w[3:], w[1], w[2], mask), (w0, inputs, state, *nodes))
