"""NVIDIA's MPS, with which the kernels of several processes run on a GPU at once: a daemon of our own.

Without it processes take turns on a GPU. The daemon's folder is its own, so that it is in nobody's way; it ends when
`close` is called or this process ends, however that happens: a second process waits for the end of a pipe, and tells
it. Where a process under it does not reach the GPU (some containers), it is not used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from nao_ray.errors import NaoRayError

CONTROL = "nvidia-cuda-mps-control"
_END = 'cat >/dev/null; echo quit -t 5 | timeout 20 "$1" >/dev/null 2>&1; rm -rf "$2"'
_CONTEXT = """
import ctypes
cuda, device, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_void_p()
for code in (cuda.cuInit(0), cuda.cuDeviceGet(ctypes.byref(device), 0),
             cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), cuda.cuCtxSetCurrent(context)):
    if code:
        raise SystemExit(f"CUDA error {code}")
"""
"""What any program on a GPU begins with; exits with an error's number."""
PROBE = (sys.executable, "-c", _CONTEXT)


class MpsUnusableError(NaoRayError):
    """There is no MPS here; says why."""


class Mps:
    """A daemon for this machine's GPUs.

    Args:
        folder: to make its folder in; None: the machine's for temporary files (a socket's path has to be short).
        probe: command that reaches the GPU, under the daemon; fails or hangs where that does not work.
        seconds: for each of its steps.

    Raises:
        MpsUnusableError: it cannot be started, or nothing can be computed under it.
    """

    def __init__(self, folder: Path | None = None, probe: Sequence[str] = PROBE, seconds: float = 20) -> None:
        control = shutil.which(CONTROL)
        if control is None:
            raise MpsUnusableError(f"there is no {CONTROL} on this machine")
        self.folder = Path(tempfile.mkdtemp(prefix="nao_ray_mps_", dir=folder))
        self.environ: Mapping[str, str] = {
            "CUDA_MPS_PIPE_DIRECTORY": str(self.folder / "pipe"),
            "CUDA_MPS_LOG_DIRECTORY": str(self.folder / "log"),
        }
        """What a process needs to compute under it."""
        for path in self.environ.values():
            Path(path).mkdir()
        environ = {**os.environ, **self.environ}
        self._end = subprocess.Popen(
            ["sh", "-c", _END, "sh", control, str(self.folder)],
            env=environ,
            stdin=subprocess.PIPE,
            start_new_session=True,  # an interrupt from the keyboard is not for it
        )
        # the daemon has all GPUs, by their numbers; which of them a process has stands in the environment of that one
        all_gpus = {name: value for name, value in environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        try:
            self._run([control, "-d"], all_gpus, seconds)
            self._run(list(probe), environ, seconds)
        except MpsUnusableError:
            self.close()
            raise

    def _run(self, command: list[str], environ: Mapping[str, str], seconds: float) -> None:
        what = "the daemon" if command[-1] == "-d" else "a process under it"
        output = self.folder / "output"
        with output.open("w+") as file:  # no pipe: the daemon keeps what it was given open
            try:
                code = subprocess.run(
                    command,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    timeout=seconds,
                    check=False,
                ).returncode
                problem = f"exit code {code}" if code else ""
            except subprocess.TimeoutExpired:
                problem = f"not done after {seconds:g} s"
        if problem:
            raise MpsUnusableError(f"{what}: {problem}{self._said(output)}")

    def _said(self, output: Path) -> str:
        """The last lines of what was printed and logged."""
        lines: list[str] = []
        for path in (output, *sorted((self.folder / "log").glob("*.log"))):
            with suppress(OSError):
                lines += path.read_text(errors="replace").strip().splitlines()[-1:]
        return "".join(f"; {line.strip()[:200]}" for line in lines)

    def close(self) -> None:
        """End it; what computes under it has ended before."""
        assert self._end.stdin is not None
        self._end.stdin.close()
        self._end.wait()
