"""What README and docs/ say is done: their commands run, their configs load, their links lead somewhere."""

import io
import itertools
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import _forks
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from nao_ray.cli import bench as cli_bench
from nao_ray.config import RunConfig
from nao_ray.preset_files import PRESETS
from nao_ray.spaces.nas_bench_201 import NasBench201

ROOT = Path(__file__).parents[1]
PAGES = {
    page: (ROOT / page).read_text(encoding="utf-8")
    for page in ("README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")))
}
OWN = "docs/components.md"
"""Its files, configs and commands are tests/test_own_components.py's."""
TEXT = "\n".join(text for page, text in PAGES.items() if page != OWN)
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
CONSOLE = [
    line.removeprefix("$ ") for kind, block in BLOCKS if kind == "console" for line in block.splitlines() if line
]
ON_A_CLUSTER = ("bash ", "HEAD=", "docker ", "kubectl ", "ray up ", "ray down ", "ray dashboard ", "sbatch ")
"""Commands that need machines, of which the files are checked here and run by tests/cluster where that can be."""
SHRUNKEN = shlex.split(
    "--in-process --set budget.trials=2 --set evaluator.epochs=1 --set evaluator.channels=4 --set task.limit=100"
)
"""What a search of the README gets here, so that it ends in seconds."""


def _commands(start: str) -> list[str]:
    """Those that begin so, each once, in the order of the pages."""
    return list(dict.fromkeys(command for command in CONSOLE if command.startswith(start)))


def _run(words: list[str], cwd: Path) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment["OMP_NUM_THREADS"] = "1"  # other tests may run beside these
    return _forks.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)


def test_every_block_has_a_language_that_is_tested():
    assert {kind for kind, _ in BLOCKS} == {"console", "python", "yaml"}
    assert len(re.findall(r"^```", TEXT, flags=re.MULTILINE)) == 2 * len(BLOCKS)
    starts = ("make ", "nao-ray ", "export RAY_", "ray job submit ", *ON_A_CLUSTER)
    assert [command for command in CONSOLE if not command.startswith(starts)] == []


def test_make_targets_of_the_pages_are_chores():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)[
        1
    ].split()
    assert [command for command in _commands("make ") if command.split()[1] not in targets] == []


def test_make_help_lists_every_chore():
    done = _run(["make"], ROOT)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)[1].split()
    assert sorted(line.split()[1] for line in done.stdout.splitlines()) == sorted(targets)


@pytest.mark.parametrize("command", [command for start in ON_A_CLUSTER for command in _commands(start)])
def test_files_of_cluster_commands_are_there(command):
    files = [word for word in shlex.split(command) if word.startswith("cluster/")]
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert files or command.startswith("kubectl port-forward ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader stands: the embedded default has been searched, CIFAR-10 lies there as a table."""
    folder = tmp_path_factory.mktemp("reader")
    draw = np.random.default_rng(0)
    rows = []
    for label in range(10):
        for _ in range(20):
            buffer = io.BytesIO()
            Image.fromarray(draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(buffer, format="PNG")
            rows.append({"img": buffer.getvalue(), "label": label, "split": "train"})
    pd.DataFrame(rows).to_parquet(folder / "cifar10.parquet")
    table = _table(draw)
    table.to_parquet(folder / "nas_bench_201.parquet")
    results = table.head(20).rename(columns={"arch_str": "arch", "cifar10_valid_acc_200": "accuracy"})
    results.to_csv(folder / "results.csv", index=False)
    done = _run([sys.executable, str(ROOT / "jobs" / "search.py"), *SHRUNKEN], folder)
    assert done.returncode == 0, done.stderr
    return folder


def _table(draw):
    """Every cell of NAS-Bench-201 with made-up numbers."""
    space = NasBench201()
    cells = [space.decode(np.array(tokens)).key for tokens in itertools.product(range(1, 6), repeat=space.length)]
    numbers = {
        "cifar10_valid_acc_200": draw.uniform(50, 95, len(cells)),
        "cifar10_test_acc_200": draw.uniform(50, 95, len(cells)),
        "cifar10_valid_train_time_200_s": draw.uniform(1000, 9000, len(cells)),
        "params": draw.integers(10**5, 10**6, len(cells)),
    }
    return pd.DataFrame({"arch_str": cells, **numbers})


@pytest.mark.slow
def test_the_commands_of_the_pages_run_in_order(folder, call, monkeypatch):
    monkeypatch.chdir(folder)
    commands = _commands("nao-ray ")
    assert len(commands) > 20
    for command in commands:
        words = shlex.split(command)
        if "--address" in words or "BUCKET" in command:  # on a cluster: tests/service/jobs/test_jobs_on_ray.py
            continue
        if words[1] == "page":  # it ends when it is told to: tests/page/test_page_command.py
            continue
        if words[1] == "search":
            # a table is not trained, and shared weights are trained by the strategy
            by_alphas = words[2] in ("darts_small", "darts_201")
            by_strategy = by_alphas or any(name in command for name in ("evaluator.path", "_ws_"))
            words += SHRUNKEN[:3] if by_strategy else SHRUNKEN
            small = []
            if by_alphas or "_ws_" in command:
                small += ["task.limit=100", "strategy.epochs=1", "evaluator.channels=4"]
            if by_alphas:
                small += ["strategy.seeds=1", "evaluator.alone.channels=4", "evaluator.alone.epochs=1"]
            if words[2] == "darts_201":
                small += ["evaluator.cells_per_stage=1", "evaluator.alone.cells_per_stage=1"]
            words += [word for setting in small for word in ("--set", setting)]
        elif words[1] == "finalists":
            words += ["--in-process", "--set", "evaluator.epochs=1", "--set", "evaluator.repeats=1"]
        elif words[1] == "train":
            words += ["--set", "epochs=1", "--set", "channels=4", "--set", "task.limit=100"]
        elif words[1] == "evaluate" or (words[1] == "export" and words[2].endswith("NAME.safetensors")):
            (checkpoint,) = (folder / Path(words[2]).parent).glob("*.safetensors")
            words[2] = str(checkpoint)
        elif words[1] == "resume":
            words = [word for word in words if not word.startswith("budget.trials=") and word != "--set"]
            words += ["--set", "budget.trials=3", "--in-process"]
        done = call(*words[1:])
        assert done.code == 0, f"{command}: {done.err}"
        assert done.out or "no failed trial" in done.err, command
    assert len(pd.read_parquet(folder / "pools/digits/trials")) == 3
    assert (folder / "pools/digits/report.html").stat().st_size > 10_000
    assert (folder / "naonet_a.svg").is_file()
    assert pd.read_parquet(folder / "pools/digits-finalists/final")["test_accuracy"].between(0, 1).all()
    assert len(pd.read_parquet(folder / "trained/final")) == 1
    assert len(pd.read_parquet(folder / "pools/cifar10_small/trials")) == 2
    assert len(pd.read_parquet(folder / "pools/nas_bench_201/trials")) == 2
    assert pd.read_parquet(folder / "pools/nao_ws_small/trials")["phase"].notna().tolist() == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "python"])
def test_python_of_the_pages(block, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    with redirect_stdout(io.StringIO()) as out:
        exec(block, names)
    if "logits" in names:
        assert tuple(names["logits"].shape) == (2, 10)
    else:
        assert re.search(r"valid_accuracy|\b0\.\d{4}\b", out.getvalue())  # a score, under its name or as pages have it


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "yaml"])
def test_configs_of_the_pages(block):
    config = RunConfig.parse(block, where="docs")
    assert config.make_strategy().space.name in ("nao_cnn", "nao_rnn")


def test_the_job_of_the_pages_is_there():
    """It runs in tests/service/jobs/test_jobs_on_ray.py, on a smaller search."""
    (submit,) = _commands("ray job submit ")
    words = shlex.split(submit)
    job = words[words.index("--") + 1 :]
    assert job[:2] == ["python", "jobs/search.py"]
    assert (ROOT / job[1]).is_file()
    assert (PRESETS / f"{job[2]}.yaml").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]) if "://" not in link]
    for link in links:
        name, _, heading = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings], link


def test_every_page_is_linked_from_the_readme():
    assert [page for page in PAGES if page != "README.md" and f"]({page})" not in PAGES["README.md"]] == []


def test_named_presets_benches_and_components_exist():
    from nao_ray import registry

    named = re.search(r"name of a preset: (.*?), the settings", TEXT, flags=re.DOTALL)[1]
    presets = {path.stem for path in PRESETS.glob("*.yaml")}
    assert set(re.findall(r"`(\w+)`", named)) == presets
    assert set(re.findall(r"nao-ray bench (\w+)", TEXT)) == set(cli_bench.names())
    spaces = re.search(r"^space: .*$", TEXT, flags=re.MULTILINE)[0]
    assert set(re.findall(r"\b(?:na[os]|darts|enas)_\w+", spaces)) == set(registry.names("space"))
