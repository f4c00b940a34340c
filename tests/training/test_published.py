"""Every recipe builds, trains and is told; the networks of the published ones have the counts of the references."""

import math

import pytest
import torch

from nao_ray import registry, rng
from nao_ray.cli.source import find_space
from nao_ray.sizes import read_size
from nao_ray.skeletons.base import skeleton_of
from nao_ray.skeletons.images.base import StackSize
from nao_ray.tasks.images.base import Images, ImageShapes
from nao_ray.training.images import ImageObjective
from nao_ray.training.published import FULL_TRAININGS, RECIPES
from nao_ray.training.recipe import ImageRecipe, Recipe
from nao_ray.training.streams import Continuing
from nao_ray.training.told import TOLD
from nao_ray.training.trainer import Trainer
from tests.tasks import _made_up_data as files

CPU = torch.device("cpu")
RESULTS = [(name, result) for name, told in TOLD.items() for result in told.results]
HEADS = {  # auxiliary heads that the references count too
    ("nao_cifar10", "NAONet-A"): 476_426,
    ("nao_cifar10", "NAONet-B"): 457_994,
    ("nao_cifar10_128", "NAONet-A"): 664_842,
    ("nao_v2_cifar10", "NAONet-V2"): 476_426,
    ("nao_tf_cifar10", "NAONet-TF"): 599_306,
    ("nao_cifar100", "NAONet-TF"): 668_516,
    ("nao_ws_cifar10", "NAONet-WS-TF"): 476_416,
    ("nao_imagenet", "NAONet-A"): 1_250_024,
    ("nao_v2_imagenet", "NAONet-V2"): 1_270_504,
    ("darts_cifar10", "DARTS_V2"): 476_426,
    ("darts_imagenet", "DARTS_V2"): 1_260_776,
    ("enas_micro_cifar10", "ENAS-micro"): 494_848,
}


def made(genotype):
    space = find_space(None, genotype)
    return skeleton_of(space), space.lower(space.parse(genotype))


@pytest.mark.parametrize(("name", "result"), RESULTS, ids=lambda value: getattr(value, "genotype", value))
def test_counts_of_published_networks(name, result):
    """At the size of the recipe, for the shapes that the result is of."""
    (skeleton, graph), plan = made(result.genotype), FULL_TRAININGS[name]
    shapes, size = skeleton.shapes(TOLD[name].network), read_size(skeleton.sizes, plan["size"])
    recipe = Recipe(name=name)
    with torch.device("meta"):
        network = skeleton.build(graph, shapes, size, recipe)
    numbers = {key: parameter.numel() for key, parameter in network.named_parameters()}
    head = sum(number for key, number in numbers.items() if key.startswith("auxiliary."))
    assert sum(numbers.values()) - head == result.num_params
    assert head == HEADS.get((name, result.genotype), head)


@pytest.mark.parametrize(("channels", "num_params", "head"), [(36, 11_523_214, 457_994), (64, 36_353_866, 501_002)])
def test_other_widths_of_the_tensorflow_backbone(channels, num_params, head):
    """And 4,964,522 of N = 3, F = 32, with 451,850 of the head."""
    skeleton, graph = made("NAONet-TF")
    for size, expected, of_head in (
        (StackSize(channels=channels), num_params, head),
        (StackSize(cells_per_stage=3, channels=32), 4_964_522, 451_850),
    ):
        with torch.device("meta"):
            network = skeleton.build(graph, skeleton.shapes("cifar10"), size, ImageRecipe())
        heads = sum(parameter.numel() for parameter in network.auxiliary.parameters())
        assert (sum(p.numel() for p in network.parameters()) - heads, heads) == (expected, of_head)


def test_every_recipe_is_told():
    assert set(TOLD) == set(RECIPES)
    for name, told in TOLD.items():
        assert bool(told.results) == bool(told.source) == bool(told.network), name
        assert not told.results or name in FULL_TRAININGS, name


# -- two steps of each ----------------------------------------------------------------------------------------

SMALL = {"cells_per_stage": 1, "layers": 3, "channels": 4, "hidden": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Tiny files, each in the layout that its task reads."""
    place = tmp_path_factory.mktemp("data")
    text = place / "text"
    text.mkdir()
    for split in ("train", "val"):
        files.folder(place / "imagenet" / split, per_class=8, seed=len(split))
    return {
        "cifar10": {"path": str(files.cifar_binary(place / "cifar10", per_file=8)), "image_size": 16},
        "cifar100": {"path": str(files.cifar_binary(place / "cifar100", hundred=True)), "image_size": 16},
        "imagenet": {"path": str(place / "imagenet"), "image_shape": [3, 32, 32]},
        "ptb": {"path": str(files.text(text))},
        "wikitext2": {"path": str(text)},
    }


def task_of(recipe, data):
    """The one that it is for, on those files."""
    network = TOLD[recipe.name].network or ("cifar10" if isinstance(recipe, ImageRecipe) else "ptb")
    cls = registry.load("task", network)
    return cls(cls.Config(**data[network]))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_takes_two_steps(name, data):
    recipe = Recipe(name=name, batch=4)
    task = task_of(recipe, data)
    objective = task.objective(CPU, recipe)
    results, usual = TOLD[name].results, "NAONet-B" if isinstance(recipe, ImageRecipe) else "NAO-RNN"
    skeleton, graph = made(results[0].genotype if results else usual)
    size = read_size(skeleton.sizes, {key: SMALL[key] for key in skeleton.sizes.model_fields})
    with rng.torch_seeded(0, "weights"):
        network = skeleton.build(graph, task.shapes, size, recipe)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    with rng.torch_seeded(0, "dropout"), Trainer(network, objective, epochs=1, streams=Continuing(0, CPU)) as trainer:
        losses = [trainer.step().item() for _ in range(2)]
        scores = trainer.evaluate()
    assert all(map(math.isfinite, (*losses, scores.loss)))
    moved = [not torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2


def objective_of(recipe):
    """Colour images that need no files."""
    draw = rng.child(0, "tiny images")
    pixels = draw.integers(0, 256, (12, 3, 16, 16), dtype="uint8")
    train, valid = Images(pixels[:8], draw.integers(0, 3, 8)), Images(pixels[8:], draw.integers(0, 3, 4))
    return ImageShapes(3, 16, 16, num_classes=3, network="cifar10"), ImageObjective.of(train, valid, CPU, recipe)


def test_a_fast_training_goes_on_to_the_bit():
    """Its moments are SGD's by name, also of the kernels whose steps are orthogonal, and the mean of the last steps."""
    recipe = Recipe(name="fast_cifar10", batch=4, averaging_share=0.5)
    shapes, objective = objective_of(recipe)
    skeleton, graph = made("NAONet-B")
    ends = []
    for cut in (None, 3):
        with rng.torch_seeded(0, "weights"):
            network = skeleton.build(graph, shapes, StackSize(cells_per_stage=1, channels=4), recipe)
        with (
            rng.torch_seeded(0, "dropout"),
            Trainer(network, objective, epochs=3, streams=Continuing(0, CPU)) as trainer,
        ):
            for step in range(6):
                if step == cut:
                    trainer.restore({name: value.clone() for name, value in trainer.state().items()})
                trainer.step()
            ends.append(trainer.state())
    assert ends[0].keys() == ends[1].keys()
    assert [name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])] == []
    assert {"average.mean.stem.conv.weight", "average.mean.stem.norm.running_var"} <= ends[0].keys()
