"""A search that outlives the job that started it: the loop in a detached actor, the job's driver a watcher.

The actor is named after config and pool. Ray restarts it wherever there is room (``max_restarts=-1``), and its
constructor goes on from the pool, so a lost actor costs what a lost driver costs. It ends with the search, with
``nao-ray stop``, or with the cluster; the end of the watcher, whatever the cause, does not touch it. Where there is a
choice it stays away from spot nodes, which are taken away, and from the head, so that with a fault-tolerant GCS it
outlives that as well. Wherever it is, it must find the pool that the first watcher has made: a folder of one machine
is refused instead of searched anew.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError

from nao_ray.config import RunConfig, Workers
from nao_ray.errors import ClusterError, ConfigError, Drained, InputError, NaoRayError, PoolError, RunError
from nao_ray.own_modules import OwnModules
from nao_ray.search.snapshot import Snapshot
from nao_ray.service.code import Code, own_code, refuse_other_code
from nao_ray.service.hosting.checks import check_search, take_pool
from nao_ray.service.hosting.cluster import ray_session
from nao_ray.service.hosting.manifest import storage_id
from nao_ray.service.hosting.requests import heed_signals
from nao_ray.service.hosting.run import Listener, Takeover, run
from nao_ray.service.jobs.packing import LEASE_WAIT_SECONDS, job_name, shared_pool

_log = logging.getLogger(__name__)

NAMESPACE = "nao_ray"

_NODE_LABEL = "ray.io/node-id"
_MARKET_LABEL = "ray.io/market-type"
_KEPT_SECONDS = 120.0  # the actor stays so long after the end, for its watcher to see it; the pool says the rest
_START_SECONDS = 300.0  # until an actor must have answered
_ANSWER_SECONDS = 30.0
_END_SECONDS = 60.0  # for a search to end when it is told to
_POLL_SECONDS = 1.0
_SEEN_POLLS = 3  # between the first look at the outcome and the actor's end, for other watchers to see it too


class Outcome(NamedTuple):
    """How a search has ended."""

    code: int
    """The exit code: 0 done, 1 failed, 2 the input is at fault, 130 stopped or drained."""
    message: str
    """What went wrong; where nothing did, how it ended, in a word or a few."""


class Look(NamedTuple):
    """What a watcher sees."""

    launch: str
    """Drawn by whoever made the actor."""
    config: str
    snapshot: Snapshot | None
    outcome: Outcome | None


class SearchActor:
    """The loop, in a thread of its own; made anew, it goes on from the pool."""

    def __init__(
        self, launch: str, config: str, pool_url: str, wait: float, made_as: str, code: Code, modules: OwnModules
    ) -> None:
        self._launch, self._config, self._pool_url, self._wait = launch, config, pool_url, wait
        self._made_as, self._code, self._modules = made_as, code, modules
        self._snapshot: Snapshot | None = None
        self._outcome: Outcome | None = None
        self._stop = threading.Event()
        self._self = ray.get_runtime_context().current_actor
        threading.Thread(target=self._search, name="nao-ray-search", daemon=True).start()

    def look(self) -> Look:
        """Where the search stands."""
        return Look(self._launch, self._config, self._snapshot, self._outcome)

    def stop(self) -> None:
        """Ask the search to end at its next turn."""
        self._stop.set()

    def _search(self) -> None:
        self._outcome = self._run()
        time.sleep(_KEPT_SECONDS)
        ray.kill(self._self)

    def _run(self) -> Outcome:
        try:
            refuse_other_code(self._code)
            self._modules.install()
            config = RunConfig.parse(self._config)
            wait = max(
                self._wait, LEASE_WAIT_SECONDS
            )  # Ray may have made this anew before the last one's lease is over
            takeover = Takeover(wait, self._made_as)
            run(config, self._pool_url, self._listen, takeover=takeover, stop=self._stop.is_set)
        except KeyboardInterrupt as end:
            return Outcome(130, "drained: nothing further was begun" if isinstance(end, Drained) else "stopped")
        except NaoRayError as error:
            return Outcome(2 if isinstance(error, InputError) else 1, str(error))
        except Exception as error:  # a thread has nobody to raise to: the watchers are told
            _log.exception("the search failed")
            return Outcome(1, f"{type(error).__name__}: {error}")
        return Outcome(0, "done")

    def _listen(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot


def watch(
    config: RunConfig, pool_url: str, listener: Listener, *, wait: float = 0.0, made_as: str | None = None
) -> str:
    """Have a detached actor search, or find the one that does, and watch it until it ends.

    `made_as` is the `storage_id` of the pool, where another machine has seen it.

    Returns:
        `done`, or how it was ended before: it was stopped, or drained.

    Raises:
        InputError: the config, the data or the pool is not what it should be.
        RunError: the search failed; the pool is resumable.
        KeyboardInterrupt: SIGINT or SIGTERM; the search goes on.
    """
    if not ray.is_initialized() and os.environ.get("RAY_ADDRESS", "local") in ("", "local"):
        raise ConfigError("--detach needs a cluster that stays: give RAY_ADDRESS, or hand in nao-ray submit --detach")
    pool_url = shared_pool(pool_url)  # the actor stands elsewhere
    with ray_session(config.workers), heed_signals() as signals:
        actor = _host(config, pool_url, wait, made_as)
        while True:
            try:
                look = _look(actor)
            except ActorDiedError:  # for good: Ray restarts it after anything else
                raise RunError(f"the detached search of {pool_url} was killed; the same command goes on") from None
            if look is not None:
                if look.snapshot is not None:
                    listener(look.snapshot)
                if look.outcome is not None:
                    time.sleep(_SEEN_POLLS * _POLL_SECONDS)
                    _kill(actor)
                    return _conclude(look.outcome)
            if signals.stopped():
                raise KeyboardInterrupt
            time.sleep(_POLL_SECONDS)


def end(name: str) -> None:
    """End the detached search of this name; its pool is resumable.

    Raises:
        ClusterError: there is none.
    """
    with ray_session(Workers()):
        try:
            actor = ray.get_actor(name, NAMESPACE)
            ray.get(actor.stop.remote(), timeout=_ANSWER_SECONDS)
        except ValueError:
            raise ClusterError(f"no detached search is named {name}") from None
        except (RayActorError, GetTimeoutError):
            _log.warning("the search does not answer and is killed")
        else:
            _until_ended(actor)
        _kill(actor)


def _until_ended(actor: ActorHandle) -> None:
    """Wait for the end, and a little longer, so that a watcher sees it first."""
    give_up = time.monotonic() + _END_SECONDS
    seen = 0
    while time.monotonic() < give_up and seen < 5:
        try:
            look: Look = ray.get(actor.look.remote(), timeout=_ANSWER_SECONDS)
        except (RayActorError, GetTimeoutError):
            return
        seen += look.outcome is not None
        time.sleep(_POLL_SECONDS)


def _host(config: RunConfig, pool_url: str, wait: float, made_as: str | None) -> ActorHandle:
    """The actor of this search: the one that runs, or a new one."""
    name, text, launch = job_name(config.name, pool_url), config.to_yaml(), secrets.token_hex(8)
    make: Callable[[], ActorHandle] | None = None
    give_up = time.monotonic() + _START_SECONDS
    while time.monotonic() < give_up:
        try:
            actor = ray.get_actor(name, NAMESPACE)
        except ValueError:
            if make is None:  # the pool is made, and checked, here: wherever the actor comes to be, it must find it
                made_as = storage_id(take_pool(pool_url, check_search(config, pool_url), made_as).manifest)
                code = (own_code(), OwnModules.of_this_process())
                make = partial(_make, name, (launch, text, pool_url, wait, made_as, *code))
            actor = make()
        try:
            look = _look(actor)
        except ActorDiedError as error:  # an earlier one, on its way out
            if "creation" in str(error):
                why = " ".join(str(error).split())[-300:]
                raise RunError(f"the detached search {name} cannot start: {why}") from None
            look = None
        if look is None:
            time.sleep(_POLL_SECONDS)
        elif look.launch == launch or (look.outcome is None and look.config == text):
            return actor
        elif look.outcome is None:
            raise PoolError(f"{pool_url} is being searched by {name} with other settings: nao-ray stop {name} ends it")
        else:  # an earlier search, whose end nobody saw
            _kill(actor)
    raise RunError(f"the cluster found no place for the detached search {name} within {_START_SECONDS:.0f} s")


def _make(name: str, arguments: tuple[Any, ...]) -> ActorHandle:
    first, *others = _places([node for node in ray.nodes() if node["Alive"]])
    return (
        ray.remote(SearchActor)
        .options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=0,
            num_cpus=0,
            label_selector=first,
            fallback_strategy=[{"label_selector": place} for place in others],
        )
        .remote(*arguments)
    )


def _look(actor: ActorHandle) -> Look | None:
    """What it says; None while it cannot answer, because it is being started or restarted.

    Raises:
        ActorDiedError: it is gone for good.
    """
    try:
        look: Look = ray.get(actor.look.remote(), timeout=_ANSWER_SECONDS)
    except ActorDiedError:
        raise
    except (RayActorError, GetTimeoutError) as error:
        _log.warning("the detached search does not answer: %s", " ".join(str(error).split())[:200])
        return None
    return look


def _conclude(outcome: Outcome) -> str:
    if outcome.code == 2:
        raise InputError(outcome.message)
    if outcome.code == 1:
        raise RunError(outcome.message)
    return outcome.message


def _places(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Label selectors of nodes for the actor, the best first, looked at again whenever it is restarted.

    Rather the head than a spot node: its end is rarer.

    Args:
        nodes: those alive, as Ray lists them.
    """
    heads = [node["NodeID"] for node in nodes if "node:__internal_head__" in node["Resources"]]
    away = {_NODE_LABEL: f"!{heads[0]}"} if heads else {}
    stays = {_MARKET_LABEL: "!spot"}
    return [{**away, **stays}, stays, away, {}]


def _kill(actor: ActorHandle) -> None:
    try:
        ray.kill(actor, no_restart=True)
    except (RayActorError, ValueError):
        _log.debug("the detached search was gone already", exc_info=True)
