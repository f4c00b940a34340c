"""Sizes of networks: a skeleton's own numbers, flat among the settings of what builds them, and columns of the pool."""

import json
from pathlib import Path

import pytest

from nao_ray import registry
from nao_ray.config import RunConfig, TrainConfig
from nao_ray.errors import ConfigError
from nao_ray.evaluators.standalone import Standalone, StandaloneConfig
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.run import run
from nao_ray.sizes import read_size
from nao_ray.skeletons.base import skeleton_of, with_settings
from nao_ray.skeletons.images.base import StackSize
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall

OWN = """
from nao_ray.sizes import Size
from nao_ray.skeletons.nao import Nao
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall

class Grown(Size):
    width: int | None = None
    layers: int | None = None

class Growing(Nao):
    sizes = Grown
    published = {"small": Grown(width=4, layers=5)}
    searched = Grown(width=3, layers=5)
    shared = None

    def stacked(self, size):
        return {"channels": size.width, "cells_per_stage": size.layers // 3}

class Own(NaoCnnSmall):
    skeleton = "grown:Growing"
"""
"""A skeleton of the user's own, whose stacks are told of another size than its own."""


def config(space, evaluator):
    strategy = "shared_random_search" if evaluator.startswith("{name: one_shot") else "random_search"
    text = (
        f"name: x\nspace: {space}\ntask: synthetic\nevaluator: {evaluator}\nstrategy: {strategy}\nbudget: {{trials: 3}}"
    )
    return RunConfig.parse(text)


def test_the_sizes_of_a_search_are_those_of_its_skeleton():
    evaluator = config("nao_cnn", "{name: standalone, channels: 8}").to_data()["evaluator"]
    assert list(evaluator)[:4] == ["name", "cells_per_stage", "channels", "epochs"]
    assert (evaluator["cells_per_stage"], evaluator["channels"]) == (3, 8)
    macro = config("enas_macro", "{name: one_shot}").to_data()["evaluator"]
    assert (macro["channels"], macro["alone"]["channels"], macro["alone"]["epochs"]) == (20, 20, 10)
    assert "cells_per_stage" not in {**macro, **macro["alone"]}


@pytest.mark.parametrize(
    ("space", "evaluator", "message"),
    [
        ("nao_cnn", "{name: standalone, chanels: 8}", r"evaluator\.chanels; did you mean channels\?"),
        ("nao_cnn", "{name: one_shot, alone: {chanels: 8}}", r"evaluator\.alone\.chanels; did you mean channels\?"),
        (
            "enas_macro",
            "{name: standalone, cells_per_stage: 2}",
            r"evaluator\.cells_per_stage is left out here: .*layers",
        ),
        (
            "enas_macro",
            "{name: one_shot, alone: {cells_per_stage: 2}}",
            r"evaluator\.alone\.cells_per_stage is left out",
        ),
        ("enas_macro", "{name: standalone, layers: 2}", r"unknown key evaluator\.layers; known: channels, "),
        ("nao_cnn", "{name: standalone, channels: 7}", r"evaluator\.channels: Input should be a multiple of 2, got 7"),
        ("nao_cnn", "{name: standalone, channels: null}", r"evaluator\.channels: .*valid integer, got None"),
    ],
)
def test_a_size_that_there_is_not_is_refused(space, evaluator, message):
    with pytest.raises(ConfigError, match=message):
        config(space, evaluator)


def test_a_full_training_says_so_too():
    what = {"space": "enas_macro", "genotype": "1", "task": {"name": "synthetic"}}
    told = r"^--set cells_per_stage=2: cells_per_stage is left out here: the genotype says"
    with pytest.raises(ConfigError, match=told):
        TrainConfig.make("short", what, ("cells_per_stage=2",))


@pytest.mark.parametrize("space", ["nao_cnn", "enas_micro", "enas_macro", "nas_bench_201"])
def test_the_usual_sizes_are_those_of_before_they_were_a_skeletons_own(space):
    named = dict(Standalone.fidelity(config(space, "{name: standalone}").evaluator_config).size)
    assert named == ({"channels": 32} if space == "enas_macro" else {"cells_per_stage": 3, "channels": 32})


def test_a_config_is_made_once_for_each_size():
    kind = StandaloneConfig.of(StackSize(cells_per_stage=1, channels=4))
    assert kind is StandaloneConfig.of(StackSize(cells_per_stage=1, channels=4))
    assert kind(epochs=2) == kind(epochs=2, channels=4)
    assert kind(channels=6).size == StackSize(cells_per_stage=1, channels=6)
    assert str(kind().size) == "N = 1, F = 4"


@pytest.mark.usefixtures("fresh_modules")
def test_sizes_of_an_own_skeleton_are_settings_and_stand_in_a_column_of_their_own(tmp_path, monkeypatch, call):
    (tmp_path / "grown.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    task = {"name": "synthetic", "per_class": 20}
    search = {"name": "own", "space": "grown:Own", "task": task, "strategy": "random_search", "budget": {"trials": 1}}
    children = {"name": "standalone", "width": 2, "epochs": 1, "recipe": "short_digits", "device": "cpu"}
    (tmp_path / "own.yaml").write_text(json.dumps({**search, "evaluator": children}))
    run(RunConfig.load("own.yaml"), "pools/own", in_process=True)
    pool = PoolReader.open("pools/own")
    (row,) = pool.trials().to_dict("records")
    assert (row["layers"], row["own_size"]) == (5, '{"width": 2}')
    assert dict(pool.log()[0].proposal.fidelity.size) == {"layers": 5, "width": 2}
    assert pool.sql("SELECT CAST(own_size->>'width' AS INTEGER) AS width FROM trials")["width"].tolist() == [2]
    facts = json.loads(call("describe", "pools/own:0", "--json").out)
    assert (facts["width"], facts["layers"], facts["num_params"]) == (2, 5, row["num_params"])
    wider = json.loads(call("describe", "pools/own:0", "--size", "width=4", "--json").out)
    assert (wider["width"], wider["layers"]) == (4, 5)
    told = call("describe", "pools/own:0", "--channels", "4")
    assert (told.code, told.err) == (2, "nao-ray: unknown key channels; known: width, layers\n")


def test_what_a_row_says_of_a_size_builds_its_network():
    space = NaoCnnSmall()
    assert with_settings(space, {"channels": 4, "layers": None})[1] == StackSize(channels=4)
    macro = registry.load("space", "enas_macro")()
    assert dict(with_settings(macro, {"channels": 4, "cells_per_stage": 3})[1].named) == {"channels": 4}
    with pytest.raises(ConfigError, match="unknown key layers"):
        with_settings(space, {"layers": 3})
    with pytest.raises(ConfigError, match=r"unknown key width; known: cells_per_stage, channels$"):
        read_size(StackSize, {"width": 3})


def test_the_documentation_says_the_sizes_of_every_space():
    page = (Path(__file__).parents[1] / "docs" / "use.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| `")]
    told = {name: row[1:] for row in rows for name in row[0].replace("`", "").replace(" ", "").split(",")}
    for name in registry.names("space"):
        skeleton = skeleton_of(registry.load("space", name)())
        sizes, searched = told[name]
        assert all(f"`{size}`" in sizes for size in skeleton.sizes.model_fields), name
        assert (sizes.count("`") // 2, searched.strip()) == (len(skeleton.sizes.model_fields), str(skeleton.searched))
