"""Paths that a cluster's machines do not share are refused before a job is handed in; jobs tell how pools stand."""

import json
import re
import shlex
import shutil
import threading
import time
from pathlib import Path

import pytest
from test_jobs import ADDRESS, Client, job, over

from nao_ray import registry
from nao_ray.cli import jobs as command
from nao_ray.cli.app import main
from nao_ray.config import RunConfig, TrainConfig
from nao_ray.errors import PoolError
from nao_ray.pool import PoolReader, PoolWriter, Watch
from nao_ray.service.hosting.manifest import storage_id
from nao_ray.service.hosting.run import run
from nao_ray.service.jobs import client as jobs
from nao_ray.service.jobs.client import describe, describe_training
from nao_ray.service.training.standing import mark_of
from nao_ray.service.training.train import train

TINY = "{name: tiny, space: nao_cnn_small, evaluator: closed_form, strategy: random_search, budget: {trials: 2}}"
HERE, ELSEWHERE = "127.0.0.1", "203.0.113.7"


@pytest.fixture
def submit(call, monkeypatch, tmp_path):
    """`submit(nodes, "tiny.yaml", ...)` -> exit code, stdout, stderr, and the words of the job's command."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)

    def hand_in(nodes, *words):
        client = Client()
        monkeypatch.setattr(jobs, "connect", lambda address: over(client, nodes=lambda: nodes))
        done = call("submit", *words)
        done.variables = client.submitted[0]["runtime_env"]["env_vars"] if client.submitted else None
        done.command = shlex.split(client.submitted[0]["entrypoint"]) if client.submitted else None
        return done

    return hand_in


@pytest.mark.parametrize("words", [(), ("--pool", "pools/x"), ("--pool", "~/x")])
def test_a_relative_pool_is_refused_where_there_are_several_nodes(submit, words):
    done = submit([HERE, ELSEWHERE], "tiny.yaml", *words)
    assert (done.code, done.command) == (2, None)
    assert "is relative to a folder of this machine, and the cluster has 2 nodes: give a path" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_pool_that_all_may_see_is_taken_and_any_where_there_is_one_node(submit, tmp_path):
    assert submit([HERE, ELSEWHERE], "tiny.yaml", "--pool", tmp_path / "x").code == 0
    assert submit([HERE, ELSEWHERE], "tiny.yaml", "--pool", "s3://bucket/x").code == 0
    done = submit([ELSEWHERE], "tiny.yaml", "--pool", "x")
    assert done.command[done.command.index("--pool") + 1] == str(tmp_path / "x")


def test_nothing_is_left_beside_the_pool_of_a_search_that_was_not_handed_in(call, monkeypatch, tmp_path):
    client = Client()
    client.errors = [RuntimeError("Request failed with status code 500: no")]
    monkeypatch.setattr(jobs, "connect", lambda address: over(client, nodes=lambda: [HERE, ELSEWHERE]))
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "pools").mkdir()
    assert call("submit", tmp_path / "tiny.yaml", "--pool", tmp_path / "pools" / "x").code == 2
    assert not list((tmp_path / "pools").iterdir())


def test_a_path_of_this_machine_alone_is_refused_by_the_job_before_anything_is_made(submit, call, tmp_path):
    """Formerly a pool was made there, under the path of a folder here."""
    (tmp_path / "pools").mkdir()
    done = submit([HERE, ELSEWHERE], "tiny.yaml", "--pool", tmp_path / "pools/deep/x", "--no-follow")
    assert done.code == 0, done.err
    mark = Path(done.command[done.command.index("--marked-by") + 1])
    assert mark.exists()
    assert mark.parent == tmp_path / "pools"
    there = ("search", *done.command[4:], "--in-process")
    (tmp_path / "pools").rename(tmp_path / "mine")
    (tmp_path / "pools").mkdir()  # the cluster's
    for what in ("is not the folder that this search was handed in with", "is not there"):
        told = call(*there)
        assert told.code == 2
        assert f"{tmp_path}/pools on " in told.err
        assert f"{what}; give --pool on storage that all machines see, as a URL, or, if" in told.err
        assert not list((tmp_path / "mine").glob("deep"))
        shutil.rmtree(tmp_path / "pools", ignore_errors=True)
    (tmp_path / "mine").rename(tmp_path / "pools")  # shared
    assert call(*there).code == 0
    assert not mark.exists()
    assert len(PoolReader.open(tmp_path / "pools/deep/x").trials()) == 2


def test_what_is_not_here_must_only_be_there_and_a_job_that_is_over_leaves_no_mark(submit, call, tmp_path):
    done = submit([HERE, ELSEWHERE], "tiny.yaml", "--pool", "/no-such-mount/pools/x")
    assert done.command[done.command.index("--marked-by") + 1] == "/no-such-mount"
    assert "/no-such-mount on " in call("search", *done.command[4:], "--in-process").err
    done = submit([HERE, ELSEWHERE], "tiny.yaml", "--pool", tmp_path / "x")
    assert not Path(done.command[done.command.index("--marked-by") + 1]).exists()
    for words in (("--pool", f"file://{tmp_path}/x"), ("--pool", "s3://bucket/x")):
        assert "--marked-by" not in submit([HERE, ELSEWHERE], "tiny.yaml", *words).command
    assert "--marked-by" not in submit([ELSEWHERE], "tiny.yaml", "--pool", tmp_path / "x").command


def test_an_empty_pool_is_no_default(submit, call):
    for done in (submit([HERE], "tiny.yaml", "--pool", ""), call("search", "tiny.yaml", "--pool", " ")):
        assert done.code == 2
        assert "--pool is empty" in done.err
    assert not Path("pools").exists()


TABLE = "task={name: image_table, path: data}"


def test_data_are_looked_for_like_the_pool(submit, tmp_path):
    words = ("tiny.yaml", "--pool", tmp_path / "x", "--set", TABLE)
    assert "task.path data is relative to a folder" in submit([HERE, ELSEWHERE], *words).err
    missing = submit([HERE], *words)
    assert (missing.code, missing.command) == (2, None)
    assert f"task.path {tmp_path}/data is not there" in missing.err
    (tmp_path / "data").mkdir()
    assert submit([HERE], *words).command[-2:] == ["--set", f'task.path="{tmp_path}/data"']
    (tmp_path / "data").rmdir()
    assert submit([ELSEWHERE], *words).code == 0, "what another machine has, its job will say"


def test_a_job_is_told_which_pool_its_user_sees_there(submit, tmp_path):
    run(RunConfig.parse(TINY), str(tmp_path / "p"), in_process=True)
    seen = storage_id(PoolReader.open(tmp_path / "p").manifest)
    assert submit([HERE], "tiny.yaml", "--pool", "p").command[-2:] == ["--made-as", seen]
    assert "--made-as" not in submit([HERE], "tiny.yaml", "--pool", "q").command


def test_a_pool_records_the_command_that_handed_its_search_in(submit, tmp_path, monkeypatch):
    done = submit([HERE], "tiny.yaml", "--pool", "p", "--set", "seed=3", "--detach")
    command = done.variables["NAO_RAY_COMMAND"]
    assert command == f"nao-ray submit tiny.yaml --pool {tmp_path}/p --address {ADDRESS} --set seed=3 --detach"
    monkeypatch.setenv("NAO_RAY_COMMAND", command)
    run(RunConfig.parse(TINY), str(tmp_path / "p"), in_process=True)
    assert Watch(tmp_path / "p").look().command == command


def test_the_job_refuses_another_pool_than_its_user_sees(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)
    done = call("search", "tiny.yaml", "--pool", "p", "--made-as", "f00", "--in-process")
    assert done.code == 2
    assert "p is not on all machines: on " in done.err
    assert not Path("p").exists()


def test_status_tells_how_a_pool_stands_that_can_be_read_from_here(capsys, monkeypatch, tmp_path):
    run(RunConfig.parse(TINY), str(tmp_path / "p"), in_process=True)
    metadata = [describe("tiny-1234", url, detach=False) for url in (str(tmp_path / "p"), "/no/such/pool")]
    client = Client(*(job(f"tiny-1234-{i}", "SUCCEEDED", start=i, metadata=it) for i, it in enumerate(metadata, 1)))
    monkeypatch.setattr(jobs, "connect", lambda address: over(client))
    monkeypatch.setattr(command, "_PATIENCE_SECONDS", 600.0)
    with pytest.raises(SystemExit):
        main(["status", "--json"])
    here, nowhere = json.loads(capsys.readouterr().out)
    assert here["trials"] == "2/2"
    assert here["best"] == f"{PoolReader.open(tmp_path / 'p').best(1)['valid_accuracy'].iloc[0]:.4f}"
    assert (nowhere["trials"], nowhere["best"], nowhere["left"]) == (None, None, None)


def test_status_tells_how_far_a_full_training_is(capsys, monkeypatch, tmp_path):
    task = {"name": "synthetic", "per_class": 20}
    genotype = registry.load("space", "nao_cnn_small")().parse("NAONet-B").key
    what = {"space": {"name": "nao_cnn_small"}, "genotype": genotype, "task": task}
    config = TrainConfig.make("short_digits", what, ("channels=2", "epochs=2", "data=train"))

    def leave(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, str(tmp_path), "cell", listener=leave)
    facts = [describe_training("train-cell", str(tmp_path), mark_of("cell", config))]
    facts.append(describe_training("train-cell", str(tmp_path), mark_of("other", config)))
    client = Client(*(job(f"train-cell-{i}", "RUNNING", start=i, metadata=it) for i, it in enumerate(facts, 1)))
    monkeypatch.setattr(jobs, "connect", lambda address: over(client))
    monkeypatch.setattr(command, "_PATIENCE_SECONDS", 600.0)
    with pytest.raises(SystemExit):
        main(["status", "--json"])
    known, unknown = json.loads(capsys.readouterr().out)
    assert (known["epochs"], known["trials"], known["pool"]) == ("1/2", None, str(tmp_path))
    assert 0 <= float(known["best"]) <= 1
    assert known["left"].endswith("s")
    assert (unknown["epochs"], unknown["best"], unknown["left"]) == (None, None, None)


def test_status_does_not_wait_for_a_pool_that_gives_no_answer(capsys, monkeypatch):
    """It waited for the storage's own retries."""
    silent = threading.Event()
    metadata = describe("a", "s3://gone/pool", detach=False)
    client = Client(job("a-1", "RUNNING", start=1, metadata=metadata))
    monkeypatch.setattr(jobs, "connect", lambda address: over(client))
    monkeypatch.setattr(command, "_progress", lambda view: silent.wait() and {})
    monkeypatch.setattr(command, "_PATIENCE_SECONDS", 0.01)
    with pytest.raises(SystemExit) as left:
        main(["status", "--json"])
    silent.set()
    assert left.value.code == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["job"], row["trials"], row["best"], row["left"]) == ("a-1", None, None, None)


def test_a_configs_name_finds_its_newest_job():
    client = Client(job("a-1f-1", "FAILED"), job("a-2e-1", "RUNNING", start=2), job("b-3d-1", "RUNNING", start=3))
    assert over(client).find("a").job_id == "a-2e-1"
    assert over(client).find("a-1f").job_id == "a-1f-1"


def test_who_waits_for_a_pool_says_at_once_for_whom_and_until_when(tmp_path, caplog):
    run(RunConfig.parse(TINY), str(tmp_path / "p"), in_process=True)
    first, second = PoolWriter.open(tmp_path / "p"), PoolWriter.open(tmp_path / "p")
    with first.acquire() as lease:
        waiting = threading.Thread(target=lambda: second.acquire(wait=600).release())
        waiting.start()
        end = time.monotonic() + 600
        while not caplog.messages and time.monotonic() < end:
            time.sleep(0.05)
        lease.release()
        waiting.join(600)
    assert not waiting.is_alive()
    assert len(caplog.messages) == 1, "once"
    assert "has a driver: pid" in caplog.messages[0]
    assert "; waiting for that until " in caplog.messages[0]
    with first.acquire(), pytest.raises(PoolError, match="has a driver"):
        second.acquire()


TRAINING = ("--recipe", "short_digits", "--task", "synthetic")


def test_a_full_training_is_handed_in_as_it_would_be_typed_over_there(submit, tmp_path):
    Path("mine.yaml").write_text("{name: short_digits, batch: 32}")
    words = ("NAONet-B", "--recipe", "mine.yaml", "--task", "digits", "--set", "epochs=3", "--set", "channels=2")
    done = submit([HERE], "--train", "--", *words, "--workers", "2..4", "--gpus", "0.5", "--out", "there")
    assert done.code == 0, done.err
    assert done.command == [
        *("python", "-m", "nao_ray", "train", "NAONet-B", "--recipe", "recipe.yaml", "--task", "digits"),
        *("--out", str(tmp_path / "there"), "--workers", "2..4", "--gpus", "0.5"),
        *("--set", "epochs=3", "--set", "channels=2"),
    ]
    assert re.search(r"^job     train-NAONet-B-[0-9a-f]{8}-1 at ", done.out)
    assert f"folder  {tmp_path}/there\ncarries nao_ray " in done.out
    assert " and recipe.yaml, " in done.out


def test_a_full_training_that_does_not_say_by_how_many_is_not_the_heads(submit, tmp_path):
    done = submit([HERE], "--train", "--installed", "--", "NAONet-B", *TRAINING)
    assert done.command[-4:] == ["--out", str(tmp_path / "trained"), "--workers", "1"]
    assert "carries training.json, " in done.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--train", "--", "NAONet-B"), "Missing option .*--recipe"),
        (("--train", "--", "NAONet-B", *TRAINING, "--workers", "0"), "expected a number of workers"),
        (("--train", "--", "NAONet-Z", *TRAINING), "did you mean NAONet-"),
        (("--train", "--pool", "x", "--", "NAONet-B", *TRAINING), "--pool is a search's"),
        (("tiny.yaml", "NAONet-B"), "one CONFIG is handed in, and there is NAONet-B too"),
        (("--train", "--", "NAONet-B", *TRAINING, "--out", "there"), "is relative to a folder of this machine"),
    ],
)
def test_a_training_that_is_none_never_reaches_the_cluster(submit, words, told):
    done = submit([HERE, ELSEWHERE], *words)
    assert (done.code, done.command) == (2, None)
    assert re.search(told, done.err), done.err
    assert len(done.err.splitlines()) == 1
