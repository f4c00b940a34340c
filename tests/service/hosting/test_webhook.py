"""Alerts: each once, about what is so, to whoever listens; a search goes on without."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, LoggerError
from nao_ray.loggers import webhook
from nao_ray.loggers.base import Search
from nao_ray.loggers.webhook import Webhook, WebhookConfig
from nao_ray.service.hosting import follower
from nao_ray.service.hosting.run import run

CONFIG = """
name: alerted
space: nao_cnn_small
evaluator: {name: faulty, error_share: 0.0}
strategy: random_search
budget: {trials: 12}
"""


@pytest.fixture
def listener():
    """A server on loopback; `said` is what it was sent, `status` what it answers."""
    listens = SimpleNamespace(said=[], status=200)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            listens.said.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(listens.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    listens.url = f"http://127.0.0.1:{server.server_port}/hook-secret"
    yield listens
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def alerts(listener, tmp_path):
    """A webhook at a clock that the test sets: `clock.now`, seconds."""
    clock = SimpleNamespace(now=0.0)
    search = Search(name="mine", id="1", pool_url=str(tmp_path), config={})
    made = Webhook(WebhookConfig(url=listener.url, free_share=1e-9), search, lambda: clock.now)
    made.open()
    return SimpleNamespace(webhook=made, clock=clock)


def trial(log_index, *, failed=0, ago=0.0):
    at = datetime.now(UTC) + timedelta(seconds=1 - ago)
    told = {"log_index": log_index, "trial_id": log_index, "score": 0.5, "is_best": not failed, "failed": failed}
    return told | {"finished_at": at}


def kinds(listener):
    return [said["alert"] for said in listener.said]


def test_no_progress_is_told_once_until_there_was_some(alerts, listener):
    for hours in (0.5, 1.1, 1.2, 5.0):
        alerts.clock.now = hours * 3600
        alerts.webhook.look()
    assert kinds(listener) == ["no_progress"]
    assert listener.said[0] == {
        "text": "mine: no trial has ended for 1.1 hours",
        "alert": "no_progress",
        "search": "mine",
        "pool": alerts.webhook.search.pool_url,
    }
    alerts.webhook.log_trials([trial(0)])
    alerts.webhook.look()
    alerts.clock.now += 3700
    alerts.webhook.look()
    assert kinds(listener) == ["no_progress", "no_progress"]


def test_most_trials_failing_is_told_and_those_of_before_are_not_counted(alerts, listener):
    alerts.webhook.log_trials([trial(k, failed=1, ago=7200) for k in range(20)])
    alerts.webhook.look()
    assert kinds(listener) == []
    alerts.webhook.log_trials([trial(20 + k, failed=k % 2) for k in range(10)])
    alerts.webhook.look()
    alerts.webhook.look()
    assert [said["text"] for said in listener.said] == ["mine: 5 of the last 10 trials failed"]


def test_a_disk_that_is_nearly_full_is_told(alerts, listener, monkeypatch):
    usage = SimpleNamespace(free=2**30, total=100 * 2**30)
    monkeypatch.setattr(webhook.shutil, "disk_usage", lambda _: usage)
    alerts.webhook.config = WebhookConfig(url=listener.url)
    alerts.webhook.look()
    assert [said["text"] for said in listener.said] == ["mine: the disk of its pool has 1.0 GiB left"]


def test_what_could_not_be_sent_is_tried_again_and_the_address_is_not_told(alerts, listener):
    listener.status = 500
    alerts.clock.now = 3700
    with pytest.raises(LoggerError, match="no_progress could not be sent") as refused:
        alerts.webhook.look()
    assert "secret" not in str(refused.value)
    listener.status = 200
    alerts.webhook.look()
    assert kinds(listener) == ["no_progress", "no_progress"]


def test_a_search_tells_its_end(listener, tmp_path, monkeypatch):
    monkeypatch.setattr(follower, "_EVERY", 0.05)
    monkeypatch.setenv("NAO_RAY_WEBHOOK", listener.url)
    config = RunConfig.parse(CONFIG, ("loggers=[{name: webhook, free_share: 1e-9}]",))
    run(config, str(tmp_path / "pool"), in_process=True)
    (said,) = listener.said
    assert said["alert"] == "finished"
    assert said["text"].startswith("alerted: done; 12 trials, best score 0.")
    with pytest.raises(KeyboardInterrupt):
        run(config, str(tmp_path / "other"), in_process=True, stop=lambda: True)
    assert listener.said[-1]["alert"] == "stopped"


def test_an_address_of_something_else_and_none_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"url.*expected http://"):
        RunConfig.parse(CONFIG, ("loggers=[{name: webhook, url: 'ftp://x'}]",))
    with pytest.raises(ConfigError, match=r"no url, and no NAO_RAY_WEBHOOK="):
        run(RunConfig.parse(CONFIG, ("loggers=[webhook]",)), str(tmp_path / "pool"), in_process=True)
    assert not (tmp_path / "pool").exists()
