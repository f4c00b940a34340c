"""DARTS' evaluation networks: what was measured of the published code, and an implementation apart from ours."""

import json
from pathlib import Path

import pytest
import torch
from naive_darts import Network, filled, images

from nao_ray import rng
from nao_ray.networks.counting import count
from nao_ray.networks.darts import DartsImagenetStack, DartsStack
from nao_ray.networks.eager import State
from nao_ray.networks.stacks import StackConfig
from nao_ray.spaces.base import ArchGraph, Cell, Edge
from nao_ray.spaces.darts_cnn import LOWERED

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "darts.json").read_text())
COUNTS, NUMBERS, GENOTYPES = GOLDEN["parameter_counts"], GOLDEN["numerical_goldens"], GOLDEN["genotypes"]
PUBLISHED = {
    "cifar10_eval_C36_L20": ("cifar", 20, 36, 10, 32),
    "imagenet_eval_C48_L14_1000cls_224": ("imagenet", 14, 48, 1000, 224),
}


def graph_of(genotype):
    cells = []
    for role, field in (("normal", "normal"), ("reduction", "reduce")):
        edges = [Edge(index, LOWERED[op]) for op, index in genotype[field]]
        nodes = tuple(zip(edges[::2], edges[1::2], strict=True))
        cells.append((role, Cell(2, nodes, tuple(genotype[f"{field}_concat"]))))
    return ArchGraph("darts", tuple(cells))


def stack(genotype, *, imagenet=False, **config):
    kind = DartsImagenetStack if imagenet else DartsStack
    config = StackConfig(stem="imagenet" if imagenet else "cifar", auxiliary=True, **config)
    return kind(graph_of(genotype), config)


def params(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", GENOTYPES)
@pytest.mark.parametrize("network", PUBLISHED)
def test_counts_of_the_published_networks(network, name):
    stem, layers, channels, classes, side = PUBLISHED[network]
    golden = COUNTS[network][name]
    with torch.device("meta"):
        net = stack(GENOTYPES[name], imagenet=stem == "imagenet", layers=layers, channels=channels, num_classes=classes)
        counts = count(net, torch.empty(1, 3, side, side))
    assert [params(cell) for cell in net.cells] == golden["per_cell"]
    assert params(net.stem) == golden.get("stem", golden.get("stem0", 0) + golden.get("stem1", 0))
    assert params(net.classifier) == golden["classifier"]
    assert (counts.num_params, counts.num_params_auxiliary) == (golden["without_aux"], golden["aux"])
    assert (params(net), counts.macs) == (golden["total"], golden["madds"]["total"])


@pytest.mark.parametrize(
    ("name", "channels"),
    [(n, int(c)) for n, row in COUNTS["cifar10_eval_other_widths_without_aux"].items() for c in row],
)
def test_counts_of_other_widths(name, channels):
    """Also of 33 channels, of which the reference halves 66 and 132 but never 33."""
    with torch.device("meta"):
        net = stack(GENOTYPES[name], layers=20, channels=channels, num_classes=10)
    golden = COUNTS["cifar10_eval_other_widths_without_aux"][name][str(channels)]
    assert params(net) - params(net.auxiliary) == golden


# -- numbers --------------------------------------------------------------------------------------------------


def assert_golden(tensor, rows):
    """They are written with ten decimals."""
    torch.testing.assert_close(tensor[: len(rows)], torch.tensor(rows, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", GENOTYPES)
def test_numbers_of_the_published_code(name):
    golden = NUMBERS["cifar_eval_nets"][f"C4_L5_{name}"]
    network = filled(stack(GENOTYPES[name], layers=5, channels=4, num_classes=10))
    assert params(network) == golden["params"]
    assert_golden(network.eval()(images(4, 32)), golden["eval_logits"])
    logits, auxiliary = network.train()(images(4, 32))
    assert_golden(logits, golden["train_logits"])
    assert_golden(auxiliary, golden["train_aux_logits"])


def test_numbers_of_the_published_code_for_imagenet():
    """DARTS_V2, 4 channels, 5 cells, 10 classes, at 224 pixels."""
    golden = NUMBERS["imagenet_eval_net"]
    network = filled(stack(GENOTYPES["DARTS_V2"], imagenet=True, layers=5, channels=4, num_classes=10)).eval()
    assert params(network) == golden["params"]
    assert_golden(network(images(2, 224)), golden["eval_logits"])


# -- networks listed nowhere ----------------------------------------------------------------------------------


def random_genotype(draw):
    """Any operations, also of the same source, up to five nodes, an output of some of them."""
    fields = {}
    for field in ("normal", "reduce"):
        nodes = int(draw.integers(1, 6))
        names = [name for name in LOWERED if name != "none"]
        fields[field] = [
            (names[draw.integers(len(names))], int(draw.integers(2 + node))) for node in range(nodes) for _ in range(2)
        ]
        states = 2 + draw.permutation(nodes)[: draw.integers(1, nodes + 1)]
        fields[f"{field}_concat"] = sorted(states.tolist())
    return fields


@pytest.mark.parametrize("example", range(12))
def test_networks_listed_nowhere(example, monkeypatch):
    """Logits, dropped paths included, and gradients of all weights and of the images."""
    draw = rng.child(0, "networks listed nowhere", example)
    genotype, imagenet = random_genotype(draw), bool(example % 3 == 2)
    side = int(draw.integers(34, 40)) if imagenet else int(draw.choice([8, 9, 13]))
    size = {"layers": int(draw.integers(1, 6)), "channels": 4, "in_channels": 1 + 2 * (example % 2)}
    with rng.torch_seeded(example, "weights"):
        net = stack(genotype, imagenet=imagenet, num_classes=5, drop_path=0.2, **size).double()
        naive = Network(genotype, imagenet=imagenet, classes=5, **size).double()
        with torch.no_grad():
            for theirs, ours in zip(naive.parameters(), net.parameters(), strict=True):
                ours.copy_(ours + 0.1 * torch.randn_like(ours))
                theirs.copy_(ours)
        x, probe = torch.randn(4, size["in_channels"], side, side).double(), torch.randn(2, 4, 5).double()
        masks = [torch.bernoulli(torch.full((len(cell.pairs), 4, 1, 1, 1), 0.8)).double() / 0.8 for cell in naive.cells]
    given = iter(masks)
    monkeypatch.setattr(State, "draw", lambda *_: next(given).unbind())
    results = [run(net, x, probe), run(naive, x, probe, masks)]
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(net.eval()(x), naive.eval()(x)[0], rtol=1e-9, atol=1e-9)


def run(network, x, probe, *masks):
    x = x.clone().requires_grad_()
    outs = torch.stack(network.train()(x, *masks))
    (outs * probe).sum().backward()
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in (x, *network.parameters())]
    return [outs, *grads]


# -- drop path ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recorded", [False, True])
def test_drop_path_grows_by_the_epoch_alike_in_all_cells(recorded):
    config = {"layers": 3, "channels": 4, "num_classes": 10, "drop_path_schedule": "epoch"}
    network = stack(GENOTYPES["DARTS_V2"], drop_path=0.2, **config)
    if recorded:
        network.capturable()
    dropped = []
    for step in range(0, 600 * 7, 5):  # 7 steps an epoch
        network.set_step(step, 600 * 7, 7)
        keep = {float(network.keep_probability(cell)) for cell in range(3)}
        assert len(keep) == 1
        assert keep.pop() == pytest.approx(1 - 0.2 * (step // 7) / 600)
        dropped.append(network.keep_probability(0))
    assert isinstance(dropped[0], torch.Tensor) == recorded


def test_drop_path_spares_identities_alone(monkeypatch):
    """All else dropped: of DARTS_V1's reduction cell nothing is left, of its normal one the skips of inputs."""
    network = stack(GENOTYPES["DARTS_V1"], layers=3, channels=4, num_classes=10, drop_path=0.2)
    monkeypatch.setattr(State, "draw", lambda state, count, _: [torch.zeros(len(state.value), 1, 1, 1)] * count)
    seen = {}
    for index, cell in enumerate(network.cells):
        cell.register_forward_hook(lambda _cell, _inputs, out, index=index: seen.update({index: out.value.clone()}))
    network.train()(torch.randn(2, 3, 8, 8))
    assert seen[0].abs().sum(dim=(0, 2, 3)).reshape(4, 4).bool().any(dim=1).tolist() == [False, True, True, False]
    assert not seen[1].any()
