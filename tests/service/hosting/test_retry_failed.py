"""Failed trials that are asked for again, from config to pool in this process."""

import shutil
import sys
from pathlib import Path

import _forks
import pandas as pd
import pytest

from nao_ray.bench.chaos import differences
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, RunError
from nao_ray.evaluators.faulty import Faulty
from nao_ray.evaluators.one_shot import OneShot
from nao_ray.evaluators.standalone import Standalone
from nao_ray.pool import PoolReader, Watch
from nao_ray.service.hosting.run import resume, run
from nao_ray.trial import Measurement, TrialState

CONFIG = """
name: quick
seed: 2
space: nao_cnn_small
task: synthetic
evaluator: {name: faulty, noise: 0.02, error_share: 0.15, nan_share: 0.1}
strategy: {name: regularized_evolution, population: 8, sample: 4}
budget: {trials: 20}
workers: {count: 1}
"""


def config(*overrides):
    return RunConfig.parse(CONFIG, overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pool = tmp_path_factory.mktemp("retry") / "p"
    run(config(), str(pool), in_process=True)
    failed = PoolReader.open(pool).trials(["trial_id", "failure_kind"]).dropna()
    assert len(failed) >= 3
    assert set(failed["failure_kind"]) == {"error", "nan"}
    return pool


@pytest.fixture
def pool(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "p"))


def failed(pool):
    """Ids of failed trials that nobody has asked for again."""
    rows = PoolReader.open(pool).trials()
    left = rows[(rows["state"] == "FAILED") & ~rows["trial_id"].isin(rows["retry_of"].dropna())]
    return left["trial_id"].tolist()


def test_what_failed_becomes_a_trial_of_its_own_and_the_failed_row_stays(pool):
    before, asked = pd.read_parquet(pool / "trials"), failed(pool)
    resume(str(pool), in_process=True, retry_failed="all")
    rows = pd.read_parquet(pool / "trials")
    assert rows["trial_id"].tolist() == list(range(20 + len(asked)))
    pd.testing.assert_frame_equal(rows.head(20), before)
    new, old = rows.tail(len(asked)), before[before["trial_id"].isin(asked)]
    for name in ("genotype", "tokens", "epochs", "channels", "space", "source_trial_id", "round"):
        assert list(map(str, new[name])) == list(map(str, old[name])), name
    assert new["retry_of"].tolist() == asked
    assert not set(new["seed"]) & set(before["seed"])
    assert set(new["state"]) & {"COMPLETED"}
    opened = PoolReader.open(pool)
    assert opened.check() == []
    assert opened.retries() == dict(zip(asked, range(20, 20 + len(asked)), strict=True))
    view = Watch(str(pool)).look()
    assert (view.finished, view.budget_trials) == (20 + len(asked), 20 + len(asked))


def test_the_budget_is_that_of_new_proposals(pool):
    num = len(failed(pool))
    snapshots = []
    resume(str(pool), ("budget.trials=24",), snapshots.append, in_process=True, retry_failed="all")
    rows = PoolReader.open(pool).trials()
    assert len(rows) == 24 + num
    assert rows["retry_of"].isna().sum() == 24
    assert rows["trial_id"][rows["retry_of"].notna()].tolist() == list(range(20, 20 + num))
    assert {snapshot.total for snapshot in snapshots} == {24 + num}
    resume(str(pool), ("budget.trials=26",), in_process=True)
    assert len(PoolReader.open(pool).trials(["trial_id"])) == 26 + num


def test_a_completed_retry_ranks_and_is_learnt_from_like_any_other(pool, monkeypatch):
    evaluate = Faulty.evaluate

    def best_when_retried(self, proposal):
        return Measurement(valid_accuracy=0.9999) if proposal.retry_of is not None else evaluate(self, proposal)

    monkeypatch.setattr(Faulty, "evaluate", best_when_retried)
    num = len(failed(pool))
    resume(str(pool), ("budget.trials=40",), in_process=True, retry_failed="all")
    opened = PoolReader.open(pool)
    assert opened.best(num)["trial_id"].tolist() == list(range(20, 20 + num))
    sources = set(opened.trials()["source_trial_id"].dropna())
    assert sources & set(range(20, 20 + num)), "none of them became a parent"


def test_it_is_asked_for_again_only_by_another_retry_failed(pool, monkeypatch):
    asked = failed(pool)
    with monkeypatch.context() as patch:
        _break(patch, Faulty, lambda _: True)
        resume(str(pool), in_process=True, retry_failed="all")
    again = list(range(20, 20 + len(asked)))
    assert failed(pool) == again, "those that failed once more, and no longer the first ones"
    resume(str(pool), in_process=True)
    assert failed(pool) == again
    resume(str(pool), in_process=True, retry_failed="all")
    rows = PoolReader.open(pool).trials()
    assert rows["retry_of"].dropna().tolist() == [*asked, *again]


def test_a_kind_chooses_and_a_wrong_one_names_those_that_are_there(pool, caplog):
    rows = PoolReader.open(pool).trials().set_index("trial_id")
    with pytest.raises(
        ConfigError, match=r"--retry-failed tiemout: no such kind of failure; .* has \w+ \(\d\), \w+ \(\d\)"
    ):
        resume(str(pool), in_process=True, retry_failed="tiemout")
    assert resume(str(pool), in_process=True, retry_failed="timeout") is None
    assert "no failed trial of kind timeout is left" in caplog.text
    assert len(PoolReader.open(pool).log()) == 20
    resume(str(pool), in_process=True, retry_failed="nan")
    retried = PoolReader.open(pool).trials()["retry_of"].dropna()
    assert retried.tolist() == rows.index[rows["failure_kind"] == "nan"].tolist()


def test_where_nothing_failed_it_goes_on_or_says_so_and_begins_nothing(tmp_path, monkeypatch, caplog):
    pool = tmp_path / "p"
    run(config("evaluator={name: closed_form}", "budget.trials=3"), str(pool), in_process=True)
    with monkeypatch.context() as patch:
        patch.setattr("nao_ray.service.hosting.run.check_search", None)  # not even that
        assert resume(str(pool), in_process=True, retry_failed="all") is None
    assert "no failed trial is left to ask for again, and the budget is used up" in caplog.text
    assert resume(str(pool), ("budget.trials=5",), in_process=True, retry_failed="all").done == 5


def test_used_up_hours_are_not_enough_for_a_retry(pool):
    with pytest.raises(ConfigError, match=r"budget\.hours of .* is used up, and nothing is asked for again: .*--set"):
        resume(str(pool), ("budget.hours=0.0000001",), in_process=True, retry_failed="all")
    assert len(PoolReader.open(pool).log()) == 20


def test_stopped_and_resumed_it_is_the_same_search(pool, tmp_path):
    whole, broken = Path(shutil.copytree(pool, tmp_path / "whole")), pool
    more = ("budget.trials=34",)
    resume(str(whole), more, in_process=True, retry_failed="all")
    for trials in (21, 23, 30):
        with pytest.raises(KeyboardInterrupt):
            _resume_until(broken, trials, more, retry_failed="all" if trials == 21 else None)
    resume(str(broken), more, in_process=True)
    total = len(PoolReader.open(whole).trials(["trial_id"]))
    assert differences(config(f"budget.trials={total}"), broken, whole) == []


def _resume_until(pool, trials, overrides, retry_failed):
    """Interrupted once so many have finished."""

    def listener(snapshot):
        if snapshot.done + snapshot.failed >= trials:
            raise KeyboardInterrupt

    resume(str(pool), overrides, listener, in_process=True, retry_failed=retry_failed)


@pytest.mark.slow
def test_killed_at_any_moment_all_or_none_are_asked_again_and_each_is_there_once(tmp_path):
    """SIGKILL before every eighth change that it makes to files; then a plain resume, then another retry."""
    small, pool = ("evaluator.error_share=0.3",), tmp_path / "p"
    run(config("budget.trials=10", *small), str(pool), in_process=True)
    whole = Path(shutil.copytree(pool, tmp_path / "whole"))
    asked = failed(pool)
    assert len(asked) >= 2
    resume(str(whole), in_process=True, retry_failed="all")
    words = [
        sys.executable,
        str(Path(__file__).parents[2] / "pool" / "_killed.py"),
        str(pool),
        str(tmp_path / "killed"),
    ]
    (tmp_path / "killed").mkdir()
    done = _forks.run([*words, "retry", "8"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    moments = [line.split()[0] for line in done.stdout.splitlines()]
    assert len(moments) > 5, moments
    recorded = []
    for moment in moments:
        killed = tmp_path / "killed" / moment
        ids = pd.read_parquet(killed / "trials")["trial_id"].tolist()
        assert sorted(set(ids)) == sorted(ids)
        recorded.append(len(PoolReader.open(killed).log()) - 10)
        resume(str(killed), in_process=True)
        assert len(pd.read_parquet(killed / "trials")) == 10 + recorded[-1]
        if not recorded[-1]:
            resume(str(killed), in_process=True, retry_failed="all")
        differing = differences(config(f"budget.trials={10 + len(asked)}", *small), killed, whole)
        # what was under way comes after the others
        assert [line for line in differing if not line.endswith(": log_index differ")] == [], moment
    assert set(recorded) == {0, len(asked)}


STANDALONE = """
name: alone
space: nas_bench_201
task: {name: synthetic}
evaluator:
  name: standalone
  cells_per_stage: 1
  channels: 4
  epochs: 1
  recipe: {name: short, crop_padding: 1, flip: false, batch: 24}
strategy: random_search
budget: {trials: 2}
"""


def test_a_network_that_failed_in_training_is_trained_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        _break(patch, Standalone, lambda proposal: proposal.trial_id == 1)
        run(RunConfig.parse(STANDALONE), str(tmp_path / "p"), in_process=True)
    assert failed(tmp_path / "p") == [1]
    resume(str(tmp_path / "p"), in_process=True, retry_failed="error")
    rows = PoolReader.open(tmp_path / "p").trials()
    assert rows["state"].tolist() == ["COMPLETED", "FAILED", "COMPLETED"]
    assert rows["genotype"][2] == rows["genotype"][1]


def _break(patch, evaluator, when):
    evaluate = evaluator.evaluate

    def broken(self, proposal):
        if when(proposal):
            raise RuntimeError("made to fail")
        return evaluate(self, proposal)

    patch.setattr(evaluator, "evaluate", broken)


def test_what_a_table_lacks_fails_again(tmp_path):
    table = tmp_path / "cells.csv"
    cells = [f"|{a}~0|+|{a}~0|{b}~1|+|none~0|{b}~1|{a}~2|" for a in OPS for b in OPS]
    asked = [cells[0], cells[7], "|avg_pool_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"]
    table.write_text("cell,score\n" + "".join(f"{cell},0.{k + 10}\n" for k, cell in enumerate(cells)))
    text = f"""
name: cells
space: nas_bench_201
evaluator:
  {{name: tabular, path: {table}, genotype: cell, valid: score, unit: fraction, twins: distinct, partial: true}}
strategy: {{name: given, genotypes: {asked}}}
budget: {{trials: 3}}
"""
    run(RunConfig.parse(text), str(tmp_path / "p"), in_process=True)
    (missing,) = failed(tmp_path / "p")
    resume(str(tmp_path / "p"), in_process=True, retry_failed="all")
    assert failed(tmp_path / "p") == [3]
    rows = PoolReader.open(tmp_path / "p").trials()
    assert (rows["retry_of"].iloc[3], rows["genotype"].iloc[3]) == (missing, rows["genotype"].iloc[missing])


OPS = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3")

SHARED = """
name: ws
space: nas_bench_201
task: {name: synthetic}
evaluator:
  name: one_shot
  cells_per_stage: 1
  channels: 4
  period: 40
  recipe: {name: paper_shared, crop_padding: 1, flip: false, batch: 24, lr: 0.05}
  alone: {cells_per_stage: 1, channels: 4, epochs: 1, recipe: {name: short, crop_padding: 1, flip: false, batch: 24}}
strategy: {name: shared_random_search, rounds: 1, epochs: 1, paths: 2, scored: 3, finalists: 2, audited: 0}
budget: {trials: 20}
"""


def test_of_a_search_with_shared_weights_what_is_trained_alone_is_tried_again(tmp_path, monkeypatch):
    pool = tmp_path / "p"
    with monkeypatch.context() as patch:
        _break(patch, OneShot, lambda proposal: proposal.trial_id in (2, 4))
        run(RunConfig.parse(SHARED), str(pool), in_process=True)
    rows = PoolReader.open(pool).trials().set_index("trial_id")
    assert failed(pool) == [2, 4]
    assert rows["weights_version"].isna().tolist() == [True, False, False, False, True, True]
    resume(str(pool), in_process=True, retry_failed="all")
    opened = PoolReader.open(pool)
    assert opened.retries() == {4: 6}
    assert set(opened.best(5)["trial_id"]) == {5, 6}
    assert opened.log()[6].state is TrialState.COMPLETED
    with pytest.raises(ConfigError, match=r"all that failed in .*/p, error \(1\), was to be scored with shared"):
        resume(str(pool), in_process=True, retry_failed="all")


def test_retries_that_fail_one_after_the_other_end_the_search_resumable(pool, monkeypatch):
    num = len(failed(pool))
    _break(monkeypatch, Faulty, lambda _: True)
    with pytest.raises(RunError, match="failed"):
        resume(str(pool), ("budget.failures=1",), in_process=True, retry_failed="all")
    log = PoolReader.open(pool).log()
    assert len(log) == 20 + num
