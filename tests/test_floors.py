"""Imports go to lower floors only; torch and ray are imported where they belong."""

import ast
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import nao_ray

ROOT = Path(nao_ray.__file__).parent
FLOORS = [
    {"addresses", "errors", "memory", "metric", "optimisers", "rng", "settings", "yaml_text"},
    {"own_modules", "limits"},
    {"registry"},
    {"spaces", "preset_files", "config_text", "config_workers", "standings", "pareto", "sharing"},
    {"trial", "networks", "tasks"},
    {"pool", "_pool", "training", "sizes"},
    {"skeletons"},
    {"evaluators", "controllers", "report", "loggers", "config_components"},
    {"strategies"},
    {"search", "export", "page"},
    {"config", "config_aims", "config_fidelity", "config_training", "contracts"},
    {"testing"},
    {"service"},
    {"api", "bench", "tune"},  # the first and the last: public names of what is in service/
    {"cli"},
]
ALLIES = [{"pool", "_pool"}, {"tasks", "training"}, {"config", "config_aims", "config_fidelity", "config_training"}]
"""Modules that are parts of one thing: a task makes its objective, which trains on the task's data."""
WITHOUT_TORCH = [
    "spaces.nao_cnn",
    "spaces.nao_cnn_small",
    "spaces.nao_cnn_middle",
    "spaces.darts_cnn",
    "spaces.enas_micro",
    "spaces.enas_macro",
    "spaces.nao_rnn",
    "spaces.enas_rnn",
    "spaces.darts_rnn",
    "trial",
    "pool",
    "search.loop",
    "search.simulated",
    "report.facts",
    "page.bundle",
    "page.server",
    "strategies.base",
    "skeletons.darts",
    "skeletons.nao",
    "skeletons.enas_macro",
    "skeletons.recurrent",
    "evaluators.base",
    "tasks.base",
    "loggers.tensorboard",
    "loggers.mlflow",
    "config",
    "cli.app",
    "api.plots",
    "api.html",
    "api.study",
    "api.search",
]
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__main__.py")


def _unit(module: str) -> str:
    """`nao_ray.networks.ops` -> `networks`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def _floor(unit: str) -> int:
    for number, units in enumerate(FLOORS):
        if unit in units:
            return number
    raise AssertionError(f"{unit} has no floor: add it to FLOORS")


@cache
def _imports(path: Path) -> list[str]:
    """Everything a file imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module)
            if node.module == "nao_ray":
                found += [f"nao_ray.{alias.name}" for alias in node.names]
    return found


def _module(path: Path) -> str:
    return ".".join(("nao_ray", *path.relative_to(ROOT).with_suffix("").parts))


def test_imports_go_down():
    assert [line for path in MODULES for line in _upward(path)] == []


def _upward(path: Path) -> list[str]:
    """Imports of a file that go up, as sentences."""
    unit, found = _unit(_module(path)), []
    if unit == "__init__":  # the package itself: the public names, bound late
        return []
    for name in _imports(path):
        if not name.startswith("nao_ray."):
            continue
        target = _unit(name)
        if target in (unit, "__version__") or any({unit, target} <= allies for allies in ALLIES):
            continue
        if target == "build_network":
            target = "skeletons"
        if _floor(target) >= _floor(unit):
            found.append(f"{_module(path)} (floor {_floor(unit)}) imports {name} (floor {_floor(target)})")
    return found


def test_the_reader_of_imports_sees_hidden_ones(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nao_ray.pool import PoolReader\n"
        "def f():\n    import ray\n    from nao_ray import cli\n"
    )
    assert {"nao_ray.pool", "ray", "nao_ray.cli"} <= set(_imports(path))


TRAINED_ON = re.compile(r"image|accuracy|cross.?entropy|num_classes", re.IGNORECASE)
KNOWERS = {
    "training/images.py", "training/image_splits.py",  # the family of images
    "training/augment.py", "training/augmentation.py",
    "training/recipe.py", "training/published.py", "training/told.py",  # the recipes of both families
    "training/foreign.py",  # another program's networks
    "training/tokens.py",  # its loss is a cross-entropy too
    "evaluators/closed_form.py", "evaluators/faulty.py",  # a formula of an accuracy
    "evaluators/parts/table.py", "evaluators/parts/table_config.py", "evaluators/parts/nats_bench.py",  # foreign tables
    "service/hosting/importing.py", "cli/pool_import.py",  # foreign tables
    "cli/describe.py", "cli/export.py", "cli/subject.py",  # options are those of networks for images
    "_pool/columns.py", "cli/forms.py",  # what those columns, and what describe prints, mean
    "trial.py", "_pool/rows.py", "skeletons/texts/base.py", "tasks/texts/base.py",  # names of columns of pools
    "strategies/regularized_evolution.py",  # the title of a paper
}  # fmt: skip


def test_only_the_family_of_images_knows_images():
    """What searches, trains, scores, keeps, serves and reports is the same for every family of tasks."""
    units = {"training", "evaluators", "service", "cli", "report", "search", "strategies", "loggers", "config"}
    units |= {"skeletons", "tasks", "trial", "pool", "_pool", "sizes", "standings"}
    files = {str(path.relative_to(ROOT)): path for path in MODULES if _unit(_module(path)) in units}
    found = {name for name, path in files.items() if TRAINED_ON.search(path.read_text(encoding="utf-8"))}
    assert {name for name in found if not _is_of_images(files[name])} == KNOWERS


def _is_of_images(path: Path) -> bool:
    """What lies in `tasks/images` or `skeletons/images`, and the tasks and skeletons made of it."""
    parts = path.relative_to(ROOT).parts
    is_component = len(parts) == 2 and parts[1] != "base.py"
    parents = [name for name in _imports(path) if re.match(r"nao_ray\.(tasks|skeletons)\.images\b", name)]
    return parts[0] in ("tasks", "skeletons") and ("images" in parts or (is_component and bool(parents)))


def test_only_the_service_imports_ray():
    importers = {_unit(_module(path)) for path in MODULES if any(_is_ray(name) for name in _imports(path))}
    assert "service" in importers
    assert importers <= {"service", "bench"}


def test_only_measurements_know_what_they_compare_with():
    importers = {
        _unit(_module(path)) for path in MODULES if any(name.startswith("benchmarks") for name in _imports(path))
    }
    assert importers == {"bench"}


def _is_ray(name: str) -> bool:
    return name == "ray" or name.startswith("ray.")


def test_only_the_pool_reaches_into_the_pool():
    importers = {_unit(_module(path)) for path in MODULES if any("nao_ray._pool" in name for name in _imports(path))}
    assert importers == {"pool", "_pool"}


@pytest.mark.parametrize("folder", sorted(path.parent for path in ROOT.glob("*/**/__init__.py")), ids=lambda p: p.name)
def test_a_subpackage_begins_with_a_docstring_alone(folder):
    body = ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)


def test_light_modules_import_neither_torch_nor_ray():
    program = "import sys\n"
    for name in WITHOUT_TORCH:
        program += f"import nao_ray.{name}\n"
        program += f"assert 'torch' not in sys.modules, 'nao_ray.{name} imports torch'\n"
        program += f"assert 'ray' not in sys.modules, 'nao_ray.{name} imports ray'\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_command_line_starts_without_heavy_libraries():
    program = "import sys, nao_ray.cli.app, nao_ray.service.jobs.client, nao_ray.report.grid\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "ray", "pandas", "pyarrow", "matplotlib", "duckdb", "sklearn", "nao_ray.config"}


def _parameters(function):
    given = function.args
    return [each for each in (*given.posonlyargs, *given.args, *given.kwonlyargs) if each.arg not in ("self", "cls")]


def _takes_what_it_is_given(path: Path, function) -> bool:
    """Whether its parameters are a command's options, or a device's kernel's, which knows no values."""
    if any("triton.jit" in ast.unparse(each) for each in function.decorator_list):
        return True
    if path.parts[-2] == "bench":  # `nao-ray bench NAME option=value` calls these by name
        return function.name in ("run", "measure") and function.col_offset == 0
    return path.parts[-2] == "cli" and any("typer." in ast.unparse(each) for each in _parameters(function))


def test_functions_take_few_parameters():
    found = {
        f"{path.relative_to(ROOT)}, {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and len(_parameters(node)) > 8
        and not _takes_what_it_is_given(path, node)
    }
    assert not found


def test_files_stay_short():
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: number for name, number in lines.items() if number > 400} == {}


def test_limits_of_tests_are_long_or_say_why():
    """A limit that only ends what hangs costs nothing, and a short one fails while others have the cores."""
    limit = re.compile(r"(?:\btimeout ?= ?|monotonic\(\) \+ |\bwait\(|\bjoin\()(\d+)\b(?!\.\d)(?!.*#)")
    short = [
        f"{path.name}:{number}: {line.strip()}"
        for path in Path(__file__).parent.rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for seconds in limit.findall(line)
        if 0 < int(seconds) < 300
    ]
    assert short == []


def test_no_two_files_of_tests_have_one_name():
    """The folders are no packages: pytest collects one of the two, and refuses the other."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
