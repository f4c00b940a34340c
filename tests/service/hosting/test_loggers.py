"""TensorBoard and MLflow are told of each trial once, whatever happens to the driver, to them, or to the pool."""

import logging
import sys
from importlib import util as importlib_util
from pathlib import Path

import pandas as pd
import pytest
import yaml

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, LoggerError
from nao_ray.loggers.base import Logger, Position, Search, fit_numbers
from nao_ray.loggers.tensorboard import TensorBoard
from nao_ray.pool import PoolReader, PoolWriter
from nao_ray.service.hosting import follower
from nao_ray.service.hosting.follower import Follower
from nao_ray.service.hosting.run import resume, run

CONFIG = """
name: logged
space: nao_cnn_small
task: synthetic
evaluator: {name: faulty, noise: 0.02, error_share: 0.2}
strategy: {name: nao, seeds: 8, round_size: 4, rounds: 2, pretraining: {genotypes: 50, steps: 5}}
budget: {trials: 12}
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(follower, "_EVERY", 0.05)


def config(*overrides):
    return RunConfig.parse(CONFIG, overrides)


def truth(pool):
    return pd.read_parquet(Path(pool) / "trials").sort_values("log_index").set_index("log_index")


# -- TensorBoard ----------------------------------------------------------------------------------------------


def scalars(folder):
    """Tag -> list of (step, value, wall time), over all event files."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    found: dict[str, list] = {}
    for path in sorted(Path(folder).glob("events.out.tfevents.*")):
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value, event.wall_time))
    return found


def test_tensorboard_has_each_trial_and_fit_once_also_after_a_resume(tmp_path):
    pool = tmp_path / "p"
    run(config("budget.trials=7", "loggers=[tensorboard]"), str(pool), in_process=True)
    assert len(scalars(pool / "tensorboard")["trial/failed"]) == 7
    resume(str(pool), ("budget.trials=16",), in_process=True)
    resume(str(pool), ("budget.trials=16",), in_process=True)
    found, rows = scalars(pool / "tensorboard"), truth(pool)
    assert len(rows) == 16
    assert [step for step, _, _ in found["trial/failed"]] == list(range(16))
    done = rows[rows["state"] == "COMPLETED"]
    assert 0 < len(done) < 16
    assert [step for step, _, _ in found["trial/score"]] == done.index.tolist()
    assert [value for _, value, _ in found["trial/score"]] == pytest.approx(done["valid_accuracy"].tolist())
    assert [at for _, _, at in found["trial/score"]] == pytest.approx([t.timestamp() for t in done["finished_at"]])
    best = rows["valid_accuracy"].cummax().ffill().dropna()  # of failed trials: the best before
    assert [value for _, value, _ in found["trial/best_score"]] == pytest.approx(best.tolist())
    fits = PoolReader.open(pool).fits()
    assert [step for step, _, _ in found["fit/cpu_seconds"]] == fits["round"][fits["cpu_seconds"].notna()].tolist()


def test_a_record_that_was_cut_off_is_written_again(tmp_path):
    pool = tmp_path / "p"
    run(config("loggers=[tensorboard]"), str(pool), in_process=True)
    (path,) = (pool / "tensorboard").glob("events.*")
    steps = {step for step, _, _ in scalars(pool / "tensorboard")["trial/failed"]}
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    left = [step for step, _, _ in scalars(pool / "tensorboard")["trial/failed"]]
    assert 0 < len(left) < len(steps)
    resume(str(pool), in_process=True)
    assert [step for step, _, _ in scalars(pool / "tensorboard")["trial/failed"]] == list(range(12))


def test_a_logger_that_comes_later_is_told_what_was_before(tmp_path):
    pool = tmp_path / "p"
    run(config("budget.trials=5"), str(pool), in_process=True)
    logs = tmp_path / "logs"
    resume(str(pool), ("budget.trials=6", f"loggers=[{{name: tensorboard, path: {logs}}}]"), in_process=True)
    (folder,) = logs.glob("logged-*")
    assert [step for step, _, _ in scalars(folder)["trial/failed"]] == list(range(6))
    assert "loggers" not in yaml.safe_load((pool / "run.yaml").read_text())["config"]


def test_two_searches_of_one_name_do_not_mix(tmp_path):
    config = TensorBoard.Config(path=str(tmp_path))
    for search_id in ("logged 1", "logged 2"):
        logger = TensorBoard(config, Search(name="logged", id=search_id, pool_url="s3://b/p", config={}))
        assert logger.open() == Position()
        row = {"log_index": 3, "finished_at": None, "score": 0.5, "best_score": 0.5, "is_best": True, "failed": 0}
        logger.log_trials([row])
        logger.close()
    again = TensorBoard(config, Search(name="logged", id="logged 1", pool_url="s3://b/p", config={}))
    assert again.open() == Position(log_index=3)
    again.close()
    assert len(list(tmp_path.glob("logged-????????"))) == 2


def test_a_pool_elsewhere_needs_a_path(tmp_path):
    with pytest.raises(ConfigError, match=r"tensorboard needs a path, a local folder: the pool is at memory://x"):
        run(config("loggers=[tensorboard]"), "memory://x", in_process=True)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LoggerError, match=r"tensorboard: cannot write .*file/logged-[0-9a-f]{8}: Not a directory"):
        run(config(f"loggers=[{{name: tensorboard, path: {tmp_path}/file}}]"), str(tmp_path / "p"), in_process=True)


# -- MLflow ---------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the whole mlflow has databases, the light one files
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return f"file://{tmp_path}/store"


@pytest.mark.filterwarnings("ignore::Warning")
def test_mlflow_has_one_run_with_each_trial_once_also_after_a_resume(tmp_path, store):
    from mlflow import MlflowClient

    pool = tmp_path / "p"
    logger = f"loggers=[{{name: mlflow, tracking_uri: '{store}', experiment: cells}}]"
    run(config("budget.trials=7", logger), str(pool), in_process=True)
    resume(str(pool), ("budget.trials=16",), in_process=True)
    client = MlflowClient(store)
    (found,) = client.search_runs([client.get_experiment_by_name("cells").experiment_id])
    rows = truth(pool)

    def history(name):
        return sorted((item.step, item.value) for item in client.get_metric_history(found.info.run_id, name))

    assert [step for step, _ in history("trial/failed")] == list(range(16))
    done = rows[rows["state"] == "COMPLETED"]
    assert history("trial/score") == list(zip(done.index, done["valid_accuracy"], strict=True))
    assert len(history("fit/cpu_seconds")) == PoolReader.open(pool).fits()["cpu_seconds"].notna().sum() > 0
    assert (found.info.run_name, found.info.status) == ("logged", "FINISHED")
    assert found.data.params["evaluator.noise"] == "0.02"
    best = rows.loc[rows["valid_accuracy"].idxmax()]
    assert found.data.tags["nao_ray.best"] == f"trial {best['trial_id']}: {best['genotype']}"


@pytest.mark.filterwarnings("ignore::Warning")
def test_a_tracking_server_that_is_down_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    logger = "loggers=[{name: mlflow, tracking_uri: 'http://127.0.0.1:9'}]"
    with pytest.raises(LoggerError, match=r"^mlflow: cannot log to http://127\.0\.0\.1:9: "):
        run(config(logger), str(tmp_path / "p"), in_process=True)


@pytest.mark.filterwarnings("ignore::Warning")
def test_a_password_in_the_address_of_a_tracking_server_is_not_told(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9/")
    with pytest.raises(LoggerError, match=r"^mlflow: cannot log to http://\*\*\*@127\.0\.0\.1:9: ") as told:
        run(config("loggers=[mlflow]"), str(tmp_path / "p"), in_process=True)
    assert "hunter2" not in str(told.value)


# -- refusals and failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_refused_before_anything_starts(tmp_path, monkeypatch, name):
    real = importlib_util.find_spec
    monkeypatch.setattr(importlib_util, "find_spec", lambda which, *rest: None if which == name else real(which, *rest))
    with pytest.raises(ConfigError, match=rf"{name} is not installed: pip install 'nao-ray\[{name}\]'"):
        run(config(f"loggers=[{name}]"), str(tmp_path / "p"), in_process=True)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("loggers=[wandb]", "no logger is named 'wandb'"),
        ("loggers=[{name: tensorboard, folder: x}]", "unknown key logger.folder"),
        ("loggers=tensorboard", "loggers"),
    ],
)
def test_settings_are_checked(override, says):
    with pytest.raises(ConfigError, match=says):
        config(override)


class Flaky(Logger):
    """Forgets nothing, and cannot be reached at first."""

    package = "json"

    def __init__(self, pool):
        super().__init__(Logger.Config(), Search(name="t", id="t", pool_url=str(pool), config={}))
        self.indices, self.closed, self.broken = [], False, 2

    def open(self):
        return Position(log_index=self.indices[-1] if self.indices else -1)

    def log_trials(self, rows):
        self.indices.append(rows[0]["log_index"])
        self.broken -= 1
        if self.broken >= 0:
            raise LoggerError("flaky: gone")
        self.indices += [row["log_index"] for row in rows[1:]]

    def log_fits(self, rows):
        pass

    def close(self):
        self.closed = True


def test_a_logger_that_fails_is_told_later_what_it_missed(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(follower, "_PAUSE", 0.1)
    pool = tmp_path / "p"
    run(config(), str(pool), in_process=True)
    logger = Flaky(pool)
    with caplog.at_level(logging.WARNING):
        following = Follower(str(pool), logger)
        for _ in range(200):
            if len(logger.indices) >= 12:
                break
            following._thread.join(0.05)
        following.close()
    assert logger.indices == list(range(12))
    assert logger.closed
    assert [record.getMessage() for record in caplog.records] == [
        "flaky: gone; the search goes on, what is missing will be logged later"
    ]


def test_a_compaction_logs_nothing_twice(tmp_path):
    pool = tmp_path / "p"
    run(config(), str(pool), in_process=True)
    logger = Flaky(pool)
    logger.broken = 0
    following = Follower(str(pool), logger)
    for _ in range(200):
        if len(logger.indices) >= 12:
            break
        following._thread.join(0.05)
    PoolWriter.open(pool).compact()
    following._thread.join(0.5)
    following.close()
    assert logger.indices == list(range(12))


class Fits(Flaky):
    """Is told of fits; it knows the highest round alone when it is opened again."""

    def __init__(self, pool, told=()):
        super().__init__(pool)
        self.told = list(told)

    def open(self):
        return Position(round=max((round_ for round_, _ in self.told), default=-1))

    def log_fits(self, rows):
        self.told += [(row["round"], row["seed_index"]) for row in rows]


def test_a_slow_trainings_fits_are_logged_although_others_are_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(follower, "_EVERY", 60)
    pool = PoolWriter.create(tmp_path / "p", {"config": {}})

    def tell(*keys):
        pool.record_fits([{"round": round_, "seed_index": index} for round_, index in keys])
        following._step()

    with pool.acquire():
        first = Fits(pool.url)
        following = Follower(pool.url, first)
        tell((1, 0), (2, 0), (3, 0))
        tell((1, 1))
        following.close()
        assert first.told == [(1, 0), (2, 0), (3, 0), (1, 1)]
        again = Fits(pool.url, first.told)
        following = Follower(pool.url, again)
        tell((2, 1))
        following._restart()  # as after a failure
        tell((3, 1), (4, 0))
        following.close()
        assert again.told[4:] == [(2, 1), (3, 1), (4, 0)]


def test_fits_of_trainings_side_by_side_are_logged_apart():
    row = {"round": 2, "skips": 3, "alarm": ""}
    assert fit_numbers(row) == {"round": 2.0, "skips": 3.0}
    assert fit_numbers(row | {"seed_index": 1}) == {"seed_1/round": 2.0, "seed_1/skips": 3.0, "seed_1/seed_index": 1.0}


def test_nothing_is_imported_that_is_not_used():
    import subprocess

    program = "import sys, nao_ray.service.hosting.run\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"tensorboard", "mlflow"} & set(done.stdout.split())
    assert TensorBoard.package == "tensorboard"
