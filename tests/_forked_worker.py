"""What a raylet of tests starts in place of Ray's `setup_worker.py`: a worker forked from `_fork_server.py`.

The raylet has this process as its child and knows the worker by what that says of itself; each ends with the other.
"""

import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
SETUP = "ray/_private/workers/setup_worker.py"
CONTEXT = "--serialized-runtime-env-context="


def main(words):
    import _forks  # found beside this file

    context = next((json.loads(word.removeprefix(CONTEXT)) for word in words if word.startswith(CONTEXT)), {})
    rest = [word for word in words if not word.startswith((CONTEXT, "--language="))]
    environment = {**os.environ, **(context.get("env_vars") or {})}
    folder = os.getcwd()
    usual = context.get("py_executable") in (None, sys.executable)
    usual = usual and not context.get("command_prefix") and not context.get("override_worker_entrypoint")
    if not usual or not _forks.can_fork([sys.executable, *rest], environment, folder):
        real = os.path.join(os.path.dirname(rest[0]), "setup_worker.py")
        os.execv(sys.executable, [sys.executable, real, *words])
    pid, told = _forks.ask(rest, environment, folder, {0: 0, 1: 1, 2: 2}, is_tied=True)
    with open("/proc/self/comm", "w") as name:
        name.write(f"{_forks.STANDS_FOR}{pid}")
    told.recv(4)


if __name__ == "__main__":
    main(sys.argv[1:])
