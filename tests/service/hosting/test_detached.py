"""The watcher and the host of a detached search, without a cluster."""

import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from nao_ray.config import RunConfig
from nao_ray.errors import Drained
from nao_ray.own_modules import OwnModules
from nao_ray.service.code import own_code
from nao_ray.service.hosting import detached
from nao_ray.service.hosting.detached import Look, Outcome, SearchActor, watch
from nao_ray.service.jobs.packing import LEASE_WAIT_SECONDS

CONFIG = "{name: t, space: nao_cnn_small, task: synthetic, evaluator: closed_form, strategy: random_search, "
CONFIG += "budget: {trials: 4}}"


def test_the_actor_stays_for_a_moment_after_its_outcome_was_seen(monkeypatch, tmp_path):
    now, killed = [0.0], []
    done = Look("l", "c", None, Outcome(0, "done"))
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr(detached, "ray_session", lambda _: nullcontext())
    monkeypatch.setattr(detached, "_host", lambda *_: "actor")
    monkeypatch.setattr(detached, "_look", lambda _: done if now[0] >= 5 else None)
    monkeypatch.setattr(detached, "_kill", lambda actor: killed.append((actor, now[0])))
    clock = SimpleNamespace(sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(detached, "time", clock)
    assert watch(RunConfig.parse(CONFIG), str(tmp_path / "p"), lambda _: None) == "done"
    assert killed == [("actor", 5 + 3 * detached._POLL_SECONDS)]


@pytest.mark.parametrize(("asked", "waits"), [(0.0, LEASE_WAIT_SECONDS), (90.0, 90.0)])
def test_a_search_that_is_made_anew_waits_for_the_lease_of_the_last_one(monkeypatch, asked, waits):
    actor, seen = object.__new__(SearchActor), []
    actor._config, actor._pool_url, actor._wait, actor._stop = CONFIG, "/p", asked, threading.Event()
    actor._made_as, actor._code, actor._modules = "id", own_code(), OwnModules(())
    monkeypatch.setattr(detached, "run", lambda *_, takeover, stop: seen.append(takeover.wait))
    assert actor._run() == Outcome(0, "done")
    assert seen == [waits]


@pytest.mark.parametrize(
    ("end", "how"), [(KeyboardInterrupt, "stopped"), (Drained, "drained: nothing further was begun")]
)
def test_its_watchers_learn_how_it_was_ended(monkeypatch, end, how):
    def ended(*_, **__):
        raise end

    actor = object.__new__(SearchActor)
    actor._config, actor._pool_url, actor._wait, actor._stop = CONFIG, "/p", 0.0, threading.Event()
    actor._made_as, actor._code, actor._modules = "id", own_code(), OwnModules(())
    monkeypatch.setattr(detached, "run", ended)
    assert detached._conclude(actor._run()) == how
