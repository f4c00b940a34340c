"""`nao-ray watch` as a user sees it."""

import io
import json
import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import _forks
import pandas as pd
import pytest
from rich.console import Console

from nao_ray._pool.view import Driver, Finished, View
from nao_ray.cli import watch as cli_watch
from nao_ray.cli.app import main
from nao_ray.metric import ACCURACY
from nao_ray.pool import PoolReader

BEST = Finished(
    trial_id=7, state="COMPLETED", score=0.95, genotype="0 1 2", round=1, num_params=1234, weights_version=None,
    epochs=27, wall_seconds=3.0, node="gpu-1", failure_kind=None, failure_message=None, finished_at=1000.0,
)  # fmt: skip
VIEW = View(
    pool="s3://bucket/pool", name="digits", strategy="nao", space="nao_cnn", task="digits", budget_trials=64,
    completed=30, failed=2, running=2, waiting=1, failures={"nan": 2}, metric=ACCURACY, best=BEST, last=(BEST,),
    trend=(0.1, 0.5, 0.8), trials_per_hour=120.0, busy_share=0.93, workers=2, eta_seconds=960.0, has_ended=True,
    driver=Driver(state="alive", host="head", pid=41, epoch=2, silent_seconds=4.0),
)  # fmt: skip


def shown(view, width=100):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(cli_watch.render(view, 1090.0))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_view_says_it_all_in_any_width(width):
    text = " ".join(re.sub(r"[│─╭╮╰╯━╸]", " ", shown(VIEW, width)).split())
    words = ("digits", "32 of 64 trials", "16m00s left", "30 done", "2 running", "1 waiting", "2 failed", "0.9500")
    words += ("trial 7", "● alive", "pid 41 on head", "1m30s ago", "▁▅█", "s3://bucket/pool", "93% busy")
    for word in words:
        assert word in text, word
    assert max(map(len, shown(VIEW, width).splitlines())) <= min(width, 110)


def test_a_driver_that_is_gone_is_told_with_what_to_do():
    gone = replace(VIEW, running=0, driver=replace(VIEW.driver, state="stale", silent_seconds=4000.0))
    assert "stale" in shown(gone)
    assert "last heard 1h06m ago; nao-ray resume s3://bucket/pool goes on" in " ".join(shown(gone, 110).split())
    of_a_job = replace(gone, command="nao-ray submit digits --pool s3://bucket/pool")
    assert "nao-ray submit digits --pool s3://bucket/pool goes on" in " ".join(
        re.sub("│", "", shown(of_a_job, 110)).split()
    )
    left = replace(VIEW, running=0, driver=replace(VIEW.driver, state="none"))
    assert "nao-ray resume s3://bucket/pool goes on" in " ".join(shown(left, 110).split())
    for completed in (62, 40):  # as budgeted; fewer, for the strategy was done
        assert "resume" not in shown(replace(left, completed=completed, waiting=0))


def test_a_pool_cannot_write_to_the_terminal():
    bad = replace(BEST, trial_id=8, score=None, failure_kind="error", failure_message="\x1b[2J[red]no[/red]\nline")
    text = shown(replace(VIEW, last=(bad,)), 110)
    assert "\x1b" not in text
    assert "[red]no[/red] line" in text


def test_an_empty_pool_has_a_view():
    empty = replace(
        VIEW, completed=0, failed=0, running=0, waiting=0, failures={}, best=None, last=(), trend=(), name=None,
        trials_per_hour=None, busy_share=None, workers=None, eta_seconds=None, has_ended=False,
        driver=Driver(state="none"),
    )  # fmt: skip
    assert "no driver so far" in shown(empty)


# -- the command ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    config = folder / "tiny.yaml"
    config.write_text(
        "{name: tiny, space: nao_cnn_small, task: synthetic, evaluator: {name: closed_form}, "
        "strategy: random_search, budget: {trials: 4}}"
    )
    with pytest.raises(SystemExit) as left:
        main(["search", str(config), "--pool", str(folder / "pool"), "--in-process"])
    assert left.value.code == 0
    return folder / "pool"


def call(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code, *capsys.readouterr()


def test_a_pipe_gets_one_view(pool, capsys):
    code, out, _ = call(capsys, "watch", pool)
    assert code == 0
    assert "4 of 4 trials" in out
    assert "\x1b" not in out


def test_json_is_one_object(pool, capsys):
    code, out, _ = call(capsys, "watch", pool, "--once", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["finished"], found["driver"]["state"], found["best"]["state"]) == (4, "none", "COMPLETED")
    assert len(found["last"]) == 4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nowhere",), r"^nao-ray: there is no pool at nowhere: .*run\.yaml is missing$"),
        (
            ("nowhere", "--json"),
            r"""^{"error": "ConfigError", "message": "watch --json prints .* add --once", "exit_code": 2}$""",
        ),
        (("nowhere", "--every", "0"), r"--every"),
    ],
)
def test_one_line_of_error(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "watch", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(says, err.strip())
    assert list(tmp_path.iterdir()) == []


class Terminal:
    """A terminal with `nao-ray watch` in it."""

    def __init__(self, *words):
        self.handle, inner = pty.openpty()
        env = {**os.environ, "COLUMNS": "100", "LINES": "40", "TERM": "xterm-256color"}
        command = [sys.executable, "-m", "nao_ray", "watch", *map(str, words), "--every", "0.1"]
        self.process = _forks.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=env)
        os.close(inner)
        self.said = b""

    @property
    def text(self):
        """What was said so far; a read may end within a character or an escape sequence."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.said.decode(errors="ignore"))

    def wait_for(self, word, seconds=600.0):
        end = time.monotonic() + seconds
        while word not in self.text:
            assert time.monotonic() < end, self.text
            if select.select([self.handle], [], [], 0.2)[0]:
                try:
                    self.said += os.read(self.handle, 65536)
                except OSError:  # the other end is closed
                    break
        assert word in self.text

    def leave(self):
        return self.process.wait(timeout=600)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.handle)


@pytest.fixture
def terminal():
    opened = []

    def make(*words):
        opened.append(Terminal(*words))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_of_a_search_that_has_ended_it_says_what_shared_scores_are_worth(pool, monkeypatch, capsys):
    audit = {"round": 1, "audited": 8, "audit_tau": 0.5, "audit_tau_low": 0.2, "audit_tau_high": 0.8}
    for of_sizes, said in ((0.3, "tell good from bad"), (0.6, "The shared score is worthless: it ranks no better")):
        fits = pd.DataFrame([{**audit, "audit_tau_params": of_sizes}])
        monkeypatch.setattr(PoolReader, "fits", lambda _pool, fits=fits: fits)
        text = " ".join(call(capsys, "watch", pool)[1].split())
        assert f"n = 8; of the numbers of parameters {of_sizes:.2f}. The shared score" in text
        assert said in text


def test_in_a_terminal_it_waits_shows_follows_and_leaves_with_ctrl_c(pool, tmp_path, terminal):
    place = tmp_path / "pool"
    terminal = terminal(place)
    terminal.wait_for("waiting for it")
    shutil.copytree(pool, tmp_path / "copy")
    (tmp_path / "copy").rename(place)
    terminal.wait_for("4 of 4 trials")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.leave() == 0
    assert "Traceback" not in terminal.text


def test_a_pool_that_vanishes_ends_it_with_one_line(pool, tmp_path, terminal):
    place = shutil.copytree(pool, tmp_path / "pool")
    terminal = terminal(place)
    terminal.wait_for("4 of 4 trials")
    shutil.rmtree(Path(place))
    terminal.wait_for("is gone")
    assert terminal.leave() == 2
    assert "Traceback" not in terminal.text


def test_what_the_driver_says_is_wrong_is_shown_while_it_lives():
    said = "set aside: gpu:2 of n3 for 60 s more: CUDA error"
    assert said not in shown(VIEW)
    assert said in " ".join(shown(replace(VIEW, driver=replace(VIEW.driver, note=said))).split())


def test_of_a_ladder_it_says_the_rung():
    assert "27" not in shown(VIEW)
    text = shown(replace(VIEW, rungs={3: 20, 9: 8, 27: 2}))
    assert "after 27 epochs" in text
    assert "epochs" in text.split("last")[1]
