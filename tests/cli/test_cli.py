"""The commands as a user types them: output, exit codes, one line of error."""

import csv
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import _forks
import pandas as pd
import pytest

from nao_ray import preset_files
from nao_ray.cli import app as cli
from nao_ray.cli import bench as cli_bench
from nao_ray.cli.app import main
from nao_ray.page import frames
from nao_ray.page.bundle import unpacked
from nao_ray.pool import PoolReader, PoolWriter
from nao_ray.service import given
from nao_ray.spaces.base import Genotype
from nao_ray.trial import Measurement, Phase, Trial

NAO = "{name: nao, seeds: 8, round_size: 4, rounds: 1, pretraining: {steps: 20, genotypes: 60}}"
CONFIG = f"""
name: tiny
seed: 1
space: nao_cnn_small
task: synthetic
evaluator: {{name: closed_form, noise: 0.01}}
strategy: {NAO}
budget: {{trials: 12}}
"""
RANDOM = CONFIG.replace(NAO, "random_search")
FAILING = RANDOM.replace("closed_form, noise: 0.01", "faulty, error_share: 1.0").replace("trials: 12", "trials: 3")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished pool, and the config it came from."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(RANDOM)
    with pytest.raises(SystemExit) as left:
        main(["search", str(folder / "tiny.yaml"), "--pool", str(folder / "pool"), "--in-process"])
    assert left.value.code == 0
    return folder / "pool"


@pytest.fixture
def pool(finished, tmp_path):
    """A copy of the finished pool."""
    return shutil.copytree(finished, tmp_path / "copy")


# -- search and resume --------------------------------------------------------------------------------------


def test_search_ends_with_a_table_and_two_paths(call, tmp_path):
    Path("tiny.yaml").write_text(CONFIG)
    done = call("search", "tiny.yaml", "--in-process")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:2] == ["trial_id", "valid_accuracy"]
    assert [line.split() for line in lines[-2:]] == [
        ["pool", "pools/tiny"],
        ["report", str(tmp_path / "pools/tiny/report.html")],
    ]
    assert len(lines) == 2 + 10 + 2
    trials = pd.read_parquet("pools/tiny/trials")
    assert sorted(trials["trial_id"]) == list(range(12))
    assert lines[2].split()[0] == str(trials.sort_values("valid_accuracy")["trial_id"].iloc[-1])
    assert "12/12 done" in done.err
    responses = unpacked(Path("pools/tiny/report.html").read_text())["responses"]
    assert frames.decode(b64decode(responses["api/pools/0/map"]["base64"]))[0]["shown"] > 2


def test_the_same_command_goes_on(call):
    Path("tiny.yaml").write_text(RANDOM)
    assert call("search", "tiny.yaml", "--in-process", "--set", "budget.trials=3").code == 0
    before = pd.read_parquet("pools/tiny/trials")
    assert call("search", "tiny.yaml", "--in-process").code == 0
    after = pd.read_parquet("pools/tiny/trials").sort_values("trial_id")
    assert len(after) == 12
    assert after.head(3)["finished_at"].tolist() == before.sort_values("trial_id")["finished_at"].tolist()


def test_resume_takes_a_new_budget_and_nothing_else(call, pool):
    done = call("resume", pool, "--set", "budget.trials=14", "--in-process")
    assert done.code == 0, done.err
    assert len(pd.read_parquet(pool / "trials")) == 14
    refused = call("resume", pool, "--set", "seed=9", "--in-process")
    assert refused.code == 2
    assert "seed" in refused.err
    assert len(refused.err.splitlines()) == 1


def test_another_search_does_not_touch_the_pool(call, pool):
    Path("other.yaml").write_text(RANDOM.replace("noise: 0.01", "noise: 0.02"))
    refused = call("search", "other.yaml", "--pool", pool, "--in-process")
    assert refused.code == 2
    assert "noise" in refused.err
    assert len(pd.read_parquet(pool / "trials")) == 12


def test_a_search_in_which_every_trial_fails_fails(call):
    Path("bad.yaml").write_text(FAILING)
    done = call("search", "bad.yaml", "--in-process")
    assert done.code == 1
    assert "no trial of pools/tiny was completed; nao-ray pool pools/tiny lists what went wrong" in done.err
    lines = call("pool", "pools/tiny").out.splitlines()
    assert lines[0] == "pools/tiny: 3 asked, 0 completed, 3 failed"
    assert lines[1].split() == ["failure", "trials", "newest", "message"]
    assert lines[3].split()[:3] == ["error", "3", "2"]
    assert "RuntimeError" in lines[3]
    assert lines[4].startswith("nao-ray pool pools/tiny show 2 ")
    assert "RuntimeError" in call("pool", "pools/tiny", "show", "2").out
    (failure,) = json.loads(call("pool", "pools/tiny", "--json").out)["failures"]
    assert (failure["kind"], failure["count"], failure["trial_id"]) == ("error", 3, 2)
    report = unpacked(Path("pools/tiny/report.html").read_text())["responses"]["api/pools/0/report"]
    assert report["best"] == []
    assert len(pd.read_parquet("pools/tiny/trials")) == 3


def test_show_explains_a_failed_trial(call):
    Path("bad.yaml").write_text(FAILING)
    call("search", "bad.yaml", "--in-process")
    shown = call("pool", "pools/tiny", "show", "1")
    assert shown.code == 0
    assert "trial 1, attempt 1: error\nRuntimeError: made to fail (proposal 1)" in shown.out
    assert "Traceback (most recent call last):" in shown.out
    assert "in evaluate\n    raise RuntimeError(" in shown.out
    (row,) = json.loads(call("pool", "pools/tiny", "show", "1", "--json").out)
    assert "Traceback" in row["logs"][0]


def test_trials_used_up_by_trainings_of_shared_weights_are_not_called_hours():
    counts = SimpleNamespace(failed=0, finished=2, running=0)
    text = cli._why_nothing_is_there(SimpleNamespace(url="pools/tiny", counts=lambda: counts))
    assert text.startswith("budget.trials of pools/tiny was used up by the training of shared weights before")


def test_used_up_hours_are_not_called_failures(call):
    Path("short.yaml").write_text(RANDOM.replace("trials: 12", "hours: 0.000000001"))
    done = call("search", "short.yaml", "--in-process")
    assert done.code == 1
    assert "budget.hours of pools/tiny was used up before a trial was completed" in done.err
    assert "went wrong" not in done.err
    assert call("resume", "pools/tiny", "--set", "budget={trials: 2}", "--in-process").code == 0


def test_a_preset_is_found_by_name_and_a_file_comes_first():
    assert preset_files.find_config("digits") == preset_files.PRESETS / "digits.yaml"
    Path("digits").write_text(RANDOM)
    assert preset_files.find_config("digits") == Path("digits")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["search", "nonsense"], "presets: .*digits"),
        (["search", "tiny.yaml", "--set", "budget.trails=3"], "unknown key budget.trails"),
        (["search", "tiny.yaml", "--set", "budget"], "expected section.key=value"),
        (["resume", "nowhere"], "there is no pool at"),
        (["pool", "nowhere"], "there is no pool at"),
        (["report", "nowhere"], "there is no pool at"),
        (["pool", "nowhere", "frobnicate"], "no action 'frobnicate'"),
        (["pool", "nowhere", "show"], "expected the number of a trial, got nothing"),
        (["pool", "nowhere", "best", "3"], "expected nothing further, got 3"),
        (["pool", "nowhere", "--cvs"], "No such option: --cvs"),
        (["bench", "nonsense"], "no measurement is named 'nonsense'"),
        (["describe", "NAONet-B", "--space", "nao_cnn"], "belongs to nao_cnn_small"),
        (["describe", "NAONet-B", "--space", "nonsense"], "no space is named 'nonsense'"),
        (["describe", "NAONet-Z", "--space", "nao_cnn"], "no published architecture 'NAONet-Z'"),
        (["describe", "NAONet-a"], "no published architecture is named 'NAONet-a'; did you mean NAONet-A[?]"),
        (["describe", "naonetB"], "did you mean NAONet-B[?]"),
        (["describe", "nowhere:best"], "there is no pool at nowhere"),
        (["train", "NAONet-a", "--recipe", "short"], "did you mean NAONet-A[?]"),
        (["describe", "0 1 2 3"], "--space is missing"),
        (["describe", "0 1 2 3", "--space", "nao_cnn"], "40 integers, got 4"),
        (["describe", "NAONet-A", "--network", "mnist"], "no network is named 'mnist'"),
        (["describe", "NAONet-A", "--channels", "many"], "--channels"),
        (["describe", "NAONet-A", "--channels", "0"], "--channels"),
        (["describe", "NAONet-A", "--svg", "no/folder/x.svg"], "cannot write"),
        (["describe", "ENAS-micro", "--network", "imagenet"], "enas_micro has no network imagenet"),
        (["describe", "DARTS_V3"], "did you mean DARTS_V[12][?]"),
        (
            ["describe", "Genotype(normal=[])"],
            "space darts_cnn: the genotype has no field 'reduce'",
        ),
        (["describe", "DARTS_V2", "--cells-per-stage", "6"], "unknown key cells_per_stage; known: layers, channels"),
        (["describe"], "GENOTYPE"),
        (["search"], "CONFIG"),
        (["frobnicate"], "No such command"),
        (["--frobnicate"], "No such option"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(call, words, told):
    Path("tiny.yaml").write_text(RANDOM)
    done = call(*words)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("nao-ray: ")
    assert pd.Series([done.err]).str.contains(told).all(), done.err
    assert done.out == ""


def test_debug_shows_the_trace_wherever_it_stands(call):
    for words in (["--debug", "pool", "nowhere"], ["pool", "nowhere", "--debug"]):
        done = call(*words)
        assert done.code == 2
        assert "Traceback" in done.err
        assert done.err.splitlines()[-1].startswith("nao-ray: there is no pool")


def test_an_unexpected_error_is_one_line_too(call, monkeypatch):
    monkeypatch.setattr(given, "find_config", lambda _: 1 / 0)
    done = call("search", "digits")
    assert done.code == 1
    assert done.err == "nao-ray: ZeroDivisionError: division by zero (--debug shows the trace)\n"


# -- pool and report ----------------------------------------------------------------------------------------


def test_pool_summary(call, pool):
    done = call("pool", pool)
    assert f"{pool}: 12 asked, 12 completed, 0 failed" in done.out
    whole = json.loads(call("pool", pool, "--json").out)
    assert (whole["completed"], whole["failures"]) == (12, [])
    assert "failure" not in done.out


def test_pool_best_in_three_forms(call, pool):
    best = PoolReader.open(str(pool)).best(3)
    records = json.loads(call("pool", pool, "best", "-n", "3", "--json").out)
    assert [row["trial_id"] for row in records] == best["trial_id"].tolist()
    assert records[0]["tokens"] == list(best["tokens"].iloc[0])
    assert records[0]["embedding"] is None
    rows = list(csv.DictReader(io.StringIO(call("pool", pool, "best", "-n", "3", "--csv").out)))
    assert [int(row["trial_id"]) for row in rows] == best["trial_id"].tolist()
    assert json.loads(rows[0]["tokens"]) == list(best["tokens"].iloc[0])
    text = call("pool", pool, "best", "-n", "3").out.splitlines()
    assert [int(line.split()[0]) for line in text[2:]] == best["trial_id"].tolist()


def test_pool_show(call, pool):
    done = call("pool", pool, "show", "5")
    assert done.code == 0
    assert done.out.splitlines()[0].split() == ["trial_id", "5"]
    assert "normal cell" in done.out
    assert "out = " in done.out
    assert json.loads(call("pool", pool, "show", "5", "--json").out)[0]["trial_id"] == 5
    assert call("pool", pool, "show", "99").code == 2
    assert call("pool", pool, "show", "first").code == 2


def test_pool_shows_training_of_shared_weights(call, pool):
    opened = PoolWriter.open(str(pool))
    first = opened.log()[0]
    phase = Phase(version="e2", source=None, first_epoch=0, last_epoch=2, genotypes=(first.genotype.key,) * 7)
    proposal = replace(
        first.proposal, phase=phase, genotype=Genotype("nao_cnn_small", "shared weights e2"), trial_id=12
    )
    trained = Trial(proposal=proposal, asked_at=first.asked_at).complete(Measurement(train_loss=1.5), log_index=12)
    with opened.acquire():
        opened.record_finished([trained])
    done = call("pool", pool, "show", "12")
    assert done.code == 0
    said = "trained shared weights e2 from fresh weights: epochs 1 to 2, 7 genotypes, sampling uniform"
    assert done.out.splitlines()[-1] == said
    assert first.genotype.key not in done.out


def test_pool_sql(call, pool):
    done = call("pool", pool, "sql", "select count(*) as n, max(valid_accuracy) as top from trials", "--json")
    assert json.loads(done.out)[0]["n"] == 12
    parts = call("pool", pool, "sql", "select sum(trial_id) as n, sum(macs) as m from trials", "--json")
    assert json.loads(parts.out) == [{"n": 66, "m": None}]
    refused = call("pool", pool, "sql", "select * from nonsense")
    assert refused.code == 2
    assert len(refused.err.splitlines()) == 1


def test_the_type_of_a_column_decides_how_it_reads(call, pool):
    """Mixed with floats alone, integers were printed as floats."""
    whole = "select trial_id, 127266 as params, trial_id as other from trials where trial_id = 10"
    mixed = "select trial_id, 127266 as params, 0.5::double as score, 'nan'::double as none, 127266.0::double as mean"
    names = call("pool", pool, "sql", whole).out.splitlines()
    assert names[2].split() == ["10", "127266", "10"]
    lines = call("pool", pool, "sql", f"{mixed}, 1e-7::double as tiny from trials where trial_id = 10").out.splitlines()
    assert lines[2].split() == ["10", "127266", "0.5000", "-", "127266.0", "1.0e-07"]
    gaps = "select trial_id, source_trial_id, valid_accuracy * 0 + 2 as two from trials where trial_id = 10"
    assert call("pool", pool, "sql", gaps).out.splitlines()[2].split() == ["10", "-", "2.0000"]


@pytest.mark.parametrize("name", ["mine.parquet", "e000009-00000000.parquet"])
def test_a_foreign_table_among_the_parts_is_one_line(call, pool, name):
    """It was a TypeError."""
    pd.DataFrame({"x": [1, 2]}).to_parquet(pool / "trials" / name)
    commands = [("resume", pool, "--in-process"), ("pool", pool), ("report", pool), ("watch", pool, "--once")]
    strange = [("pool", pool, "best"), ("pool", pool, "compact"), ("pool", pool, "sql", "select 1 as one from trials")]
    for command in commands + (strange if name == "mine.parquet" else []):
        done = call(*command)
        assert done.code == 2, command
        assert len(done.err.splitlines()) == 1, done.err
        assert f"{name} is no part of this pool, it is of schema version none" in done.err
    assert call("pool", pool, "check").code == 1
    (pool / "trials" / name).unlink()
    assert call("pool", pool, "check").code == 0


def test_pool_check_and_compact(call, pool):
    assert call("pool", pool, "check").out == f"{pool}: sound\n"
    assert call("pool", pool, "compact").code == 0
    assert len(pd.read_parquet(pool / "trials")) == 12
    part = max((pool / "trials").glob("*.parquet"), key=lambda path: path.stat().st_size)
    shutil.copy(part, part.with_name("9" + part.name[1:]))
    done = call("pool", pool, "check")
    assert done.code == 1
    assert done.out.strip()


def test_report(call, pool, tmp_path):
    done = call("report", pool)
    assert done.out.strip() == str(pool / "report.html")
    assert call("report", pool, "--out", tmp_path / "elsewhere.html").code == 0
    pages = [unpacked(path.read_text()) for path in (pool / "report.html", tmp_path / "elsewhere.html")]
    first, second = (page["responses"]["api/pools/0/report"] for page in pages)
    assert first["film"] == "film.html"
    assert (pool / "film.html").is_file()
    assert second == {**first, "film": None}, "there is no film beside it"
    assert call("report", pool, "--out", tmp_path / "no" / "folder.html").code == 1


def test_film(call, pool, tmp_path):
    assert call("film", pool).out.strip() == str(pool / "film.html")
    page = (pool / "film.html").read_text()
    trials = pd.read_parquet(pool / "trials").sort_values("log_index")
    better = trials["valid_accuracy"].cummax().drop_duplicates()
    (track,) = json.loads(re.search(r'id="film">(.*?)</script>', page)[1])["tracks"]
    assert [frame[0] for frame in track["frames"]] == [
        f"trial {trial}, validation accuracy {score:.4f}"
        for trial, score in zip(trials["trial_id"][better.index], better, strict=True)
    ]
    assert call("film", pool, "--out", tmp_path / "elsewhere.html").out.strip() == str(tmp_path / "elsewhere.html")
    assert (tmp_path / "elsewhere.html").read_text() == page
    refused = call("film", pool, "--out", tmp_path / "no" / "folder.html")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    for part in (pool / "trials").glob("*.parquet"):
        part.unlink()
    empty = call("film", pool)
    assert (empty.code, empty.err.count("\n")) == (2, 1)
    assert "has nothing to film yet: no training has derived a cell, and no trial has a score" in empty.err


def test_pool_and_report_need_no_torch(pool):
    program = (
        "import sys\nfor name in ('torch', 'ray'): sys.modules[name] = None\n"
        "from nao_ray.cli.app import main\npool = sys.argv[1]\n"
        "for words in (['pool', pool], ['pool', pool, 'show', '1'], ['report', pool]):\n"
        "    try: main(words)\n"
        "    except SystemExit as left: assert left.code == 0, words\n"
        "    else: raise AssertionError(words)\n"
    )
    done = _python("-c", program, pool)
    assert done.returncode == 0, done.stderr


# -- bench --------------------------------------------------------------------------------------------------


def test_bench_prints_what_is_wrong_then_fails(call, monkeypatch):
    from nao_ray.bench._result import BenchResult

    result = BenchResult(name="made_up", columns=["a"], rows=[[7]], wrong=["trial 3 is missing", "trial 4 is missing"])
    monkeypatch.setattr(cli_bench, "names", lambda: ["made_up"])
    monkeypatch.setitem(sys.modules, "nao_ray.bench.made_up", SimpleNamespace(run=lambda: result))
    failed = call("bench", "made_up")
    assert failed.code == 1
    assert "| 7 |" in failed.out
    assert "2 things are wrong, see above; the first: trial 3 is missing" in failed.err


def test_a_measurement_that_compares_wants_the_source_tree(call, monkeypatch):
    monkeypatch.delitem(sys.modules, "nao_ray.bench.chaos", raising=False)
    monkeypatch.setitem(sys.modules, "benchmarks", None)  # as where nao_ray is installed
    for name in [name for name in sys.modules if name.startswith("benchmarks.")]:
        monkeypatch.delitem(sys.modules, name)
    refused = call("bench", "chaos")
    assert refused.code == 2
    assert "run it from the source tree" in refused.err


def test_bench_takes_settings(call, monkeypatch):
    from nao_ray.bench._result import BenchResult

    def run(size: int = 1, names: tuple[str, ...] = ()) -> BenchResult:
        return BenchResult(name="made_up", columns=["size", "names"], rows=[[size, len(names)]], notes=["n = 1"])

    monkeypatch.setattr(cli_bench, "names", lambda: ["made_up"])
    monkeypatch.setitem(sys.modules, "nao_ray.bench.made_up", SimpleNamespace(run=run))
    assert "| 7    | 2     |" in call("bench", "made_up", "size=7", "names=[a, b]").out
    assert json.loads(call("bench", "made_up", "--json").out)["rows"] == [{"size": 1, "names": 0}]
    for wrong in ("size", "sise=3", "size=["):
        refused = call("bench", "made_up", wrong)
        assert refused.code == 2
        assert "bench made_up" in refused.err


# -- as a program -------------------------------------------------------------------------------------------


def _python(*words, **options):
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, timeout=600, **options
    )


def _forked(*words):
    return _forks.run([sys.executable, *words], capture_output=True, text=True, timeout=600)


def test_help_is_quick():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = _python("-m", "nao_ray", "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    for command in ("search", "resume", "describe", "pool", "report", "bench"):
        assert f"\n  {command} " in done.stdout


def test_no_command_shows_help_and_is_a_mistake():
    done = _python("-m", "nao_ray")
    assert done.returncode == 2
    assert "Commands:" in done.stdout + done.stderr


def test_a_closed_pipe_is_no_error(pool):
    program = f"{sys.executable} -m nao_ray pool {pool} sql 'select * from range(200000)' --csv | head -n 1"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.startswith("range")
    assert done.stderr == ""


def test_interrupted_before_there_is_a_pool(call, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("nao_ray.service.hosting.checks.make_manifest", lambda *_, **__: interrupted(_))
    Path("tiny.yaml").write_text(RANDOM)
    done = call("search", "tiny.yaml", "--in-process")
    assert done.code == 130
    assert done.err == "nao-ray: interrupted before the search began\n"


def test_interrupted_is_130_and_resumable(tmp_path):
    slow = RANDOM.replace("noise: 0.01", "sleep_seconds: 0.3").replace("trials: 12", "trials: 40")
    (tmp_path / "slow.yaml").write_text(slow)
    command = [sys.executable, "-m", "nao_ray", "search", "slow.yaml", "--in-process"]
    process = _forks.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    while len(list((tmp_path / "pools/tiny/trials").glob("*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "nao-ray: interrupted; nao-ray resume pools/tiny goes on"
    done = _forked("-m", "nao_ray", "resume", "pools/tiny", "--in-process", "--set", "budget.trials=5")
    assert done.returncode == 0, done.stderr
    assert len(pd.read_parquet("pools/tiny/trials")) >= 5
