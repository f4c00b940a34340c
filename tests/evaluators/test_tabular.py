"""The tabular evaluator on the real table and on a small one made here."""

from pathlib import Path

import pandas as pd
import pytest

from nao_ray.errors import DataError, GenotypeError
from nao_ray.evaluators.tabular import Tabular, TabularConfig
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config
from nao_ray.tasks.base import Task
from nao_ray.trial import Proposal

BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
TWIN_OF_FIRST = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"
NO_TASK: Task = None  # type: ignore[assignment, type-arg]  # a table needs none


def test_real_table(data_folder: Path) -> None:
    config = TabularConfig(
        path=str(data_folder / "nas_bench_201" / "nas_bench_201.parquet"),
        valid="cifar10_valid_acc_200",
        test="cifar10_test_acc_200",
        cost="cifar10_valid_train_time_200_s",
        num_params="params",
    )
    space = NasBench201()
    table = Tabular(space, NO_TASK, config)
    measurement = table.evaluate(Proposal(genotype=space.parse(BEST)))
    assert measurement.valid_accuracy == pytest.approx(table.best_valid) == pytest.approx(0.91607, abs=1e-5)
    assert table.test_accuracy(space.parse(BEST)) == pytest.approx(0.94373, abs=1e-5)
    assert measurement.num_params == 73306 + 28000 + 4 * 243040
    assert measurement.wall_seconds is not None
    assert measurement.wall_seconds > 1000
    assert len(table) == 6466


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A table of another space's strings: three operations, fractions, one twin, CSV."""
    rows = [
        ("|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|", 0.5, 0.52, 0.48),
        ("|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|nor_conv_3x3~1|none~2|", 0.7, 0.71, float("nan")),
        (TWIN_OF_FIRST, 0.9, 0.9, 0.9),
    ]
    path = tmp_path / "table.csv"
    pd.DataFrame(rows, columns=["cell", "score", "run_a", "run_b"]).to_csv(path, index=False)
    return path


def test_foreign_table_by_configuration_alone(small: Path) -> None:
    space = NasBench201(NasBench201Config(ops=("none", "skip_connect", "nor_conv_3x3")))
    table = Tabular(space, NO_TASK, TabularConfig(path=str(small), genotype="cell", valid="score", unit="fraction"))
    twin = space.parse(TWIN_OF_FIRST)
    assert len(table) == 2
    assert table.evaluate(Proposal(genotype=twin)).valid_accuracy == 0.5, "the class's first row stands for it"
    with pytest.raises(GenotypeError, match="not in the table"):
        table.evaluate(Proposal(genotype=space.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")))


def test_one_run_per_query(small: Path) -> None:
    space = NasBench201(NasBench201Config(ops=("none", "skip_connect", "nor_conv_3x3")))
    config = TabularConfig(path=str(small), genotype="cell", runs=("run_a", "run_b"), unit="fraction")
    table = Tabular(space, NO_TASK, config)
    first = space.parse("|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    scores = [table.evaluate(Proposal(genotype=first, seed=seed)).score for seed in range(40)]
    assert set(scores) == {0.52, 0.48}
    assert scores[3] == table.evaluate(Proposal(genotype=first, seed=3)).score
    second = space.parse("|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|nor_conv_3x3~1|none~2|")
    assert {table.evaluate(Proposal(genotype=second, seed=seed)).score for seed in range(9)} == {0.71}


def test_bad_tables_are_refused(small: Path, tmp_path: Path) -> None:
    space = NasBench201(NasBench201Config(ops=("none", "skip_connect", "nor_conv_3x3")))
    with pytest.raises(DataError, match=r"no column accuracy"):
        len(Tabular(space, NO_TASK, TabularConfig(path=str(small), genotype="cell", valid="accuracy")))
    with pytest.raises(DataError, match="cannot read the table"):
        len(Tabular(space, NO_TASK, TabularConfig(path=str(tmp_path / "none.parquet"), valid="score")))
    with pytest.raises(ValueError, match="validation accuracy"):
        TabularConfig(path=str(small))
