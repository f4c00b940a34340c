"""Configs: read, refused, written back."""

import pickle
from pathlib import Path

import pytest
import yaml

import nao_ray
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError

TEXT = """
name: small
seed: 3
space: nao_cnn_small
task: synthetic
evaluator: {name: closed_form, noise: 0.01}
strategy: random_search
budget: {trials: 5}
"""
PRESETS = sorted((Path(nao_ray.__file__).parent / "presets").glob("*.yaml"))


def test_short_and_long_forms_are_one():
    long = TEXT.replace("space: nao_cnn_small", "space: {name: nao_cnn_small}")
    assert RunConfig.parse(TEXT) == RunConfig.parse(long)


def test_an_evaluator_that_trains_nothing_needs_no_task():
    config = RunConfig.parse(TEXT.replace("task: synthetic\n", ""))
    assert RunConfig.parse(config.to_yaml()) == RunConfig.parse(RunConfig.parse(config.to_yaml()).to_yaml())
    assert "task" not in yaml.safe_load(config.to_yaml())
    assert len(config.make_evaluator().data_hash()) == 64
    with pytest.raises(ConfigError, match="small has no task"):
        config.make_task()
    with pytest.raises(ConfigError, match="evaluator ClosedForm was given no task"):
        _ = config.make_evaluator().task


def test_canonical_yaml_reads_back():
    config = RunConfig.parse(TEXT)
    text = config.to_yaml()
    again = RunConfig.parse(text)
    assert again.to_yaml() == text
    assert again.make_strategy().seed == 3
    written = yaml.safe_load(text)
    assert written["workers"]["max_attempts"] == 3, "defaults are written out"
    assert written["evaluator"]["noise"] == 0.01
    assert list(written) == ["name", "seed", "space", "task", "evaluator", "strategy", "budget", "workers"]


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_are_valid_and_named_like_their_file(path):
    config = RunConfig.load(path)
    assert config.name == path.stem
    assert config.make_strategy().space.name == config.space.name


def test_there_are_presets():
    assert {"digits", "smoke"} <= {path.stem for path in PRESETS}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seed: 3", "sead: 3", "unknown key sead"),
        ("noise: 0.01", "nois: 0.01", "unknown key evaluator.nois"),
        ("budget: {trials: 5}", "budget: {trials: 5, hour: 1}", "unknown key budget.hour"),
        ("seed: 3", "seed: three", "seed: .*got 'three'"),
        ("seed: 3", "seed: -1", "seed: .*got -1"),
        ("noise: 0.01", "noise: much", "evaluator.noise: .*got 'much'"),
        ("budget: {trials: 5}", "budget: {trials: 0}", "budget.trials: .*got 0"),
        (
            "budget: {trials: 5}",
            "budget: {trials: 5}\nworkers: {gpus: -1}",
            "workers.gpus: .*or auto, got -1",
        ),
        ("budget: {trials: 5}", "budget: {trials: 5}\nworkers: {gpus: all}", "workers.gpus: .*or auto, got 'all'"),
        ("budget: {trials: 5}", "budget: {}", "give trials, hours, or both"),
        ("budget: {trials: 5}", "", "budget is missing"),
        ("seed: 3", "workers: {silent_seconds: 1}", "workers.silent_seconds: .*got 1"),
        ("space: nao_cnn_small", "space: nao_cnn_smal", "did you mean nao_cnn_small"),
        ("space: nao_cnn_small", "space: {name: nao_cnn_small, nodes: 7}", "unknown key space.nodes"),
        ("name: small", "name: ../small", "name: "),
        ("task: synthetic", "task: {}", "task.name is missing"),
        (
            "task: synthetic\nevaluator: {name: closed_form, noise: 0.01}",
            "evaluator: standalone",
            "task is missing: the evaluator standalone trains on one",
        ),
        ("task: synthetic", "task: [1, 2]", "task: "),
        ("seed: 3", "seed: true", "seed: expected a number, not true or false, got True"),
        ("noise: 0.01", "noise: true", "evaluator.noise: expected a number, not true or false"),
        ("noise: 0.01", "noise: .inf", "evaluator.noise: .*finite number, got inf"),
        ("seed: 3", "seed: 3\nseed: 4", "the key seed is given twice, in lines 3 and 4"),
        ("budget: {trials: 5}", "budget: {hours: 1:30}", "budget.hours: .*valid number.*got '1:30'"),
        ("budget: {trials: 5}", "budget: {trials: 12:30}", "budget.trials: .*got '12:30'"),
        ("budget: {trials: 5}", "budget: {hours: .inf}", "budget.hours: .*finite number, got inf"),
        ("budget: {trials: 5}", "budget: {hours: inf}", "budget.hours: .*finite number, got 'inf'"),
        ("budget: {trials: 5}", "budget: {hours: .nan}", "budget.hours: .*got nan"),
        ("budget: {trials: 5}", "budget: {trails: 5}", "unknown key budget.trails; did you mean trials"),
        ("evaluator: {name: closed_form, noise: 0.01}", "evaluator: {name: standalone, epoch: 1}", "mean epochs"),
        ("seed: 3", "1: 3", "line 3: the key 1 is no text"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(old, new, told):
    assert old in TEXT
    with pytest.raises(ConfigError, match=told) as caught:
        RunConfig.parse(TEXT.replace(old, new), where="my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "just text", "- a\n- b", "a: [", "\x00"])
def test_what_is_no_config_is_refused(text):
    with pytest.raises(ConfigError, match=r"^my\.yaml: "):
        RunConfig.parse(text, where="my.yaml")


def test_yaml_cannot_make_objects():
    with pytest.raises(ConfigError, match="not YAML"):
        RunConfig.parse(TEXT + "extra: !!python/object/apply:os.getcwd []")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        RunConfig.load(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"bytes\.yaml"):
        RunConfig.load(tmp_path / "bytes.yaml")


def test_shared_weights_want_both_sides():
    with pytest.raises(ConfigError, match="the evaluator one_shot scores with shared weights, and the strategy"):
        RunConfig.parse(TEXT, ("evaluator={name: one_shot}", "strategy={name: random_search}"))
    with pytest.raises(ConfigError, match="the strategy enas trains shared weights, and the evaluator"):
        RunConfig.parse(TEXT, ("evaluator={name: standalone}", "strategy={name: enas}"))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        *[(f"count: {value}", "count: expected a whole number that is 1 or more, or auto") for value in (0, -1, True)],
        *[(f"cpus: {value}", "cpus: ") for value in (0.00001, ".inf", ".nan", "true", 0, "1e9")],
        *[(f"gpus: {value}", "gpus: expected 0, a fraction up to 1") for value in (1.5, -1, 0.00001, ".inf", "true")],
        ("timeout_seconds: .inf", "timeout_seconds: .*finite"),
    ],
)
def test_workers_that_cannot_be_are_refused(wrong, told):
    with pytest.raises(ConfigError, match=rf"^my\.yaml: workers\.{told}"):
        RunConfig.parse(f"{TEXT}workers: {{{wrong}}}", where="my.yaml")


@pytest.mark.parametrize(("gpus", "made"), [("0", 0), ("0.25", 0.25), ("1", 1), ("2.0", 2), ("1e-1", 0.1)])
def test_gpus_are_none_a_fraction_or_whole(gpus, made):
    assert RunConfig.parse(TEXT, (f"workers.gpus={gpus}",)).workers.gpus == made


def test_numbers_of_overrides_are_those_of_yaml_1_2():
    config = RunConfig.parse(TEXT, ("seed=010", "evaluator.noise=1e-2"))
    assert (config.seed, config.evaluator.settings["noise"]) == (10, 0.01)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("seed=4", "budget.trials=0"), r"^--set budget\.trials=0: budget\.trials: "),
        (("evaluator.nois=1",), r"^--set evaluator\.nois=1: unknown key evaluator\.nois; did you mean noise\?"),
        (("budget={trials: 0}",), r"^--set budget=\{trials: 0\}: budget\.trials: "),
        (("strategy=nonsense",), r"^--set strategy=nonsense: no strategy is named 'nonsense'"),
        (
            ("evaluator=one_shot",),
            r"^my\.yaml with --set evaluator=one_shot: the evaluator one_shot scores with shared",
        ),
        (("task.path=s3://KEY:SECRET@b",), r"^--set task\.path=s3://\*\*\*@b: task\.path: the address"),
    ],
)
def test_an_override_is_blamed_for_what_it_sets(overrides, told):
    with pytest.raises(ConfigError, match=told) as caught:
        RunConfig.parse(TEXT, overrides, where="my.yaml")
    assert "SECRET" not in str(caught.value)


def test_a_file_is_blamed_for_what_no_override_sets():
    with pytest.raises(ConfigError, match=r"^my\.yaml: seed: "):
        RunConfig.parse(TEXT.replace("seed: 3", "seed: -1"), ("budget.trials=4",), where="my.yaml")


def test_overrides():
    config = RunConfig.parse(
        TEXT, ("budget.trials=9", "task.size=12", "workers.retry=[nan]", "strategy.name=random_search", "seed=4")
    )
    assert config.budget.trials == 9
    assert config.task.settings == {"size": 12}
    assert config.workers.retry == ("nan",)
    assert config.seed == 4


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("budget.trials", "expected section.key=value"),
        ("=3", "expected section.key=value"),
        ("budget..trials=3", "expected section.key=value"),
        ("budget.trials=[", "is not YAML"),
        ("budget.trails=3", "unknown key budget.trails"),
        ("nonsense=3", "unknown key nonsense"),
    ],
)
def test_bad_overrides_are_named(override, told):
    with pytest.raises(ConfigError, match=told):
        RunConfig.parse(TEXT, (override,))


def test_configs_are_frozen_and_travel():
    config = RunConfig.parse(TEXT)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 5
    assert pickle.loads(pickle.dumps(config)) == config
