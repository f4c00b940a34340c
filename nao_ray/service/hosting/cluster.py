"""Ray for the time of a search: the cluster a job runs on, or one of our own on this machine."""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import grpc
import ray
from ray._common.utils import get_default_ray_temp_dir
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.exceptions import RayError, RayTaskError

from nao_ray.config import Workers
from nao_ray.errors import ClusterError, ConfigError, RunError
from nao_ray.service.code import OwnPath, own_code, refuse_other_code

_log = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 100 * 2**20
"""Genotypes and numbers travel, data does not; Ray's minimum is 75 MiB."""

_OBJECT_STORE_BYTES_SHARED = 640 * 2**20
"""Versions of shared weights travel too, up to 145 MB each: two published ones and one on its way back, with room."""


_CHECK_SECONDS = 30.0
_KNOCK_SECONDS = 30.0
_REST_SECONDS = 0.5
_ADVICE = "start a cluster (cluster/machine.sh up), or unset RAY_ADDRESS to search on this machine alone"
_LONGEST_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
"""Bytes of Ray's folder: with this behind it, a socket's path has the 107 that Linux takes."""


@contextmanager
def ray_session(workers: Workers, *, shares_weights: bool = False) -> Iterator[None]:
    """Ray is there within the block.

    The connection the caller already has, else the cluster that `RAY_ADDRESS` names (it is set for Ray jobs), else
    a local one, which ends with the block.

    Raises:
        ClusterError: no cluster answers at its address.
        ConfigError: this machine does not hold one such worker.
        RunError: the cluster cannot be joined, or a local Ray not be started.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "namespace": "nao_ray"}
    options["job_config"] = OwnPath()
    logging.getLogger("ray").setLevel(logging.ERROR)
    if not address or address == "local":
        make_token()
        options |= {
            "address": "local",
            "num_cpus": _local_cpus(workers),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES_SHARED if shares_weights else _OBJECT_STORE_BYTES,
            "_temp_dir": _short_folder(),
        }
        os.environ.pop("PYTHONWARNINGS", None)  # meant for this program: as errors they end Ray's own
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 starves them beside anything else
    else:
        knock(address)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        if address == "auto" and isinstance(error, ConnectionError):
            raise ClusterError(f"no cluster runs on this machine, where RAY_ADDRESS is auto: {_ADVICE}") from None
        where = f"the cluster at RAY_ADDRESS {address}" if address else "a local Ray"
        raise RunError(f"cannot reach or start {where}: {' '.join(str(error).split())[:300]}") from error
    try:
        _quieten()
        _rest_while_the_head_is_away()
        is_local = "address" in options
        if not is_local:
            _check_code()
        _check_room(workers, is_local=is_local)
        yield
    finally:
        ray.shutdown()


def knock(address: str) -> None:
    """See whether a head answers, before Ray is asked to join it, which takes minutes to give up and hears no signal.

    Raises:
        ClusterError: none does.
    """
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"RAY_ADDRESS {address} is that of a dashboard: hand the search in with nao-ray submit, or give the head's "
            "own HOST:6379"
        )
    if address == "auto":
        return  # Ray says at once that there is none on this machine
    with init_grpc_channel(address.removeprefix("ray://"), options=GLOBAL_GRPC_OPTIONS) as channel:
        try:
            ask = NodeInfoGcsServiceStub(channel).CheckAlive
            ask(CheckAliveRequest(), timeout=_KNOCK_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                return  # of the token Ray has more to say
            is_late = error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            how = f"within {_KNOCK_SECONDS:.0f} s" if is_late else "as the head of a cluster"
            raise ClusterError(f"nothing answers {how} at RAY_ADDRESS {address}: {_ADVICE}") from None


def _short_folder() -> str | None:
    """Where Ray keeps its sockets: None, where it would; ``/tmp``, where their paths would be too long for the system.

    Raises:
        RunError: there is no short folder.
    """
    wanted = get_default_ray_temp_dir()
    if len(os.fsencode(wanted)) <= _LONGEST_FOLDER:
        return None
    if os.access("/tmp", os.W_OK):
        _log.info("%s is too long for Ray's sockets, which are in /tmp/ray", wanted)
        return "/tmp/ray"
    most = _LONGEST_FOLDER - len("/ray")
    raise RunError(f"the folder {wanted} is too long for Ray's sockets: give RAY_TMPDIR, of at most {most} bytes")


def _check_code() -> None:
    """Refuse a cluster of other code before anything is sent that only ours can read; each worker is checked later.

    Raises:
        ClusterError: it runs other code than this process.
    """
    check = ray.remote(num_cpus=0, max_retries=0)(refuse_other_code)
    try:
        ray.get(check.remote(own_code()), timeout=_CHECK_SECONDS)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:  # a cluster without room, or that is just changing
        _log.debug("the code of the cluster was not looked at: %s", error)


def _local_cpus(workers: Workers) -> int | None:
    """CPUs of the local Ray: those of the machine (None), or more where the config says how many workers."""
    if workers.count == "auto":
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores, math.ceil(workers.count * workers.cpus))


def _check_room(workers: Workers, is_local: bool) -> None:
    """A worker must fit somewhere; a cluster may grow, a machine does not."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = 0 if workers.gpus == "auto" else workers.gpus
    for name, key, wanted in (("cpus", "CPU", workers.cpus), ("gpus", "GPU", gpus)):
        most = max((node.get(key, 0.0) for node in nodes), default=0.0)
        if most >= wanted:
            continue
        if is_local:
            raise ConfigError(f"workers.{name} is {wanted:g}, and this machine has {most:g}: lower it")
        _log.warning("no node holds workers.%s %g yet, at most %g: waiting for the cluster to grow", name, wanted, most)


def tell_of_idle_gpus(workers: Workers) -> None:
    """Of an evaluator that would compute on one: there are GPUs, and no worker is given any."""
    gpus = sum(node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"])
    if gpus and workers.gpus == 0:
        _log.warning(
            "workers.gpus is 0, so all is computed on CPUs, and the GPUs (%g) idle: set it to 1, or auto", gpus
        )


def make_token() -> None:
    """Make the token Ray would make for a local cluster, but readable by its owner alone."""
    is_given = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if is_given or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    path = Path.home() / ".ray" / "auth_token"
    with suppress(OSError):  # there already, or no home: Ray then does what it does
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32))


def _quieten() -> None:
    """Ray prints what its raylet has to say about dead workers on our stdout; it goes to the log instead."""
    from ray._private import worker

    def to_log(data: dict[str, Any], ignore_prefix: bool = False) -> None:  # noqa: ARG001
        _log.debug("ray: %s", " ".join(map(str, data.get("lines", ()))))

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = to_log


def _rest_while_the_head_is_away() -> None:
    """Ray's thread that asks the head for errors asks again at once when told none: all the time that it is away."""
    from ray._private.worker import global_worker

    if hasattr(global_worker, "gcs_error_subscriber"):
        global_worker.gcs_error_subscriber = _Rested(global_worker.gcs_error_subscriber, global_worker.threads_stopped)


class _Subscriber(Protocol):
    """What Ray does with its own."""

    def subscribe(self) -> None: ...

    def poll(self) -> tuple[bytes | None, dict[str, Any] | None]: ...

    def close(self) -> None: ...


class _Rested:
    """A subscriber of Ray that rests before it says that there is nothing, but for the end."""

    def __init__(self, subscriber: _Subscriber, stopped: threading.Event) -> None:
        self._stopped = stopped
        self.subscribe, self.close, self._poll = subscriber.subscribe, subscriber.close, subscriber.poll

    def poll(self) -> tuple[bytes | None, dict[str, Any] | None]:
        found = self._poll()
        if found[1] is None:
            self._stopped.wait(_REST_SECONDS)
        return found
