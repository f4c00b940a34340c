"""`nao-ray export` as a user types it: what it writes is loaded again, and says what the network says."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import nao_ray
from nao_ray.config import TrainConfig
from nao_ray.export import programs, source
from nao_ray.export.card import card
from nao_ray.service.training.about import finished
from nao_ray.service.training.taking import taken, taken_from
from nao_ray.service.training.train import train, trained_network
from nao_ray.tasks.images import pictures, views
from nao_ray.training.augment import Normaliser

WHAT = {
    "space": {"name": "nao_cnn_small"},
    "genotype": " ".join(["0 4 1 2 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2),
    "task": {"name": "synthetic", "per_class": 20},
}
DARTS = ("DARTS_V2", "--size", "layers=3", "--size", "channels=4", "--network", "small")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    config = TrainConfig.make("short_digits", WHAT, ("channels=2", "epochs=1", "recipe.batch=24", "recipe.dropout=0.1"))
    return folder / train(config, str(folder), "cell")["checkpoint"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _module(path, monkeypatch):
    """A generated file, imported."""
    monkeypatch.syspath_prepend(str(path.parent.absolute()))
    monkeypatch.delitem(sys.modules, path.stem, raising=False)
    return __import__(path.stem)


def test_a_training_becomes_a_file_its_weights_a_card_and_a_picture(checkpoint, call, monkeypatch):
    done = call("export", checkpoint, "--format", "source", "--out", "taken.py")
    assert done.code == 0, done.err
    assert done.out.split() == ["taken.py", "taken.safetensors", "taken.py.md", "taken.py.svg"]
    given = taken_from(str(checkpoint))
    module = _module(Path("taken.py"), monkeypatch)
    images = torch.randint(0, 256, (4, *given.example.shape[1:]), dtype=torch.uint8)
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in given.normaliser)
    torch.testing.assert_close(module.prepare(images), (images / 255 - mean) / std)
    with torch.no_grad():
        ours, theirs = given.network.double(), module.load().double()
        torch.testing.assert_close(theirs(images.double()), ours(images.double()), rtol=0, atol=1e-9)
    assert all(not name.startswith("network.") for name in load_file("taken.safetensors"))
    told = Path("taken.py.md").read_text()
    row = next((checkpoint.parents[1] / "final").glob("*.parquet"))
    for part in (f"# {row.stem}", WHAT["genotype"], "recipe short_digits, 1 epoch, seed 0", "| test accuracy | 0.",
                 "| latency | ", "taken.py.svg", "from taken import load", "task | synthetic", "lr: 0.1"):  # fmt: skip
        assert part in told
    assert Path("taken.py.svg").read_text().startswith("<svg")


def test_images_that_were_standardised_one_by_one_are_prepared_so(checkpoint):
    about, tensors = finished(str(checkpoint))
    recipe = about.config.recipe.model_copy(update={"standardise": "image"})
    config = about.config.model_copy(update={"recipe": recipe})
    network = trained_network(config, config.make_task(), tensors, "")
    made = taken(about, config, config.make_task(), network, tensors, None)
    found = {"torch": torch, "Tensor": torch.Tensor}
    exec(made.extra[0], found)
    images = torch.randint(0, 256, (4, *made.example.shape[1:]), dtype=torch.uint8)
    images[0] = 7  # without variation
    expected = Normaliser.of(images, by_image=True)(images)
    torch.testing.assert_close(found["prepare"](images), expected)
    assert "each image less its own mean" in card(made, "", ())


def test_what_is_not_trained_has_no_weights_beside_it_and_says_so(call, monkeypatch):
    done = call("export", *DARTS, "--recipe", "darts_cifar10", "--format", "source", "--out", "fresh.py")
    assert (done.code, done.out.split()) == (0, ["fresh.py", "fresh.py.md", "fresh.py.svg"])
    network = _module(Path("fresh.py"), monkeypatch).Network()
    logits, auxiliary = network(torch.zeros(2, 1, 28, 28))
    assert logits.shape == auxiliary.shape == (2, 10)
    assert "fresh: it has not been trained" in Path("fresh.py.md").read_text()


@pytest.mark.parametrize("text", [False, True])
def test_a_program_of_torch_takes_any_batch(text, call):
    what = ("NAO-RNN", "--size", "hidden=4", "--num-classes", "9", "--tokens", "3") if text else DARTS
    assert call("export", *what, "--format", "torch", "--out", "a.pt2").code == 0
    program = torch.export.load("a.pt2").module()
    size = {"hidden": 4, "num_classes": 9} if text else {"layers": 3, "channels": 4, "network": "small"}
    with nao_ray.rng.torch_seeded(0, "weights"):
        ours = nao_ray.build_network(what[0], space="nao_rnn" if text else "darts_cnn", **size).eval()
    for batch in (1, 5):
        with torch.no_grad():
            if text:
                tokens, hidden = torch.randint(0, 9, (batch, 3)), torch.randn(batch, 4)
                found, after = program(tokens, hidden)
                expected, (state,) = ours(tokens, (hidden,))
                torch.testing.assert_close(after, state)
            else:
                images = torch.randn(batch, 1, 28, 28)
                found, expected = program(images), ours(images)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert "onednn" not in str(program.graph)


def test_onnx_says_what_the_network_says(call):
    onnxruntime = pytest.importorskip("onnxruntime")
    assert call("export", *DARTS, "--format", "onnx", "--out", "a.onnx").code == 0
    session = onnxruntime.InferenceSession("a.onnx")
    (given,) = session.get_inputs()
    assert (given.name, given.shape) == ("images", ["batch", 1, 28, 28])
    with nao_ray.rng.torch_seeded(0, "weights"):
        ours = nao_ray.build_network("DARTS_V2", space="darts_cnn", layers=3, channels=4, network="small").eval()
    for batch in (1, 5):
        images = torch.randn(batch, 1, 28, 28)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        np.testing.assert_allclose(logits, ours(images).detach().numpy(), rtol=0, atol=1e-5)
    assert "onnxruntime" in Path("a.onnx.md").read_text()


def test_onnx_without_its_packages_says_how_to_get_them(call, monkeypatch):
    monkeypatch.setattr(programs, "find_spec", lambda name: None)
    done = call("export", *DARTS, "--format", "onnx", "--out", "a.onnx")
    assert done.code == 2
    assert "pip install onnx onnxscript" in done.err
    assert list(Path().iterdir()) == []


def test_an_operation_of_ones_own_goes_into_programs(call, monkeypatch):
    """Of which there is no source: the network itself is taken, without its fast paths."""
    monkeypatch.setattr(source, "_written", lambda network, example: (_ for _ in ()).throw(source.no_source("mine")))
    assert call("export", *DARTS, "--format", "torch", "--out", "a.pt2").code == 0
    program = torch.export.load("a.pt2").module()
    assert program(torch.zeros(3, 1, 28, 28)).shape == (3, 10)
    assert "autograd" not in str(program.graph)
    done = call("export", *DARTS, "--format", "source", "--out", "a.py")
    assert "mine has no plain source" in done.err


def test_a_genotype_as_json_and_in_the_text_of_darts(call):
    assert call("export", "DARTS_V2", "--format", "genotype", "--out", "a.json").code == 0
    facts = json.loads(Path("a.json").read_text())
    again = json.loads(call("describe", facts["genotype"], "--space", facts["space"], "--json").out)
    assert again["published"] == "DARTS_V2"
    assert facts["cells"]["normal"]["nodes"][0] == [
        {"from": 0, "op": "sep_conv_3x3"},
        {"from": 1, "op": "sep_conv_3x3"},
    ]
    assert call("export", "DARTS_V2", "--format", "darts", "--out", "a.txt").code == 0
    text = Path("a.txt").read_text()
    assert text.startswith("Genotype(normal=[('sep_conv_3x3', 0)")
    assert json.loads(call("describe", text, "--json").out)["published"] == "DARTS_V2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "pickle", "--out", "a.py"), "--format pickle: choose one of source, torch, onnx"),
        (("--format", "source", "--out", "a.txt"), "a file of --format source ends in .py"),
        (("--format", "source", "--out", "there/a.py"), "there is no folder there"),
        (("--format", "source", "--out", "s3://bucket/a.py"), "a file of this machine"),
        (("--format", "source", "--out", "a.py", "--set", "task.path=x"), "--set: it is for a checkpoint"),
        (("--format", "source", "--out", "a.py", "--recipe", "nao_ptb"), "nao_ptb"),
        (("--format", "source", "--out", "a.py", "--size", "cells=3"), "cells"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_line(words, message, call):
    done = call("export", "DARTS_V2", *words)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err
    assert list(Path().iterdir()) == []


def test_files_that_are_there_stay_unless_they_are_to_be_replaced(call):
    Path("a.json.md").write_text("mine")
    done = call("export", "DARTS_V2", "--format", "genotype", "--out", "a.json")
    assert done.code == 2
    assert "a.json.md is there already; give another --out, or --overwrite" in done.err
    assert [path.name for path in Path().iterdir()] == ["a.json.md"]
    assert call("export", "DARTS_V2", "--format", "genotype", "--out", "a.json", "--overwrite").code == 0
    assert Path("a.json.md").read_text().startswith("# DARTS_V2")


def test_a_notation_that_a_space_does_not_have(call):
    done = call("export", "NAONet-A", "--format", "darts", "--out", "a.txt")
    assert "space nao_cnn has no such notation" in done.err


def test_checkpoints_that_are_none(checkpoint, call):
    Path("cut.safetensors").write_bytes(checkpoint.read_bytes()[:1000])
    torch.save({"a": torch.zeros(1)}, "foreign.safetensors")
    for file, message in (("cut", "cut off"), ("foreign", "no checkpoint"), ("nowhere", "cannot read checkpoint")):
        done = call("export", f"{file}.safetensors", "--format", "source", "--out", "a.py")
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert message in done.err
    done = call("export", checkpoint, "--format", "source", "--out", "a.py", "--space", "nao_cnn")
    assert "says itself what it is" in done.err


def test_a_card_loads_a_file_whatever_it_is_called(call, monkeypatch):
    assert call("export", *DARTS, "--format", "source", "--out", "my-net 2.py").code == 0
    told = Path("my-net 2.py.md").read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.syspath_prepend(str(Path().absolute()))
    found = {"images": torch.zeros(2, 1, 28, 28)}
    exec(told, found)
    assert found["logits"].shape == (2, 10)


@pytest.mark.parametrize(("height", "width"), [(300, 224), (97, 331), (20, 30)])
def test_pictures_that_were_streamed_are_cropped_and_resized_as_in_evaluation(checkpoint, height, width):
    about, tensors = finished(str(checkpoint))
    config = about.config
    network = trained_network(config, config.make_task(), tensors, "")
    made = replace(taken(about, config, config.make_task(), network, tensors, None), centre=0.875)
    assert "the largest centre of a picture, 0.875 of its sides, resized to 8x8; pixels" in card(made, "", ())
    found = {"torch": torch, "Tensor": torch.Tensor}
    exec(made.extra[0], found)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    (ours,) = pictures.view(file.getvalue(), (1, 8, 8), "", lambda h, w: views.centre_box(h, w, 1.0, 0.875))
    theirs = found["crop"](torch.from_numpy(pixels)[None, None])[0, 0]
    assert (theirs - torch.from_numpy(ours.copy())).abs().max() <= 1  # Pillow rounds after each direction
    mean, std = (torch.tensor(each) for each in made.normaliser)
    torch.testing.assert_close(
        found["prepare"](torch.from_numpy(pixels)[None, None])[0, 0], (theirs / 255 - mean) / std
    )
