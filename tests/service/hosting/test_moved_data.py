"""Where data and pool are is not what is learnt: moved data goes on, other data is refused."""

import os
import shutil

import pytest
import yaml

from nao_ray.config import Component, RunConfig, TrainConfig
from nao_ray.errors import DataError, PoolError
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.run import resume, run
from nao_ray.service.training.about import digest
from nao_ray.service.training.train import evaluate, train
from tests.tasks import _made_up_data as made

EVALUATOR = {"name": "standalone", "cells_per_stage": 1, "channels": 2, "epochs": 1, "recipe": "short_digits"}

TRAINED = {
    "space": {"name": "nao_cnn_small"},
    "genotype": " ".join(["0 4 1 2 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2),
}


def config(path, trials=1, **settings):
    return RunConfig(
        name="s", space="nao_cnn_small", task={"name": "image_folder", "path": str(path), **settings},
        strategy="random_search", budget={"trials": trials}, evaluator=EVALUATOR,
    )  # fmt: skip


@pytest.fixture
def searched(tmp_path, monkeypatch):
    """A pool, from a relative path of data."""
    monkeypatch.chdir(tmp_path)
    made.folder(tmp_path / "data/pictures")
    run(config("data/pictures"), "pool", in_process=True)
    return tmp_path / "pool"


def test_a_moved_data_folder_goes_on(searched, tmp_path):
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"data/pictures: not a folder of this machine; task\.path is"):
        resume(str(searched), ("budget.trials=2",), in_process=True)
    override = f"task.path={tmp_path / 'elsewhere/pictures'}"
    assert resume(str(searched), ("budget.trials=2", override), in_process=True).done == 2
    assert run(config("elsewhere/pictures", trials=3), str(searched), in_process=True).done == 3


def test_other_data_and_other_settings_are_refused(searched, tmp_path):
    made.folder(tmp_path / "other", seed=1)
    with pytest.raises(PoolError, match="was searched on other data: its hash was"):
        run(config("other", trials=2), str(searched), in_process=True)
    with pytest.raises(PoolError, match=r"of another search: task\.split_seed was 0, is 1"):
        run(config("data/pictures", trials=2, split_seed=1), str(searched), in_process=True)
    assert run(config("data/pictures", trials=2, unused_splits=["x"]), str(searched), in_process=True).done == 2


def test_a_relative_path_is_recorded_absolute(searched, tmp_path, monkeypatch):
    recorded = yaml.safe_load((searched / "run.yaml").read_text())
    assert recorded["config"]["task"]["path"] == str(tmp_path / "data/pictures")
    (tmp_path / "aside").mkdir()
    monkeypatch.chdir(tmp_path / "aside")
    assert resume(str(searched), ("budget.trials=2",), in_process=True).done == 2


def test_a_pool_that_recorded_a_relative_path_goes_on(searched, tmp_path):
    text = (searched / "run.yaml").read_text().replace(str(tmp_path / "data/pictures"), "data/pictures")
    (searched / "run.yaml").write_text(text)
    assert resume(str(searched), ("budget.trials=2",), in_process=True).done == 2


def test_the_manifest_says_what_the_data_are(searched, caplog):
    line = PoolReader.open(searched).manifest["data"]
    assert "32 images train, 4 validate" in line
    assert "bear" in line
    caplog.set_level("INFO")
    resume(str(searched), ("budget.trials=2",), in_process=True)
    assert line in caplog.text


def test_a_moved_table_of_architectures_goes_on(tmp_path):
    (tmp_path / "t.csv").write_text("arch_str,accuracy\n" + "\n".join(f"{text},{n}" for n, text in enumerate(CELLS)))

    def settings(path, trials):
        return RunConfig(
            name="t", space="nas_bench_201", strategy="random_search", budget={"trials": trials},
            evaluator={"name": "tabular", "path": str(path), "valid": "accuracy", "partial": True},
        )  # fmt: skip

    run(settings(tmp_path / "t.csv", 1), str(tmp_path / "pool"), in_process=True)
    os.rename(tmp_path / "t.csv", tmp_path / "u.csv")
    run(settings(tmp_path / "u.csv", 2), str(tmp_path / "pool"), in_process=True)
    (tmp_path / "u.csv").write_text((tmp_path / "u.csv").read_text().replace(",1", ",9"))
    with pytest.raises(PoolError, match="was searched on other data"):
        run(settings(tmp_path / "u.csv", 3), str(tmp_path / "pool"), in_process=True)


CELLS = [
    f"|{op}~0|+|none~0|{op}~1|+|skip_connect~0|none~1|none~2|"
    for op in ("nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
]


def test_a_training_knows_its_data_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, split in enumerate(("train", "test")):
        made.folder(tmp_path / "data" / split, seed=seed)
    what = {**TRAINED, "task": {"name": "image_folder", "path": "data"}}
    row = train(TrainConfig.make("short", what, ("channels=2", "epochs=1")), "out", "cell")
    (tmp_path / "aside").mkdir()
    monkeypatch.chdir(tmp_path / "aside")
    _, scores = evaluate(str(tmp_path / "out" / row["checkpoint"]))
    assert scores.value == row["test_accuracy"]


def test_a_pool_from_before_some_settings_goes_on(tmp_path):
    """Its manifest lacks them, and says nothing of the data in words."""
    made.table(tmp_path / "t.parquet", shape=(3, 8, 8))
    table = {"name": "image_table", "path": str(tmp_path / "t.parquet")}
    first = config("unused").model_copy(update={"task": Component(**table)})
    run(first, str(tmp_path / "pool"), in_process=True)
    manifest = yaml.safe_load((tmp_path / "pool/run.yaml").read_text())
    for name in ("valid_split", "unused_splits", "image_format"):
        del manifest["config"]["task"][name]
    del manifest["data"]
    (tmp_path / "pool/run.yaml").write_text(yaml.safe_dump(manifest))
    assert resume(str(tmp_path / "pool"), ("budget.trials=2",), in_process=True).done == 2


def test_trainings_keep_the_names_they_had():
    """A setting of a task that is new must not make another training of an old one."""

    def name(**task):
        return digest(TrainConfig.make("short", {**TRAINED, "task": task}), "hash")

    assert name(name="image_table", path="a") == "9f981f5b"
    assert name(name="cifar10", path="a") == "718de931"


def test_without_its_training_data_a_checkpoint_is_evaluated_and_it_is_told(tmp_path, caplog):
    data = made.cifar_binary(tmp_path / "cifar")
    (data / "test_batch.bin").write_bytes((data / "data_batch_5.bin").read_bytes())
    settings = ("channels=2", "epochs=1", "recipe.batch=32")
    row = train(
        TrainConfig.make("short_digits", {**TRAINED, "task": {"name": "cifar10", "path": str(data)}}, settings),
        str(tmp_path), "cell",
    )  # fmt: skip
    checkpoint = str(tmp_path / row["checkpoint"])
    (data / "data_batch_2.bin").write_bytes(b"cut off")
    with pytest.raises(DataError, match=r"data_batch_2\.bin"):  # they are there, and others
        evaluate(checkpoint)
    for batch in data.glob("data_batch_*"):
        batch.unlink()
    _, scores = evaluate(checkpoint)
    assert (scores.value, scores.loss) == (row["test_accuracy"], row["test_loss"])
    assert "the data that it was trained on are not there to be compared: " in caplog.text
    (data / "test_batch.bin").unlink()
    caplog.clear()
    with pytest.raises(DataError, match=str(data)):
        evaluate(checkpoint)
    assert not caplog.text
