"""`nao-ray resume POOL --retry-failed [KIND]` as a user types it, and what shows of it."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from nao_ray.cli.app import main
from nao_ray.evaluators.faulty import Faulty
from nao_ray.page.bundle import unpacked

CONFIG = """
name: tiny
seed: 2
space: nao_cnn_small
evaluator: {name: faulty, error_share: 0.3}
strategy: random_search
budget: {trials: 8}
"""
RETRY = ("resume", "pools/tiny", "--in-process", "--retry-failed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(CONFIG)
    with pytest.raises(SystemExit) as left:
        main(["search", str(folder / "tiny.yaml"), "--pool", str(folder / "pool"), "--in-process"])
    assert left.value.code == 0
    return folder / "pool"


@pytest.fixture(autouse=True)
def searched(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    shutil.copytree(finished, "pools/tiny")


def failed():
    return failed_in("pools/tiny")


def failed_in(pool):
    """Ids of failed trials that nobody has asked for again."""
    rows = pd.read_parquet(f"{pool}/trials")
    left = (rows["state"] == "FAILED") & ~rows["trial_id"].isin(rows["retry_of"].dropna())
    return rows.loc[left, "trial_id"].tolist()


def test_a_typo_names_the_kinds_that_are_there(call):
    done = call(*RETRY, "erorr")
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line == f"nao-ray: --retry-failed erorr: no such kind of failure; pools/tiny has error ({len(failed())})"


@pytest.mark.parametrize("words", [(), ("--set", "budget.trials=8"), ("error",)])
def test_what_failed_is_asked_for_again_and_shown(call, words, monkeypatch):
    before = failed()
    num, last = len(before), 8 + len(before) - 1
    monkeypatch.setattr(Faulty, "evaluate", lambda self, proposal: self._evaluator.inner.inner.evaluate(proposal))
    done = call(*RETRY, *words)
    assert done.code == 0, done.err
    assert f"{num} failed trials are asked for again as trials 8 to {last}: error ({num})" in done.err
    assert f"8/{8 + num} done, 0 running, {num} failed" in done.err
    lines = call("pool", "pools/tiny").out.splitlines()
    assert lines[0] == f"pools/tiny: {8 + num} asked, 8 completed, {num} failed"
    head = next(k for k, line in enumerate(lines) if line.startswith("failure"))
    assert lines[head].split("  ")[:4] == ["failure", "trials", "asked again", "completed then"]
    assert lines[head + 2].split()[:4] == ["error", *map(str, [num] * 3)]
    assert "--retry-failed" not in "".join(lines), "nothing is left to ask for again"
    assert (
        f"asked for by the user after trial {before[0]} had failed (error): Runtime"
        in call("pool", "pools/tiny", "show", "8").out
    )
    assert (
        "asked for again by the user as trial 8, which is COMPLETED"
        in call("pool", "pools/tiny", "show", before[0]).out
    )
    (row,) = json.loads(call("pool", "pools/tiny", "show", before[0], "--json").out)
    assert (row["retried_as"], row["retry_of"]) == (8, None)
    report = unpacked(Path("pools/tiny/report.html").read_text())["responses"]["api/pools/0/report"]
    assert report["has_retries"]
    assert sum(row["retried"] for row in report["failures"]) == len(before)
    done = call(*RETRY)
    assert (done.code, done.out) == (0, "")
    assert "pools/tiny: no failed trial is left to ask for again, and the budget is used up" in done.err


def test_the_option_may_come_before_the_pool(call, tmp_path):
    num = len(failed())
    assert call("resume", "--in-process", "--retry-failed", tmp_path / "pools/tiny").code == 0
    assert len(pd.read_parquet("pools/tiny/trials")) == 8 + num


def test_a_pool_whose_name_has_no_slash_is_no_kind(call, monkeypatch):
    monkeypatch.chdir("pools")
    num = len(failed_in("tiny"))
    Path("error").symlink_to("tiny")
    told = call("resume", "--in-process", "--retry-failed", "error")
    assert (told.code, told.err) == (
        2,
        "nao-ray: --retry-failed error: 'error' was taken for a kind of failure, and no word is left for the POOL; "
        "name it, or for a pool of that name give ./error\n",
    )
    told = call("resume", "--retry-failed", "erorr", "--in-process", "tiny")
    assert "--retry-failed erorr: no such kind of failure; tiny has error" in told.err
    assert call("resume", "--retry-failed", "tiny", "--in-process", "--set", "budget.trials=8").code == 0
    again = len(failed_in("tiny"))
    assert len(pd.read_parquet("tiny/trials")) == 8 + num
    assert call("resume", "error", "--retry-failed", "error", "--in-process").code == 0
    assert len(pd.read_parquet("tiny/trials")) == 8 + num + again


def test_what_was_cancelled_comes_back_when_it_is_asked_for_by_its_kind(call, monkeypatch):
    from nao_ray.trial import FailureKind, Trial

    fail = Trial.fail
    with monkeypatch.context() as patch:  # as `nao-ray cancel` records it
        patch.setattr(Trial, "fail", lambda self, _, *of, **more: fail(self, FailureKind.CANCELLED, *of, **more))
        call("resume", "pools/tiny", "--in-process", "--retry-failed")
    before, cancelled = len(pd.read_parquet("pools/tiny/trials")), len(failed())
    assert "--retry-failed cancelled  asks for what was cancelled" in call("pool", "pools/tiny").out
    told = call(*RETRY)
    assert told.code == 0
    assert f"but cancelled ({cancelled}), which --retry-failed cancelled asks for" in told.err
    assert len(pd.read_parquet("pools/tiny/trials")) == before
    assert call(*RETRY, "cancelled").code == 0
    assert len(pd.read_parquet("pools/tiny/trials")) == before + cancelled


def test_a_pool_tells_how_to_ask_again(call):
    out = call("pool", "pools/tiny").out
    assert "asked again" not in out
    assert "nao-ray resume pools/tiny --retry-failed [KIND]  asks for failed trials again" in out
