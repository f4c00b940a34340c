"""What a search says of itself while it runs."""

import io
import logging
from types import SimpleNamespace

import pytest

from nao_ray.cli import progress
from nao_ray.metric import ACCURACY, PERPLEXITY, Metric


def _snapshot(**changes):
    values = {
        "done": 0,
        "running": 2,
        "queued": 0,
        "failed": 0,
        "total": 64,
        "best_score": None,
        "best_trial_id": None,
        "best_rung": 0,
    }
    values["metric"] = ACCURACY
    return SimpleNamespace(**{**values, "eta_seconds": None, "note": "", **changes})


def test_status_lines():
    assert progress.status_line(_snapshot()) == "0/64 done, 2 running, 0 failed"
    starved = _snapshot(running=0, queued=2, eta_seconds=28740.0)
    assert progress.status_line(starved) == "0/64 done, 0 running, 2 waiting for a worker, 0 failed"
    rung = progress.status_line(_snapshot(best_score=0.93214, best_trial_id=7, best_rung=27))
    assert "best 0.9321 (trial 7, 27 epochs)" in rung
    line = progress.status_line(_snapshot(done=12, failed=1, best_score=0.93214, best_trial_id=7, eta_seconds=80))
    assert line == "12/64 done, 2 running, 1 failed, best 0.9321 (trial 7), 1m20s left"
    line = progress.status_line(
        _snapshot(
            total=None, best_score=-80.123, metric=PERPLEXITY, best_trial_id=1, note="cannot write the pool: no space"
        )
    )
    assert line == "0 done, 2 running, 0 failed, best perplexity 80.12 (trial 1), cannot write the pool: no space"
    loss = _snapshot(done=3, best_score=-5.57654, metric=Metric("loss", "nats", "minimize"), best_trial_id=2)
    assert progress.status_line(loss) == "3/64 done, 2 running, 0 failed, best loss 5.5765 nats (trial 2)"


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3s"), (80, "1m20s"), (11100, "3h05m")])
def test_time_left(seconds, text):
    assert progress.format_seconds(seconds) == text


def test_plain_lines_are_few_and_end_with_the_last():
    stream, now = io.StringIO(), [0.0]
    with progress.Progress("digits", stream, clock=lambda: now[0]) as listener:
        for done in range(100):
            now[0] += 1.0
            listener(_snapshot(done=done))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "digits: 0/64 done, 2 running, 0 failed"
    assert lines[-1] == "digits: 99/64 done, 2 running, 0 failed"
    assert 100 / progress.PLAIN_INTERVAL_SECONDS <= len(lines) <= 100 / progress.PLAIN_INTERVAL_SECONDS + 3


def test_the_terminal_gets_a_live_line(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress.Progress("digits", stream) as listener:
        listener(_snapshot(done=12, best_score=0.5, best_trial_id=3))
    assert "12/64 done" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


def test_what_is_logged_is_told_above_the_progress_and_no_longer_than_it():
    stream = io.StringIO()
    before = logging.getLogger("nao_ray").level
    with progress.Progress("s", stream):
        logging.getLogger("nao_ray.service.x").info("12 images [train],\n3 validate")
        logging.getLogger("nao_ray.search").debug("nothing")
    logging.getLogger("nao_ray.service.x").info("later")
    assert stream.getvalue() == "s: 12 images [train], 3 validate\n"
    assert logging.getLogger("nao_ray").level == before
