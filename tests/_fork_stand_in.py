"""The child that a program of Ray or a shell gets in place of a Python: it asks for a fork, and stands for that one.

`PLACE/bin` (`_forks.prepare`) holds `python`, `ray` and `nao-ray` of this kind, as a virtual environment's folder does.
The fork has its words, environment, folder, open files and signals; whoever ends one of the two ends the other. What a
fork cannot be like, it becomes itself. It loads next to nothing: there is one for each worker.
"""

import _sha1
import _signal
import _socket
import marshal
import os
import sys

PLACE = "NAO_RAY_TESTS_FORKS"
"""The variable with the folder of the server's socket, for all processes of a run of tests."""
ANEW = "NAO_RAY_TESTS_ANEW"
"""The variable with a file's path: while that is there, every process starts anew."""
AS_LOADED = ("PYTHONHASHSEED", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONDEVMODE", "LD_PRELOAD", "MKL_NUM_THREADS")
STANDS_FOR = "fork "
"""Begins the name of a process that stands for a fork; the fork's process id follows."""
ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
_SETUP = "/ray/_private/workers/setup_worker.py"
_ALLOCATOR = "/ray/core/libjemalloc.so"
"""What Ray's dashboard is started with, in order to hold less memory: a fork goes without."""
_CONTEXT = "--serialized-runtime-env-context="
_DASHBOARD = """
aggregator.aggregator_agent data.data_head event.event_agent event.event_head job.job_agent job.job_head log.log_agent
metrics.metrics_head node.node_head platform_events.platform_event_head reporter.healthz_agent reporter.reporter_agent
reporter.reporter_head serve.serve_head state.state_head task_events.task_events_head train.train_head
usage_stats.usage_stats_head
"""
_PRELOADED = {
    "worker": (
        "ray",
        "ray.runtime_env",
        "ray.util.queue",
        "ray._common.usage.usage_lib",
        "ray._common.pydantic_compat",
        "ray._private.arrow_serialization",
        "ray._private.grpc_utils",
        "ray.dag",
        "ray.experimental.channel",
        "pydantic.v1",
        "nao_ray.service.fleet.actors",
        "nao_ray.service.hosting.run",
        "nao_ray.service.jobs.packing",
        "nao_ray.spaces.nao_cnn_small",
    ),
    "client": ("ray.job_submission", "ray.util.state", "nao_ray.service.jobs.server"),
    "tool": (
        "ray.scripts.scripts",
        "ray.dashboard.dashboard",
        "ray.dashboard.agent",
        "ray._private.log_monitor",
        "ray._private.runtime_env.agent.runtime_env_agent",
        "ray.autoscaler._private.monitor",
        "ray.autoscaler.v2.monitor",
        *(f"ray.dashboard.modules.{name}" for name in _DASHBOARD.split()),
    ),
}
"""What a server has loaded besides, by the kind of the processes that it forks."""
_PRELOADED["trainer"] = (
    *_PRELOADED["worker"],
    "ray.train.torch",
    "ray.tune",
    "ray.util.state",
    "nao_ray.service.training.together",
)
_OF_RAY_TRAIN = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
"""A variable of a Ray for Ray Train, which tests wait for no longer than they have to, or for Tune, which loads it."""
_AS_RAY_IS_LOADED = ("RAY_", "CUDA_VISIBLE_DEVICES")
_OF_A_TOOL = ("AUTOSCALER_", "METRICS_", "REPORTER_", "DASHBOARD_")
_LATER = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_TMPDIR")
_LATER += ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_STOP_WAIT_TIME_S", "RAY_NODE_ID")
_LATER += ("RAY_CLOUD_INSTANCE_ID", "RAY_OVERRIDE_NODE_ID_FOR_TESTING")
_LATER += ("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES")
_LATER += ("RAY_LD_PRELOAD_ON_WORKERS", "RAY_prestart_worker_first_driver")  # of the raylet
_LATER += ("RAY_gcs_storage", "RAY_gcs_storage_path")  # of the head
_CLIENTS = ("submit", "status", "logs", "stop")
AT_ONCE = {"RAY_JOB_ID": "fedcba98", "RAY_RAYLET_PID": "987654321012345"}
"""What Ray reads as it is loaded, and a fork needs otherwise: what stands there until then."""
_FORWARDED = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGCONT)
_IGNORABLE = (_signal.SIGINT, _signal.SIGHUP)


def can_fork(words, environment, folder):
    """Whether a fork of the server is as `python *words` would be."""
    words = _without_unbuffered(words)
    if PLACE not in os.environ or not words or os.path.exists(environment.get(ANEW, "")):
        return False
    if words[0] in ("-c", "-m"):
        first = folder
    elif words[0][:1] == "-" or not os.path.isfile(os.path.join(folder, words[0])):
        return False
    else:
        first = os.path.dirname(os.path.join(folder, words[0]))
    if any(name in environment for name in AS_LOADED) or environment.get("OMP_NUM_THREADS", "1") != "1":
        return False
    for place in (first, *environment.get("PYTHONPATH", "").split(os.pathsep)):
        package = os.path.join(folder, place, "nao_ray")
        if place and os.path.isdir(package):
            return _is_ours(package)
    return True


def _without_unbuffered(words):
    return words[1:] if words[:1] == ["-u"] else words


def _is_ours(package):
    """Whether it is the package that the server has loaded, or a copy that a job carries, file by file."""
    ours = os.path.join(ROOT, "nao_ray")
    return os.path.samefile(package, ours) or _files(package) == _files(ours)


def _files(package):
    found = {}
    for folder, folders, names in os.walk(package):
        folders[:] = [name for name in folders if name[0] != "." and name != "__pycache__"]
        for name in names:
            if name != "REVISION" and not name.endswith(".pyc") and name[0] != ".":
                with open(os.path.join(folder, name), "rb") as file:
                    found[os.path.join(folder, name)[len(package) :]] = file.read()
    return found


def server_of(words, environment):
    """The server that has loaded what `python *words` loads: its name, its environment, the modules.

    Ray reads variables as it is loaded, so there is one server for each set of them; they are started when asked for,
    and end when nobody has asked for a while.
    """
    words = _without_unbuffered(words)
    if words[0] == "-m" and words[1:2] == ["nao_ray"]:
        kind = "worker" if words[2:3] in (["search"], ["end-detached"]) and "--in-process" not in words else None
        kind = "client" if words[2:3] and words[2] in _CLIENTS else kind
    elif words[0] == "-m":
        kind = "tool" if words[1:2] and words[1].startswith("ray.") else None
    elif words[0] == "-c":
        kind = "tool" if words[1].startswith("from multiprocessing.forkserver import main") else None
        kind = "worker" if "from nao_ray.service.hosting.run import" in words[1] else kind
    elif "/ray/" in words[0] or os.path.basename(words[0]) == "ray":
        kind = "worker" if words[0].endswith("/default_worker.py") else "tool"
    else:
        kind = None
    if kind is None:
        return "socket", environment, ()
    kept = {name: value for name, value in environment.items() if name not in _LATER and name not in AT_ONCE}
    if kept.get("RAY_CLIENT_MODE") == "0":  # as it is without; whoever has loaded Ray says so
        del kept["RAY_CLIENT_MODE"]
    if kind == "worker":
        kept |= AT_ONCE
        kind = "trainer" if _OF_RAY_TRAIN in environment else kind
    if kind == "client" and ("RAY_AUTH_TOKEN" in environment or "RAY_AUTH_TOKEN_PATH" in environment):
        kept.setdefault("RAY_AUTH_MODE", "token")  # as they do before they load Ray
    read = _AS_RAY_IS_LOADED + (_OF_A_TOOL if kind == "tool" else ())
    key = sorted(item for item in kept.items() if item[0].startswith(read))
    return f"{kind}-{_sha1.sha1(repr(key).encode()).hexdigest()[:12]}", kept, _PRELOADED[kind]


def ask(connection, words, environment, folder, files, *, is_tied, executable=None):
    """Fork a child that does as `python *words`; returns its process id.

    Args:
        connection: to the server, which tells there how the child has ended.
        files: its files, number -> descriptor of this process.
        is_tied: it is killed as who asked for it ends, with its group where that leads one.
        executable: what it takes for its interpreter; None: the real one.
    """
    asked = {
        "words": _without_unbuffered(words),
        "is_unbuffered": words[0] == "-u",
        "environment": dict(environment),
        "folder": folder,
        "given": [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path],
        "numbers": list(files),
        "is_tied": is_tied,
        "is_leader": os.getpgid(0) == os.getpid(),
        "executable": executable or sys.executable,
        "blocked": [int(number) for number in _signal.pthread_sigmask(_signal.SIG_BLOCK, [])],
        "ignored": [int(number) for number in _IGNORABLE if _signal.getsignal(number) == _signal.SIG_IGN],
    }
    message = marshal.dumps(asked)
    message = len(message).to_bytes(4, "little") + message
    rights = b"".join(number.to_bytes(4, sys.byteorder) for number in files.values())
    sent = connection.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    while sent < len(message):
        sent += connection.send(message[sent:])
    return number_of(connection.recv(4))


def number_of(answer):
    """What the server says."""
    if not answer:
        with open(os.path.join(os.environ[PLACE], "said")) as said:
            raise AssertionError(f"the server of forks has ended: {said.read()}")
    return int.from_bytes(answer, sys.byteorder, signed=True)


def _connect(words, environment):
    name, kept, modules = server_of(words, environment)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(os.path.join(os.environ[PLACE], name))
    except OSError:  # there is none yet
        sys.path[:0] = [os.path.join(ROOT, "tests")]
        import _forks

        connection.close()
        connection = _forks.connect(name, kept, modules)
    return connection


def main(called, words):
    """Stand for `python *words`, or for the command that the environment of this interpreter has by that name."""
    real = os.path.join(os.path.dirname(sys.executable), os.path.basename(called))
    words = words if os.path.basename(called).startswith("python") else [real, *words]
    executable = os.path.join(os.path.dirname(called), "python")
    environment, folder = dict(os.environ), os.getcwd()
    os.environ[PLACE] = os.path.dirname(os.path.dirname(called))
    words = _worker(words, environment, executable)
    allocator = environment.get("LD_PRELOAD", "")
    if allocator.endswith(_ALLOCATOR):
        del environment["LD_PRELOAD"]
    if not can_fork(words, environment, folder):
        environment |= {"LD_PRELOAD": allocator} if allocator else {}
        os.execve(sys.executable, [sys.executable, *words], environment)
    connection = _connect(words, environment)
    mine = connection.fileno()
    files = {}
    for name in os.listdir("/proc/self/fd"):
        if int(name) != mine:
            try:
                os.fstat(int(name))
            except OSError:  # of listdir itself
                continue
            files[int(name)] = int(name)
    pid = ask(connection, words, environment, folder, files, is_tied=True, executable=executable)
    for number in _FORWARDED:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, lambda told, _: _tell(pid, told))
    with open("/proc/self/comm", "w") as name:
        name.write(f"{STANDS_FOR}{pid}")
    for number in files:
        os.close(number)
    _end_as(number_of(connection.recv(4)))


def _tell(pid, number):
    try:  # noqa: SIM105 - contextlib takes as long to load as all this
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _end_as(status):
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    if -code not in (_signal.SIGKILL, _signal.SIGSTOP):
        _signal.signal(-code, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [-code])
    os.kill(os.getpid(), -code)


def _worker(words, environment, executable):
    """What Ray's `setup_worker.py` comes to for an ordinary worker, which gets its variables; else the words."""
    if not words or not words[0].endswith(_SETUP):
        return words
    import json

    context = next((json.loads(word[len(_CONTEXT) :]) for word in words if word.startswith(_CONTEXT)), {})
    usual = context.get("py_executable") in (None, executable, sys.executable)
    variables = context.get("env_vars") or {}
    usual = usual and not any("$" in value for value in variables.values())
    if not usual or context.get("command_prefix") or context.get("override_worker_entrypoint"):
        return words
    environment.update(variables)
    return [word for word in words[1:] if not word.startswith((_CONTEXT, "--language="))]
