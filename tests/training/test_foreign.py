"""Files of DARTS's published code: their names of tensors, made here from a network that is none of ours."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from nao_ray import rng
from nao_ray.cli.app import main
from nao_ray.errors import ConfigError, DataError
from nao_ray.service.training.imported import evaluate_imported
from nao_ray.skeletons.darts import Darts, DartsSize
from nao_ray.skeletons.recurrent import Recurrent
from nao_ray.skeletons.texts.base import RecurrentSize
from nao_ray.spaces.darts_cnn import DartsCnn
from nao_ray.spaces.darts_rnn import DartsRnn
from nao_ray.tasks.images.base import ImageShapes
from nao_ray.tasks.texts.base import TokenShapes
from nao_ray.training.foreign import read, translated
from tests.networks.naive_darts import Network, filled, images, u
from tests.tasks import _made_up_data as made

GOLDEN, RECURRENT = (
    json.loads((Path(__file__).parents[1] / "golden" / name).read_text()) for name in ("darts.json", "recurrent.json")
)
GENOTYPES = GOLDEN["genotypes"]
CNN, RNN = DartsCnn(), DartsRnn()


def published(network):
    """The tensors of the plain network by the names that they have in DARTS's code."""

    def rename(name):
        name = name.replace("auxiliary.", "auxiliary_head.")
        name = re.sub(r"(_head\.features)\.(\d)", lambda found: f"{found[1]}.{int(found[2]) + 2}", name)
        name = re.sub(r"(preprocess\d)\.(\d)", r"\1.op.\2", name)
        if found := re.match(r"cells\.(\d+)\.ops\.(\d+)\.(.*)", name):
            cell, number, rest = int(found[1]), int(found[2]), found[3]
            is_plain = network.cells[cell].pairs[number][0] == "conv_7x1_1x7" or not rest[0].isdigit()
            return f"cells.{cell}._ops.{number}.{rest if is_plain else f'op.{rest}'}"
        return name

    return {rename(name): tensor for name, tensor in network.state_dict().items()}


def plain(name, **size):
    with rng.torch_seeded(0, "weights"):
        return Network(GENOTYPES[name], **{"layers": 5, "channels": 4, "classes": 10, **size})


def ours(saved, name):
    side = 32 if saved.network == "cifar10" else 64
    shapes = ImageShapes(3, side, side, num_classes=saved.outputs, network=saved.network)
    network = Darts().build(CNN.lower(CNN.parse(name)), shapes, DartsSize(**saved.size))
    weights = translated(saved, network, name)
    network = network.to(next(iter(weights.values())).dtype).eval()
    network.load_state_dict(weights)
    return network


@pytest.mark.parametrize("name", GENOTYPES)
def test_logits_are_the_golden_ones(name, tmp_path):
    torch.save(published(filled(plain(name))), tmp_path / "old.pt")
    saved = read(str(tmp_path / "old.pt"))
    assert (saved.network, saved.size, saved.outputs) == ("cifar10", {"layers": 5, "channels": 4}, 10)
    golden = torch.tensor(
        GOLDEN["numerical_goldens"]["cifar_eval_nets"][f"C4_L5_{name}"]["eval_logits"], dtype=torch.float64
    )
    torch.testing.assert_close(ours(saved, name)(images(4, 32))[: len(golden)], golden, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "imagenet"), [("AmoebaNet", False), ("NASNet", False), ("DARTS_V2", True)])
def test_every_tensor_goes_to_its_place(name, imagenet, tmp_path):
    """Random weights and statistics, as files of ImageNet and of PyTorch before 0.4.1 are."""
    naive = plain(name, imagenet=imagenet, classes=7).double().eval()
    with torch.no_grad():
        for tensor in naive.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor + 0.3 * torch.rand(tensor.shape, dtype=torch.double))
    weights = {f"module.{key}": value for key, value in published(naive).items() if "num_batches" not in key}
    state = {"epoch": 3, "state_dict": weights, "best_acc_top1": 73.3, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(state if imagenet else weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    saved = read(str(tmp_path / "old.pt"))
    assert saved.network == ("imagenet" if imagenet else "cifar10")
    x = images(2, 64 if imagenet else 16)
    torch.testing.assert_close(ours(saved, name)(x), naive(x)[0], rtol=1e-9, atol=1e-9)


def recurrent(name, dtype=torch.float64):
    nodes = len(RECURRENT["genotypes"][name]["recurrent"])
    embedding = u(28).reshape(7, 4)
    weights = {"encoder.weight": embedding, "rnns.0._W0": u(64).reshape(8, 8), "decoder.weight": embedding}
    weights |= {f"rnns.0._Ws.{number}": u(32).reshape(4, 8) for number in range(nodes)}
    return {key: tensor.to(dtype) for key, tensor in {**weights, "decoder.bias": torch.zeros(7)}.items()}


@pytest.mark.parametrize(("theirs", "name"), [("DARTS_V1", "DARTS-RNN-V1"), ("DARTS_V2", "DARTS-RNN")])
def test_outputs_of_recurrent_cells_are_the_golden_ones(theirs, name, tmp_path):
    torch.save(recurrent(theirs), tmp_path / "old.pt")
    saved = read(str(tmp_path / "old.pt"))
    assert (saved.size, saved.outputs) == ({"hidden": 4}, 7)
    network = Recurrent().build(RNN.lower(RNN.parse(name)), TokenShapes(7), RecurrentSize(**saved.size)).double()
    network.load_state_dict(translated(saved, network, name))
    logits, (state,) = network.eval()(torch.tensor([[1, 0, 3], [4, 2, 3]]))
    golden = RECURRENT["numbers"][f"rnn_eval_V7_H4_{theirs}"]
    assert logits[0, -1].log_softmax(0).tolist() == pytest.approx(golden["log_prob_last_step_batch0"], abs=1e-9)
    assert state.flatten().tolist() == pytest.approx(golden["hidden_last"], abs=1e-9)


# -- what is no such file -------------------------------------------------------------------------------------


def damaged(change):
    weights = published(plain("DARTS_V2"))
    change(weights)
    return weights


BAD = {
    "another genotype": (
        published(plain("DARTS_V1")),
        r"old.pt: not DARTS_V2 of 5 layers, 4 channels, 10 classes: cells.0._ops.2.op.1.weight is missing",
    ),
    "a tensor less": (
        damaged(lambda weights: weights.pop("cells.2._ops.0.op.6.weight")),
        r"cells.2._ops.0.op.6.weight is missing \(\d+ tensors expected, \d+ found\); of another genotype, or cut off",
    ),
    "another shape": (
        damaged(lambda weights: weights.update({"classifier.bias": torch.zeros(9)})),
        r"classifier.bias should have the shape \[10\], found \[9\]",
    ),
    "a stem alone": (
        {"stem.0.weight": torch.zeros(12, 3, 3, 3)},
        "a stem of DARTS's code, but no cells and classifier behind it",
    ),
    "another program": (
        {"features.0.weight": torch.zeros(1)},
        r"old.pt: not of DARTS's code: expected stem.0.weight \(CIFAR\), .* found 1: features.0.weight$",
    ),
    "a list": ([1, 2], "expected tensors by name, found list of int$"),
    "an untied decoder": (
        {**recurrent("DARTS_V1"), "decoder.weight": torch.zeros(7, 4, dtype=torch.float64)},
        "decoder.weight is not encoder.weight; expected one matrix for both",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_foreign_file_is_told_in_one_line(fault, tmp_path):
    found, message = BAD[fault]
    torch.save(found, tmp_path / "old.pt")
    with pytest.raises(DataError, match=message) as told:
        ours(read(str(tmp_path / "old.pt")), "DARTS_V2")
    assert "\n" not in str(told.value)


class Whole(nn.Module):
    """What DARTS's trainings of recurrent cells saved: an object, not its tensors."""


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "expected a file of torch.save, found 2,000 "),
        (lambda path: path.write_bytes(b"not a file of torch at all"), "expected a file of torch.save, found 26 "),
        (lambda path: path.write_bytes(b""), "expected a file of torch.save, found 0 "),
        (lambda path: path.unlink(), "old.pt: there is no such file"),
        (
            lambda path: torch.save(Whole(), path),
            r"found an object [\w.]*Whole, whose loading would run code; where th",
        ),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(spoil, message, tmp_path):
    path = tmp_path / "old.pt"
    torch.save(published(plain("DARTS_V1")), path)
    spoil(path)
    with pytest.raises(DataError, match=message) as told:
        read(str(path))
    assert "\n" not in str(told.value)


# -- the test split under it ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    made.table(folder / "pictures.parquet")
    return {"name": "image_table", "path": str(folder)}


def what(task, genotype="DARTS_V2"):
    return {"space": {"name": "darts_cnn"}, "genotype": CNN.parse(genotype).key, "task": task}


def test_the_score_is_of_images_scaled_as_darts_does(pictures, tmp_path):
    naive = plain("DARTS_V2", layers=2, classes=4).eval()
    torch.save(published(naive), tmp_path / "old.pt")
    config, scores = evaluate_imported(str(tmp_path / "old.pt"), what(pictures), ("device=cpu",))
    test = config.make_task().load_test()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4914, 0.48216, 0.44653), (0.24703, 0.24349, 0.26159)))
    with torch.no_grad():
        logits = naive((torch.from_numpy(test.images).float() / 255 - mean) / std)[0]
    wanted = torch.nn.functional.cross_entropy(logits, torch.from_numpy(test.labels)).item()
    assert scores.loss == pytest.approx(wanted, abs=1e-4)
    assert (config.layers, config.channels) == (2, 4)


def test_data_of_another_shape_are_refused(pictures, tmp_path):
    old = str(tmp_path / "old.pt")
    torch.save(published(plain("DARTS_V2", layers=2, classes=10)), old)
    with pytest.raises(DataError, match=r"tells 10 classes, task image_table has 4$"):
        evaluate_imported(old, what(pictures))
    with pytest.raises(
        ConfigError, match=r"holds a network of 2 layers, .*; one of space nao_cnn_small is none of DARTS's"
    ):
        evaluate_imported(old, {**what(pictures), "space": {"name": "nao_cnn_small"}, "genotype": "NAONet-B"})
    with pytest.raises(ConfigError, match=r"--set layers=3: of an imported file, only task.* and device may be set"):
        evaluate_imported(old, what(pictures), ("layers=3",))
    torch.save(recurrent("DARTS_V2", torch.float32), old)
    cell = {"space": {"name": "darts_rnn"}, "genotype": RNN.parse("DARTS-RNN").key, "task": {"name": "made_up_text"}}
    with pytest.raises(DataError, match=r"knows 7 words, task made_up_text has 9; --set task.words=all"):
        evaluate_imported(old, cell)


def test_the_command(tmp_path, capsys):
    old = str(tmp_path / "old.pt")
    torch.save(recurrent("DARTS_V2", torch.float32), old)
    words = ["evaluate", old, "--as", "darts", "--genotype", "DARTS-RNN", "--task", "made_up_text"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--set", "task.letters=6"])
    assert ended.value.code in (0, None)
    assert re.search(r"old.pt: test perplexity \d+\.\d", capsys.readouterr().out)
    for left_out, message in (
        (words[:4], "--genotype is missing: the file does not say which cells its network has"),
        (words[:6], "--task is missing: the file does not say what it was trained on"),
        ([*words[:2], "--as", "nao", *words[4:]], "--as nao: of other programs, the files of darts are read"),
        (words[:2] + words[4:6], "--genotype is for a file of another program; give --as darts"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(left_out)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
