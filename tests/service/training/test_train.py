"""Full training: it goes on exactly, reads the test split once, and refuses what is not its own."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

from nao_ray import registry
from nao_ray.config import RunConfig, TrainConfig
from nao_ray.errors import ConfigError, DataError, PoolError, RunError
from nao_ray.pool import Finals, PoolReader, PoolWriter
from nao_ray.service.hosting.run import run
from nao_ray.service.training.about import digest, unpack
from nao_ray.service.training.finalists import finalists_config
from nao_ray.service.training.train import Run, evaluate, train
from nao_ray.spaces.base import Genotype
from nao_ray.tasks.synthetic import Synthetic
from nao_ray.training.checkpoint import pack
from tests.pool._made_up_trials import START, make_trial, record
from tests.tasks import _made_up_data as made

# little but identities: a network that costs next to nothing
WHAT = {
    "space": {"name": "nao_cnn_small"},
    "genotype": " ".join(["0 4 1 2 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2),
    "task": {"name": "synthetic", "per_class": 20},
}
SMALL = ("channels=2", "epochs=3", "checkpoint_every=1", "recipe.batch=24", "recipe.dropout=0.1")


def config(*overrides):
    return TrainConfig.make("short_digits", WHAT, (*SMALL, *overrides))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, train(config(), str(folder), "cell")


def _interrupt_after(epoch):
    def listener(step):
        if step.done == epoch:
            raise KeyboardInterrupt

    return listener


def test_a_training_leaves_a_row_and_a_checkpoint(done):
    folder, row = done
    (read,) = pd.read_parquet(folder / "final").to_dict("records")
    assert read["test_accuracy"] == row["test_accuracy"]
    assert 0 <= row["test_accuracy"] <= 1
    assert (row["recipe"], row["epochs"], row["channels"], row["seed"]) == ("short_digits", 3, 2, 0)
    assert row["valid_accuracy"] == row["curve"][-1]
    assert len(row["curve"]) == 3
    assert 0 < row["num_params"] < row["macs"]
    about, scores = evaluate(str(folder / row["checkpoint"]))
    assert (scores.value, scores.loss) == (row["test_accuracy"], row["test_loss"])
    assert about.config == config()


@pytest.mark.parametrize("every", [1, 2])
def test_a_training_that_was_cut_off_goes_on_exactly(done, tmp_path, every):
    folder, row = done
    cut = config(f"checkpoint_every={every}")
    with pytest.raises(KeyboardInterrupt):
        train(cut, str(tmp_path), "cell", listener=_interrupt_after(2))
    assert not (tmp_path / "final").exists()
    steps = []
    again = train(cut, str(tmp_path), "cell", listener=steps.append)
    assert [step.done for step in steps] == [3]
    times = {"wall_seconds", "started_at", "finished_at", "latency_ms_1", "latency_ms_128", "peak_memory_bytes"}
    assert {k: v for k, v in again.items() if k not in times} == {k: v for k, v in row.items() if k not in times}
    before, after = (unpack((place / row["checkpoint"]).read_bytes(), "")[1] for place in (folder, tmp_path))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_test_split_is_read_by_full_training_alone_and_once(tmp_path, monkeypatch):
    reads = []
    load_test = Synthetic.load_test
    monkeypatch.setattr(Synthetic, "load_test", lambda task: reads.append(1) or load_test(task))
    row = train(config("epochs=1"), str(tmp_path), "cell", listener=lambda _: reads == [] or pytest.fail("too early"))
    assert len(reads) == 1
    assert train(config("epochs=1", "device=cpu"), str(tmp_path), "cell")["test_loss"] == row["test_loss"]
    assert len(reads) == 1
    evaluate(str(tmp_path / row["checkpoint"]))
    assert len(reads) == 2
    search = RunConfig(
        name="s", space="nao_cnn_small", task=WHAT["task"], strategy="random_search", budget={"trials": 1},
        evaluator={"name": "standalone", "cells_per_stage": 1, "channels": 2, "epochs": 1, "recipe": "short_digits"},
    )  # fmt: skip
    assert run(search, str(tmp_path / "p"), in_process=True).done == 1
    assert len(reads) == 2


def test_of_a_training_that_runs_twice_at_once_the_first_row_and_the_further_checkpoint_stay(tmp_path, monkeypatch):
    reads, load_test = [], Synthetic.load_test
    monkeypatch.setattr(Synthetic, "load_test", lambda task: reads.append(1) or load_test(task))
    kept = []

    def other(*, until):
        with pytest.raises(KeyboardInterrupt):
            train(config(), str(tmp_path), "cell", listener=_interrupt_after(until))

    def one(step):
        if step.done == 1:
            other(until=3)
        kept.extend(unpack(path.read_bytes(), "")[0].epochs_done for path in (tmp_path / "weights").iterdir())
        if step.done == 3:
            kept.append(train(config(), str(tmp_path), "cell"))

    row = train(config(), str(tmp_path), "cell", listener=one)
    assert kept == [3, 3, 3, row]
    assert len(reads) == 1
    assert Finals(tmp_path).add({**row, "test_accuracy": 1.0}) == row
    assert Finals(tmp_path).row(row["name"]) == row


def test_a_missing_test_split_is_found_before_the_training(tmp_path):
    made.table(tmp_path / "data/train-0.parquet", test=0, split_column=False)
    what = {**WHAT, "task": {"name": "image_table", "path": str(tmp_path / "data")}}
    table = TrainConfig.make("short", what, ("channels=2", "epochs=1"))
    with pytest.raises(DataError, match=r"the test split cannot be used: .* has no test images: train: 1 file"):
        train(table, str(tmp_path / "out"), "cell", listener=lambda _: pytest.fail("trained"))
    assert not (tmp_path / "out").exists()


def _folder(tmp_path):
    """A task with a test split, and the settings of a training on it."""
    for seed, split in enumerate(("train", "test")):
        made.folder(tmp_path / "data" / split, seed=seed)
    what = {**WHAT, "task": {"name": "image_folder", "path": str(tmp_path / "data")}}
    return TrainConfig.make("short", what, ("channels=2", "epochs=1")), tmp_path / "data/test"


@pytest.mark.parametrize("fault", ["a label", "a size", "a cut picture"])
def test_a_bad_test_split_is_found_before_the_training(tmp_path, fault):
    settings, test = _folder(tmp_path)
    if fault == "a label":
        made.folder(test, classes=("fox",))
        message = "label 'fox' in row 36, expected one of the training labels"
    elif fault == "a size":
        (test / "cat/0.png").write_bytes(made.encoded(made.images(1, 0, (3, 9, 9))[0], "PNG"))
        message = r"cat/0.png: shape \(3, 9, 9\), expected \(3, 8, 8\)"
    else:
        (test / "cat/0.png").write_bytes((test / "cat/0.png").read_bytes()[:-40])
        message = r"cat/0.png: a picture of \d+ bytes that cannot be read"
    with pytest.raises(DataError, match=f"the test split cannot be used: .*{message}"):
        train(settings, str(tmp_path / "out"), "cell", listener=lambda _: pytest.fail("trained"))
    assert not (tmp_path / "out").exists()


def test_a_test_split_that_breaks_during_the_training_costs_no_weights(tmp_path):
    settings, test = _folder(tmp_path)
    whole = (test / "cat/0.png").read_bytes()
    with pytest.raises(DataError, match=r"the test split .*cat/0.png.*; the weights are kept in .*/weights/cell-short"):
        train(settings, str(tmp_path / "out"), "cell", listener=lambda _: (test / "cat/0.png").write_bytes(whole[:-40]))
    (test / "cat/0.png").write_bytes(whole)
    row = train(settings, str(tmp_path / "out"), "cell", listener=lambda _: pytest.fail("trained again"))
    assert 0 <= row["test_accuracy"] <= 1


def test_test_pictures_that_were_trained_on_are_counted(tmp_path, caplog):
    settings, test = _folder(tmp_path)
    (test / "cat/0.png").write_bytes((test.parent / "train/cat/0.png").read_bytes())
    train(settings, str(tmp_path / "out"), "cell")
    assert "1 of 36 test images are training or validation images too" in caplog.text


def test_all_images_train_or_a_tenth_validates(tmp_path):
    def sizes(*overrides):
        settings = config(*overrides)
        objective = Run(settings, settings.make_task(), Finals(tmp_path), "n", "h", lambda _: None)._objective()
        return objective.num_train, objective.num_valid

    assert sizes("data=all") == (80, 0)
    assert sizes() == (72, 8)
    row = train(config("data=all", "epochs=1"), str(tmp_path), "cell")
    assert (row["valid_accuracy"], row["curve"]) == (None, None)
    assert math.isfinite(row["test_accuracy"])
    assert TrainConfig.make("nao_cifar10", WHAT).data == "all"


def test_other_settings_are_another_training_and_other_places_the_same(done):
    folder, row = done
    names = {row["name"], train(config("seed=1", "epochs=1"), str(folder), "cell")["name"]}
    assert len(names) == 2
    assert train(config("checkpoint_every=7", "device=cpu"), str(folder), "cell")["name"] == row["name"]


def test_the_tasks_settings_name_the_training_and_its_places_do_not():
    def name(**settings):
        return digest(TrainConfig.make("short", {**WHAT, "task": {"name": "image_table", **settings}}), "hash")

    assert name(path="a") == name(path="b") == name(path="a", test_split="test")
    assert name(path="a") != name(path="a", test_split="train")


def test_a_checkpoint_is_not_evaluated_on_other_data(done):
    folder, row = done
    with pytest.raises(DataError, match=r"was trained on other data: their hash was \w{12}, it is now \w{12}; "):
        evaluate(str(folder / row["checkpoint"]), ("task.per_class=24",))


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    with pytest.raises(RunError, match="the loss of epoch 1 is not finite"):
        train(config("recipe.lr=1e30", "recipe.clip_norm=null"), str(tmp_path), "cell")
    assert not (tmp_path / "final").exists()


# -- refusals -----------------------------------------------------------------------------------------------


def test_an_unfinished_training_has_no_test_score(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(config(), str(tmp_path), "cell", listener=_interrupt_after(1))
    (checkpoint,) = (tmp_path / "weights").iterdir()
    with pytest.raises(DataError, match="stands at 1 of 3 epochs"):
        evaluate(str(checkpoint))


def test_what_is_no_checkpoint_of_full_training_is_refused(done, tmp_path):
    folder, row = done
    whole = (folder / row["checkpoint"]).read_bytes()
    about, tensors = unpack(whole, "")
    wider = about.model_copy(update={"config": config("channels=4")})
    files = {
        "missing": (None, "cannot read checkpoint"),
        "truncated": (whole[:-10], "not a whole safetensors file"),
        "empty": (b"", "not a whole safetensors file"),
        "supernet": (pack({"net.weight": torch.ones(2)}), "not a checkpoint of nao-ray train"),
        "foreign": (pack({"w": torch.ones(2)}, '{"format": 2}'), "not a checkpoint of this nao-ray: format"),
        "other.pt": (b"PK" + whole, "not a whole .*; weights of another program are read with --as"),
        "two lines": (pack(tensors, about.model_copy(update={"name": "a\nb"}).model_dump_json()), ": name: .* pattern"),
        "null": (pack(tensors, about.model_copy(update={"name": "a\0b"}).model_dump_json()), ": name: .* pattern"),
        "wider": (pack(tensors, wider.model_dump_json()), "has shape .* of another network"),
    }
    for name, (data, message) in files.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=message):
            evaluate(str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"only task\.\* and device"):
        evaluate(str(folder / row["checkpoint"]), ("epochs=4",))
    with pytest.raises(ConfigError, match="per_clas"):
        evaluate(str(folder / row["checkpoint"]), ("task.per_clas=4",))


def test_the_checkpoint_of_another_training_is_not_gone_on_with(done, tmp_path):
    folder, row = done
    other = train(config("seed=1", "epochs=1"), str(tmp_path), "cell")
    (tmp_path / other["checkpoint"]).write_bytes((folder / row["checkpoint"]).read_bytes())
    (tmp_path / "final" / f"{other['name']}.parquet").unlink()
    with pytest.raises(DataError, match=f"checkpoint of another training .{row['name']}"):
        train(config("seed=1", "epochs=1"), str(tmp_path), "cell")


@pytest.mark.parametrize(
    ("recipe", "override", "message"),
    [
        ("slow", "epochs=1", "no full training is named 'slow'; known: nao_cifar10"),
        ("short", "epoch=1", "unknown key epoch"),
        ("short", "recipe.score=best", "recipe.score must be last"),
        ("short", "data=test", "'all' or 'train'"),
        ("short", "task.size=1000", "task.size"),
        ("short", "channels=3", "multiple of 2"),
        ("short", "genotype=NAONet-B", "what is trained is given by the argument"),
        ("short", "space.name=nao_cnn", "what is trained is given by the argument"),
        ("short", "task.name=digits", "what is trained is given by the argument"),
    ],
)
def test_bad_settings_are_refused(recipe, override, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.make(recipe, WHAT, (override,))
    assert WHAT["task"] == {"name": "synthetic", "per_class": 20}


# -- the commands -------------------------------------------------------------------------------------------

SETTINGS = [word for setting in SMALL for word in ("--set", setting)]
SEARCH = {
    "name": "first",
    "space": "nao_cnn_small",
    "task": WHAT["task"],
    "evaluator": {"name": "standalone", "cells_per_stage": 1, "channels": 2, "epochs": 1, "recipe": "short_digits"},
    "strategy": "random_search",
    "budget": {"trials": 4},
    "workers": {"count": 2},
}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    pool = tmp_path_factory.mktemp("searched") / "pool"
    run(RunConfig(**SEARCH), str(pool), in_process=True)
    return pool


def _files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_train_and_evaluate_from_the_shell(searched, call):
    best = PoolReader.open(searched).best(1).iloc[0]
    trained = call("train", f"{searched}:best", "--recipe", "short_digits", *SETTINGS)
    assert trained.code == 0, trained.err
    assert "epoch 3/3" in trained.err
    pool = PoolReader.open(searched)
    joined = "from final join trials using (trial_id)"
    (row,) = pool.sql(f"select trial_id, trials.genotype, test_accuracy, checkpoint {joined}").to_dict("records")
    assert (row["trial_id"], row["genotype"]) == (best["trial_id"], best["genotype"])
    with pytest.raises(PoolError, match=r"sql: \w+ is there twice; name the columns"):
        pool.sql(f"select * {joined}")
    assert f"test        {row['test_accuracy']:.4f}" in trained.out
    scored = call("evaluate", searched / row["checkpoint"], "--json")
    assert f'"test_accuracy": {row["test_accuracy"]}' in scored.out
    assert PoolReader.open(searched).check() == []


def test_a_published_name_and_a_folder_of_its_own(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    words = ("train", "NAONet-B", "--recipe", "short_digits", "--task", "synthetic", *SETTINGS, "--set", "epochs=1")
    assert call(*words).code == 0
    (row,) = pd.read_parquet(tmp_path / "trained" / "final").to_dict("records")
    assert row["name"].startswith("NAONet-B-short_digits-")
    assert math.isnan(row["trial_id"]) or row["trial_id"] is pd.NA


def test_an_interrupted_train_says_how_to_go_on(searched, monkeypatch, call):
    from nao_ray.service.training import train as module

    def cut(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train", cut)
    left = call("train", f"{searched}:best", "--recipe", "short_digits")
    assert left.code == 130
    assert "the same command goes on" in left.err


def test_what_cannot_be_trained_is_refused_in_a_line(tmp_path, searched, call):
    empty = tmp_path / "empty"
    PoolWriter.create(empty, {"config": dict(SEARCH)})
    for words, message in [
        ((f"{empty}:best", "--recipe", "short"), "has no completed trial"),
        ((f"{searched}:99", "--recipe", "short"), "has no finished trial 99"),
        ((f"{tmp_path}/nowhere:best", "--recipe", "short"), "there is no pool at"),
        (("NAONet-B", "--recipe", "short"), "task is missing"),
        (("0 1", "--recipe", "short"), "--space is missing"),
    ]:
        left = call("train", *words)
        assert (left.code, len(left.err.splitlines())) == (2, 1), left.err
        assert message in left.err
    assert "has no completed trial" in call("finalists", empty).err


# -- finalists ----------------------------------------------------------------------------------------------


def test_finalists_are_trained_again_in_a_pool_of_their_own(searched, call):
    before = _files(searched)
    words = ("finalists", searched, "-n", 2, "--set", "evaluator.channels=4", "--in-process")
    left = call(*words)
    assert left.code == 0, left.err
    assert {name: data for name, data in _files(searched).items() if not name.startswith("lease")} == {
        name: data for name, data in before.items() if not name.startswith("lease")
    }
    pool = PoolReader.open(f"{searched}-finalists")
    trials = pool.trials()
    assert trials["genotype"].tolist() == PoolReader.open(searched).best(2)["genotype"].tolist()
    assert (trials["epochs"].tolist(), trials["channels"].tolist()) == ([5, 5], [4, 4])
    winner = pool.best(1).iloc[0]
    assert f"winner  trial {winner['trial_id']}" in left.out
    assert f"nao-ray train {searched}-finalists:best --recipe short" in left.out
    assert call(*words).code == 0
    assert len(PoolReader.open(f"{searched}-finalists").trials()) == 2
    other = call("finalists", searched, "-n", 2, "--set", "evaluator.epochs=3", "--in-process")
    assert other.code == 2
    assert "evaluator.epochs was 5, is 3" in other.err


@pytest.mark.parametrize(
    ("override", "message"),
    [("strategy.name=nao", "only evaluator, workers and seed"), ("evaluator.epoch=3", "unknown key evaluator.epoch")],
)
def test_finalists_are_refused_other_settings(searched, call, override, message):
    left = call("finalists", searched, "--set", override, "--in-process")
    assert left.code == 2
    assert message in left.err


def test_finalists_at_the_size_of_a_recipe(searched):
    evaluator = finalists_config(PoolReader.open(searched), 3, "nao_cifar10").evaluator
    assert evaluator.settings["recipe"] == "nao_cifar10"
    assert [evaluator.settings[name] for name in ("cells_per_stage", "channels", "epochs")] == [6, 36, 600]


def test_finalists_are_trained_on_until_their_learning_rate_is_0_and_no_longer(tmp_path):
    pool = PoolWriter.create(tmp_path / "p", {"config": {**SEARCH, "evaluator": {"name": "standalone", "epochs": 25}}})
    with pool.acquire():
        record(pool, 0, 1)

    def cosine(*overrides):
        settings = finalists_config(pool, 1, None, overrides).evaluator.settings
        return settings["epochs"], settings["recipe"]["cosine_epochs"]

    assert cosine() == (125, None)
    assert cosine("evaluator.epochs=100") == (100, 100)
    assert cosine("evaluator.recipe.cosine_epochs=60") == (125, 60)
    assert cosine("evaluator.recipe.restart_factor=1") == (125, 100)


def test_an_architecture_that_was_tried_twice_is_one_finalist(tmp_path):
    pool = PoolWriter.create(tmp_path / "p", {"config": dict(SEARCH)})
    with pool.acquire():
        trials = [make_trial(k) for k in (0, 1, 3)]
        best = max(trials, key=lambda trial: trial.score)
        again = replace(best, proposal=replace(best.proposal, trial_id=7), log_index=7)
        pool.record_asked([trial.proposal for trial in (*trials, again)], START)
        pool.record_finished([*trials, again])
    genotypes = finalists_config(pool, 2, None).strategy.settings["genotypes"]
    assert len(set(genotypes)) == len(genotypes) == 2


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_finalists_on_ray(searched, tmp_path, call):
    settings = ("--set", "evaluator.epochs=1", "--set", "workers.count=2")
    left = call("finalists", searched, "-n", 2, "--pool", tmp_path / "f", *settings)
    assert left.code == 0, left.err
    assert PoolReader.open(tmp_path / "f").counts().completed == 2


def test_finalists_of_a_search_with_alphas_are_of_the_size_of_its_children(tmp_path):
    search = {
        "name": "alphas",
        "space": "darts_cnn",
        "task": "synthetic",
        "strategy": "darts",
        "budget": {"trials": 9},
        "evaluator": {"name": "darts", "layers": 3, "alone": {"layers": 5, "channels": 4}, "device": "cpu"},
    }
    pool = PoolWriter.create(tmp_path / "p", {"config": search})
    with pool.acquire():
        text = registry.load("space", "darts_cnn")().published["DARTS_V2"]
        trial = make_trial(0)
        record_one = replace(trial, proposal=replace(trial.proposal, genotype=Genotype("darts_cnn", text)))
        pool.record_asked([record_one.proposal], START)
        pool.record_finished([record_one])
    evaluator = finalists_config(pool, 1, None).evaluator
    assert (evaluator.name, evaluator.settings["device"]) == ("standalone", "cpu")
    assert [evaluator.settings[name] for name in ("layers", "channels", "epochs")] == [5, 4, 125]
