"""Recurrent cells trained alike on one text: the published ones, random ones, and an LSTM of as many parameters.

    python -m benchmarks.recurrent_cells --path DATA/ptb --rows rows.jsonl

All have the same text in the same batches, the same recipe and the same seeds; what they differ in is the cell, and the
LSTM in its width. Each training ends with a line in the file of rows and is not done again, so the command may be
stopped and given again; `--table` prints what there is. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nao_ray import registry, rng
from nao_ray.bench._result import BenchResult, machine
from nao_ray.errors import ConfigError, NaoRayError
from nao_ray.networks.recurrent_network import ROLE, LanguageModel, Result
from nao_ray.networks.recurrent_network import RecurrentConfig as Size
from nao_ray.skeletons.texts.base import RecurrentSize
from nao_ray.spaces.base import ArchGraph
from nao_ray.spaces.parts.recurrent_text import RecurrentText
from nao_ray.tasks.base import Task
from nao_ray.training.fit import Epoch, fit
from nao_ray.training.recipe import TextRecipe
from nao_ray.training.tokens import VALIDATION_COLUMNS, read

PUBLISHED = {"NAO-RNN": "nao_rnn", "NAO-WS-RNN": "nao_rnn", "ENAS-RNN": "enas_rnn", "DARTS-RNN": "darts_rnn"}
"""By cell, its space."""
LSTM = "LSTM"
CPU = torch.device("cpu")
NUMBERS = (
    ("hidden", 200, "units; the LSTM has as many as make its parameters those of NAO-RNN"),
    ("epochs", 3, "of the part of the training text that is read"),
    ("share", 0.2, "that part, the text's first"),
    ("seeds", 2, "seeds 0, 1, ..."),
    ("random", 5, "random cells of nao_rnn"),
    ("batch", 10, "columns"),
    ("window", 35, "tokens of a segment"),
    ("lr", 20.0, "learning rate at first"),
    ("dropout", 0.1, "of the cell's input and of its output"),
)
"""Options with what they are by default and mean."""
SETTINGS = tuple(name for name, *_ in NUMBERS if name not in ("seeds", "random"))
"""Those that are the same in all rows of a file."""


class Lstm(LanguageModel):
    """Torch's LSTM in the place of the cell, as wide as its embedding, which is the decoder; weights as torch's come.

    Raises:
        ConfigError: hidden units are to be dropped, which torch's LSTM cannot.
    """

    def __init__(self, config: Size) -> None:
        super().__init__(config)
        if config.dropout_hidden:
            raise ConfigError("dropout_hidden: torch's LSTM has none; give 0")
        del self.w0
        self.draw_weights()
        self.lstm = nn.LSTM(config.hidden, config.hidden)

    def forward(self, tokens: Tensor, carry: tuple[Tensor, ...] | None = None) -> Result:
        """See `LanguageModel.run`; hidden and cell state ``[1, B, H]`` are carried."""
        carried: list[Tensor] = []

        def compute(inputs: Tensor, *_: object) -> Tensor:
            outputs, state = self.lstm(inputs, carry)
            carried.extend(state)
            out: Tensor = outputs
            return out

        logits, _, *penalty = self.run(compute, tokens, carry and (carry[0][0],))
        return (logits, tuple(carried), penalty[0]) if penalty else (logits, tuple(carried))


def width_of(parameters: int, vocabulary: int) -> int:
    """Of the LSTM whose parameters are nearest to so many."""

    def count(width: int) -> int:
        return vocabulary * (width + 1) + 8 * width * (width + 1)

    return min(range(1, 4000), key=lambda width: abs(count(width) - parameters))


def cells(random: int) -> dict[str, ArchGraph]:
    """By name; the random ones are always the same."""
    spaces = {name: registry.load("space", name)() for name in set(PUBLISHED.values())}
    graphs = {cell: spaces[name].lower(spaces[name].parse(cell)) for cell, name in PUBLISHED.items()}
    nao = spaces["nao_rnn"]
    drawn = [nao.sample(rng.child(0, "recurrent cells", k)) for k in range(random)]
    return graphs | {f"random {k}": nao.lower(genotype) for k, genotype in enumerate(drawn, start=1)}


def num_parameters(network: nn.Module) -> int:
    """All that are trained."""
    return sum(parameter.numel() for parameter in network.parameters())


class Trainings:
    """Of one set of settings, as `main` reads them."""

    def __init__(self, told: argparse.Namespace) -> None:
        kind = registry.load("task", "ptb")
        self.told, self.graphs = told, cells(told.random)
        self.task: Task[Any] = kind(kind.Config(path=told.path, window=told.window))
        self.skeleton = registry.load("skeleton", "recurrent")()
        self.recipe = TextRecipe(
            name="short_text", batch=told.batch, lr=told.lr, dropout=told.dropout, dropout_input=told.dropout
        )
        whole = self.task.objective(CPU, self.recipe)
        self.objective: Any = whole.under(self.recipe, share=told.share)
        self.test = torch.from_numpy(self.task.load_test())

    def network(self, name: str, seed: int) -> LanguageModel:
        """With fresh weights."""
        size, shapes = RecurrentSize(hidden=self.told.hidden), self.task.shapes
        with rng.torch_seeded(seed, "weights"):
            if name != LSTM:
                return self.skeleton.build(self.graphs[name], shapes, size, self.recipe)  # type: ignore[no-any-return]
            like = num_parameters(self.skeleton.build(self.graphs["NAO-RNN"], shapes, size, self.recipe))
            width = width_of(like, self.task.vocabulary)  # type: ignore[attr-defined]
            return Lstm(self.skeleton.network_config(shapes, RecurrentSize(hidden=width), self.recipe))

    def train(self, name: str, seed: int) -> dict[str, Any]:
        """One row."""
        network, began = self.network(name, seed), time.process_time()

        def tell(epoch: Epoch) -> None:
            assert epoch.scores is not None
            told = f"{name}, seed {seed}: epoch {epoch.done}, {epoch.scores.value:.1f}"
            print(f"{told}, {time.process_time() - began:.0f} CPU s", flush=True)

        measured = fit(network, self.objective, epochs=self.told.epochs, seed=seed, listener=tell)
        taken = time.process_time() - began
        test = read(network.eval(), self.test, self.told.window, self.recipe, VALIDATION_COLUMNS)
        return {
            "cell": name, "seed": seed, "parameters": num_parameters(network), "curve": list(measured.curve or ()),
            "test": test.value, "cpu_seconds": taken,
            "width": network.config.hidden,
        }  # fmt: skip


def rows_of(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that are there; a line that a kill cut short is none.

    Raises:
        ConfigError: they are of other settings.
    """
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["settings"] != settings:
            raise ConfigError(f"{path}: has rows of other settings, {row['settings']}; give another file")
        found.append(row)
    return found


def append(path: Path, row: dict[str, Any]) -> None:
    """On the disk when this returns."""
    cut = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if cut else "") + json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def table(rows: Sequence[dict[str, Any]], settings: dict[str, Any]) -> BenchResult:
    """By cell, the best first: perplexities as means and deviations over seeds."""
    of: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of.setdefault(row["cell"], []).append(row)
    graphs = cells(len(of))
    ordered = sorted(of, key=lambda cell: np.mean([row["curve"][-1] for row in of[cell]]))
    return BenchResult(
        name="recurrent_cells",
        columns=["cell", "units", "parameters", "n", "validation by epoch", "validation", "test", "CPU s"],
        rows=[list(_line(cell, of[cell])) for cell in ordered],
        notes=[
            "Perplexity, mean ± standard deviation over n seeds. " + json.dumps(settings),
            *(f"{cell}: {RecurrentText.write(graphs[cell].cell(ROLE))}" for cell in ordered if cell in graphs),
            machine(),
        ],
    )


def _line(cell: str, rows: Sequence[dict[str, Any]]) -> Iterator[object]:
    curves = np.array([row["curve"] for row in rows])
    yield from (cell, rows[0]["width"], rows[0]["parameters"], len(rows))
    yield " ".join(f"{value:.0f}" for value in curves.mean(axis=0))
    for values in (curves[:, -1], np.array([row["test"] for row in rows])):
        spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
        yield f"{values.mean():.1f}{spread}"
    yield float(np.mean([row["cpu_seconds"] for row in rows]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what has no row, seed by seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--path", required=True, help="the Penn Treebank, as the task ptb reads it")
    parser.add_argument("--rows", type=Path, required=True, help="file of rows, one a line, made or gone on with")
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument(
        "--cells", type=lambda text: text.split(","), help="only these, by commas: a process for each part"
    )
    for name, usual, help_text in NUMBERS:
        parser.add_argument(f"--{name}", type=type(usual), default=usual, help=f"{help_text} ({usual})")
    told = parser.parse_args(arguments)
    settings = {key: value for key, value in vars(told).items() if key in SETTINGS}
    rows = rows_of(told.rows, settings)
    done = {(row["cell"], row["seed"]) for row in rows}
    names = [*cells(told.random), LSTM]
    if unknown := [name for name in told.cells or () if name not in names]:
        raise ConfigError(f"--cells {unknown[0]}: there are {', '.join(names)}")
    wanted = [(cell, seed) for seed in range(told.seeds) for cell in told.cells or names]
    if not told.table and not done.issuperset(wanted):
        torch.set_num_threads(1)
        trainings = Trainings(told)
        for cell, seed in wanted:
            if (cell, seed) not in done:
                row = {**trainings.train(cell, seed), "settings": settings}
                append(told.rows, row)
                rows.append(row)
    print(table(rows, settings).table)


if __name__ == "__main__":
    try:
        main()
    except NaoRayError as error:
        sys.exit(str(error))
