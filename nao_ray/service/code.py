"""Driver and workers must run the same code: where workers look for the package, and whether they found the same.

Ray puts the current folder, and that of the script, first on the path of every worker. A `numpy.py` or `random.py`
beside a config, or another `nao_ray/`, is then loaded there although the driver did not load it; so both stay off
(`OwnPath`). What remains, such as a node with another version, is found by comparing files (`SameCode`), and modules of
the user's that a config names are sent along.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from ray import cloudpickle
from ray.job_config import JobConfig

import nao_ray
from nao_ray.errors import ClusterError
from nao_ray.own_modules import OwnModules

T = TypeVar("T")

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the other side may not have it, or another one


class Code(NamedTuple):
    """The package as one process has it."""

    place: str
    """Its folder, and the machine."""
    files: dict[str, str]
    """The hash of each Python file, by its path in the package."""


def own_code() -> Code:
    """The package of this process, as it lies on the disk."""
    package = Path(nao_ray.__file__).parent
    files = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in sorted(files.items())}
    return Code(f"{package} on {platform.node()}", hashes)


def refuse_other_code(wanted: Code) -> None:
    """Check that this process runs the code of another one.

    Raises:
        ClusterError: it does not; names both places, and a file.
    """
    mine = own_code()
    differing = [
        name for name in sorted({*wanted.files, *mine.files}) if wanted.files.get(name) != mine.files.get(name)
    ]
    if differing:
        raise ClusterError(
            f"workers run other code than the driver: {mine.place} differs from {wanted.place} in {differing[0]}"
            f"{f' and {len(differing) - 1} more' if len(differing) > 1 else ''}; give both the same nao_ray, by "
            "installing it or with nao-ray submit, which carries it, and start again"
        )


@dataclass(frozen=True, slots=True)
class SameCode(Generic[T]):
    """Makes what `make` makes, in another process, if that one runs the code of the process it was sent from."""

    make: bytes
    """Pickled, so that nothing of it is loaded before the check."""
    code: Code
    modules: OwnModules
    """The user's, which the other process need not see."""

    @classmethod
    def of(cls, make: Callable[[], T]) -> SameCode[T]:
        """To be sent."""
        return cls(cloudpickle.dumps(make), own_code(), OwnModules.of_this_process())

    def __call__(self) -> T:
        """As `make`.

        Raises:
            ClusterError: this process runs other code.
        """
        refuse_other_code(self.code)
        self.modules.install()
        made: T = cloudpickle.loads(self.make)()
        return made


class OwnPath(JobConfig):  # type: ignore[misc]  # Ray has no types here
    """The settings of a connection whose workers look only where the package needs it."""

    def _get_proto_job_config(self) -> Any:  # noqa: ANN401
        self._py_driver_sys_path[:] = worker_path()
        return super()._get_proto_job_config()


def worker_path() -> list[str]:
    """Folders that workers must look in first: that of the package where the driver found it by where it stands."""
    script = os.path.dirname(os.path.realpath(sys.argv[0]))
    standing = {os.path.realpath(os.curdir), script}
    rest = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) not in standing]
    package = os.path.realpath(nao_ray.__file__)
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)  # not all have it
        spec = None if find is None else find("nao_ray", rest)
        if spec is not None and spec.origin is not None:
            return [] if os.path.realpath(spec.origin) == package else [os.path.dirname(os.path.dirname(package))]
    return [os.path.dirname(os.path.dirname(package))]
