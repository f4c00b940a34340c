"""Modules of the user's own that a config names: where they are looked for, and what of them travels to workers.

``package.module:Class`` is looked for in the folder of the config, then in the current folder, then among what is
installed. Neither folder comes onto `sys.path`, where a `numpy.py` beside the config would be taken for numpy: only the
package that was named is found there. Workers get its files as they were when the search began.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import site
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from platformdirs import user_cache_path

from nao_ray.errors import ConfigError, PoolError

CARRIED_BYTES = 10 * 2**20
"""What all files of one package may have together: they travel to every worker."""

_NAME = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")


class _Finder(MetaPathFinder):
    """Finds the packages that were named, each in its folder, and nothing else."""

    def __init__(self) -> None:
        self.homes: dict[str, Path] = {}
        self.is_sent = False  # by another process, all that is not installed: no folder of this one's is looked in

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ANN401
        if path is not None or fullname not in self.homes:
            return None
        return PathFinder.find_spec(fullname, [str(self.homes[fullname])])


_finder = _Finder()
_beside: ContextVar[Path | None] = ContextVar("beside", default=None)


def is_own(name: str) -> bool:
    """Whether a component's name is that of a class of the user's, ``package.module:Class``."""
    return ":" in name


def own_name(cls: type[Any]) -> str:
    """How configs name a class of the user's."""
    return f"{cls.__module__}:{cls.__qualname__}"


def give_name(cls: type[Any]) -> None:
    """Set the `name` of a class of the user's that gives itself none."""
    if "name" not in vars(cls) and not cls.__module__.startswith("nao_ray."):
        cls.name = own_name(cls)


@contextmanager
def looking_in(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Within the block modules are looked for in this folder first."""
    token = _beside.set(Path(folder).resolve())
    try:
        yield
    finally:
        _beside.reset(token)


def folders() -> list[Path]:
    """Where is looked: the folder of the config, if there is one, and the current one."""
    beside = _beside.get()
    return list(dict.fromkeys([Path.cwd()] if beside is None else [beside, Path.cwd()]))


def find_file(name: str) -> Path | None:
    """A file by its path, from the folder of the config or the current one; None: there is none."""
    return next((path for folder in folders() if (path := folder / name).is_file()), None)


def find(name: str) -> Any:  # noqa: ANN401
    """What ``package.module:Class`` names.

    Raises:
        ConfigError: it is not of that form, there is no such module or class, or its file cannot be run.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigError(f"{name}: expected package.module:Class")
    module = _imported(match[1])
    try:
        return getattr(module, match[2])
    except AttributeError:
        own = [key for key, item in vars(module).items() if getattr(item, "__module__", None) == module.__name__]
        close = get_close_matches(match[2], own, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; it has: {', '.join(own) or 'none'}"
        raise ConfigError(f"{name}: {_place(module)} has no class {match[2]}{hint}") from None


def _imported(dotted: str) -> ModuleType:
    top = dotted.partition(".")[0]
    if dotted.startswith("nao_ray.bench."):
        return importlib.import_module(dotted)  # what measurements alone are made of
    if top == "nao_ray":
        raise ConfigError(f"{dotted}: components of nao_ray are named without module")
    beside, pinned = _beside.get(), _finder.homes.get(top)
    looked_in = [] if _finder.is_sent else folders()
    home = next((folder for folder in looked_in if _is_in(folder, dotted)), None)
    if pinned is not None:
        if beside not in (None, pinned) and home == beside:
            raise ConfigError(f"{dotted}: this process has {top} of {pinned}, and cannot have that of {beside} as well")
    elif home is not None:
        _refuse_to_hide(top, home)
        _finder.homes[top] = home
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        importlib.invalidate_caches()
    before = set(sys.modules)
    try:
        module = importlib.import_module(dotted)
    except (Exception, SystemExit) as error:
        if pinned is None and _finder.homes.pop(top, None) is not None:
            for name in [name for name in set(sys.modules) - before if name.partition(".")[0] == top]:
                del sys.modules[name]
        if isinstance(error, ModuleNotFoundError) and error.name is not None and f"{dotted}.".startswith(
            f"{error.name}."
        ):  # fmt: skip
            where = " nor in ".join(map(str, folders()))
            raise ConfigError(f"{dotted}: there is no such module, neither in {where} nor installed") from None
        raise ConfigError(f"{dotted} cannot be imported: {_last_line(error, home or pinned)}") from error
    if top not in _finder.homes and (stands := _stands(top)) is not None:
        _finder.homes[top] = stands
    return module


def _stands(top: str) -> Path | None:
    """The folder of an imported package that other machines need not have; None: it is among what is installed."""
    module = sys.modules[top]
    paths = list(getattr(module, "__path__", ())) or [getattr(module, "__file__", None)]
    installed = [*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages()]
    if paths[0] is None or any(Path(paths[0]).is_relative_to(folder) for folder in installed if folder):
        return None
    return Path(paths[0]).parent


def _is_in(folder: Path, dotted: str) -> bool:
    path = folder.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _refuse_to_hide(top: str, home: Path) -> None:
    """Raise ConfigError where a module of the user's would take the place of one that the program has or needs."""
    ours = {re.split(r"[^\w.-]", line)[0].lower().replace("-", "_") for line in _requirements()}
    if top in sys.modules and top not in sys.stdlib_module_names and top.lower() not in ours:
        if not _is_below(sys.modules[top], home):
            where = _place(sys.modules[top])
            raise ConfigError(f"{top} of {home} has the name of a module that is loaded already, {where}: rename it")
    elif top in sys.stdlib_module_names or top.lower() in ours:
        raise ConfigError(f"{top} of {home} has the name of a module that nao_ray runs on: rename it")


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires("nao_ray") or []
    except importlib.metadata.PackageNotFoundError:  # the copy that a job carries
        return []


def _is_below(module: ModuleType, folder: Path) -> bool:
    places = [module.__file__] if getattr(module, "__file__", None) else list(getattr(module, "__path__", ()))
    return all(place is not None and Path(place).resolve().is_relative_to(folder) for place in places)


def _place(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or module.__name__)


def _last_line(error: BaseException, home: Path | None) -> str:
    """The last line of its traceback, and where in the user's own files it was raised."""
    said = " ".join("".join(traceback.format_exception_only(error)[-1:]).split())
    if isinstance(error, SyntaxError):
        return f"{said} ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if home is not None and Path(frame.filename).is_relative_to(home)]
    where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    hint = ""
    if isinstance(error, ModuleNotFoundError) and home is not None and error.name and _is_in(home, error.name):
        hint = f"; {error.name} lies beside it, where only what the config names is found: put both into one package"
    return f"{said}{where}{hint}"


# -- what is recorded and what travels ------------------------------------------------------------------------


def record(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of the packages of components, for the manifest: the folder of each and the hash of each source, or its version.

    Raises:
        ConfigError: as `find`, or a package has more than `CARRIED_BYTES`.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        find(name)
        top = name.partition(":")[0].partition(".")[0]
        if top not in _finder.homes:
            found[top] = {"version": _version(top)}
            continue
        folder = _finder.homes[top]
        sources = {path: data for path, data in _files(top, folder).items() if path.endswith(".py")}
        hashes = {path: hashlib.sha256(data).hexdigest()[:16] for path, data in sources.items()}
        found[top] = {"folder": str(folder), "files": hashes}
    return found


def refuse_missing(recorded: Mapping[str, Any], where: str) -> None:
    """Check that the packages of a record can be had here; the folder that a file names is no place to run code from.

    Raises:
        PoolError: one cannot.
    """
    for top, about in recorded.items() if isinstance(recorded, Mapping) else ():
        is_here = top in _finder.homes or any(_is_in(Path.cwd(), name) for name in (top, *_dotted(about)))
        if not is_here and importlib.util.find_spec(top) is None:
            of = f" of {about['folder']}" if isinstance(about, Mapping) and "folder" in about else ""
            raise PoolError(
                f"{where} was searched with the module {top}{of}, which is neither in {Path.cwd()} nor installed: give "
                "the command where it is"
            )


def _dotted(about: Any) -> list[str]:  # noqa: ANN401
    files = about.get("files", {}) if isinstance(about, Mapping) else {}
    return [str(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in files]


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The sources that differ between two records: a text for each package that has some."""
    lines = []
    for top in sorted({*before, *now}):
        had, has = (before.get(top) or {}).get("files", {}), (now.get(top) or {}).get("files", {})
        files = [path for path in sorted({*had, *has}) if had.get(path) != has.get(path)]
        if files:
            lines.append(f"{files[0]} and {len(files) - 1} more" if len(files) > 1 else files[0])
    return lines


def _version(top: str) -> str | None:
    names = importlib.metadata.packages_distributions().get(top, [])
    return importlib.metadata.version(names[0]) if names else None


@dataclass(frozen=True, slots=True)
class OwnModules:
    """The packages that were named in one process, to be had in another."""

    packages: tuple[tuple[str, tuple[tuple[str, bytes], ...]], ...]
    """Of each its name and its files: path and content."""

    @classmethod
    def of_this_process(cls) -> OwnModules:
        """All that are not among what is installed.

        Raises:
            ConfigError: a package has more than `CARRIED_BYTES`.
        """
        homes = sorted(_finder.homes.items())
        return cls(tuple((top, tuple(_files(top, home).items())) for top, home in homes))

    @property
    def files(self) -> Iterator[tuple[str, bytes]]:
        """Path and content of each."""
        for _, files in self.packages:
            yield from files

    def install(self) -> None:
        """Have them found in this process.

        Raises:
            ConfigError: this process has another module of a name.
        """
        for top, files in self.packages:
            home = _finder.homes.get(top)
            if home is not None and tuple(_files(top, home).items()) == files:
                continue
            if home is not None or top in sys.modules:
                raise ConfigError(f"this process has another module {top} than the one that the search was begun with")
            _finder.homes[top] = _written(files)
        _finder.is_sent = True
        if self.packages and _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)


def _files(top: str, folder: Path) -> dict[str, bytes]:
    """The files of a package or a module, by their paths from its folder; neither hidden nor compiled ones."""
    single = folder / f"{top}.py"
    if single.is_file() and not (folder / top / "__init__.py").is_file():
        return {single.name: single.read_bytes()}
    found: dict[str, bytes] = {}
    size = 0
    for path in sorted((folder / top).rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or path.suffix == ".pyc" or any(part.startswith((".", "__pycache__")) for part in parts):
            continue
        size += path.stat().st_size
        if size > CARRIED_BYTES:
            raise ConfigError(
                f"the package {folder / top} has more than {CARRIED_BYTES / 2**20:.0f} MiB of files, of which "
                f"{path.name} is one: it travels to every worker; keep data and results elsewhere"
            )
        found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def _written(files: tuple[tuple[str, bytes], ...]) -> Path:
    """A folder with these files: one for equal ones, however many processes there are."""
    digest = hashlib.sha256(repr(files).encode()).hexdigest()[:32]
    place = user_cache_path("nao_ray", appauthor=False) / "modules" / digest
    if _holds(place, files):
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".", dir=place.parent))
    except OSError:  # no home of its own, or a full one
        made = place = Path(tempfile.mkdtemp(prefix="nao_ray-modules-"))
    for path, data in files:
        target = made / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    if made != place:
        with suppress(OSError):  # another process was quicker, or it was damaged
            made.rename(place)
    return place if _holds(place, files) else made


def _holds(place: Path, files: tuple[tuple[str, bytes], ...]) -> bool:
    return all((place / path).is_file() and (place / path).read_bytes() == data for path, data in files)
