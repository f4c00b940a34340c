"""The tabular evaluator on the real table and on a small one made here."""

from pathlib import Path

import pandas as pd
import pytest

from nao_ray.errors import DataError, GenotypeError
from nao_ray.evaluators.tabular import Tabular, TabularConfig
from nao_ray.limits import LimitError, Limits
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config
from nao_ray.trial import Proposal

BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
TWIN_OF_FIRST = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"
NO_TASK = None  # a table needs none


def test_real_table(data_folder: Path) -> None:
    config = TabularConfig(
        path=str(data_folder / "nas_bench_201" / "nas_bench_201.parquet"),
        valid="cifar10_valid_acc_200",
        test="cifar10_test_acc_200",
        cost="cifar10_valid_train_time_200_s",
        num_params="params",
        twins="merge",
    )
    space = NasBench201()
    table = Tabular(space, NO_TASK, config)
    measurement = table.evaluate(Proposal(genotype=space.parse(BEST)))
    assert measurement.valid_accuracy == pytest.approx(table.best_valid) == pytest.approx(0.91607, abs=1e-5)
    assert table.test(space.parse(BEST)) == pytest.approx(0.94373, abs=1e-5)
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
    table = Tabular(
        space, NO_TASK, TabularConfig(path=str(small), genotype="cell", valid="score", unit="fraction", twins="merge")
    )
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


def test_rows_are_selected_by_their_values(small: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(small)
    both = pd.concat([frame.assign(data="a", epochs=12), frame.assign(data="a", epochs=200, score=0.1)])
    path = tmp_path / "long.parquet"
    both.to_parquet(path)
    space = NasBench201(NasBench201Config(ops=("none", "skip_connect", "nor_conv_3x3")))
    settings = {"path": str(path), "genotype": "cell", "valid": "score", "unit": "fraction"}
    chosen = Tabular(space, NO_TASK, TabularConfig(**settings, where={"epochs": 200, "data": "a"}))
    assert len(chosen) == 2
    assert chosen.best_valid == 0.1
    with pytest.raises(DataError, match=r"row 3, column cell: the architecture of row 0 again: .*evaluator\.where"):
        len(Tabular(space, NO_TASK, TabularConfig(**settings)))
    with pytest.raises(DataError, match=r"no rows like evaluator\.where"):
        len(Tabular(space, NO_TASK, TabularConfig(**settings, where={"epochs": 50})))
    with pytest.raises(DataError, match="no column dataset"):
        len(Tabular(space, NO_TASK, TabularConfig(**settings, where={"dataset": "a"})))


def test_mean_of_the_runs(small: Path) -> None:
    space = NasBench201(NasBench201Config(ops=("none", "skip_connect", "nor_conv_3x3")))
    config = TabularConfig(
        path=str(small), genotype="cell", runs=("run_a", "run_b"), draw="mean", unit="fraction", twins="merge"
    )
    table = Tabular(space, NO_TASK, config)
    first = space.parse("|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    assert table.evaluate(Proposal(genotype=first)).score == pytest.approx(0.5)
    assert table.best_valid == pytest.approx(0.71), "the twin's runs are not looked at, a missing run is left out"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"score": [0.5, float("nan"), 0.9]}, r"row 1, column score: nan, expected an accuracy in 0\.\.1"),
        ({"score": [0.5, 0.7, float("inf")]}, r"row 2, column score: inf"),
        ({"score": [50.0, 70.0, 90.0]}, r"row 0, column score: 50, .*evaluator\.unit is fraction"),
        ({"score": ["much", "more", "most"]}, "column score: not numbers"),
        ({"cell": ["|none~0|", TWIN_OF_FIRST, TWIN_OF_FIRST]}, r"row 0, column cell: .* expected \|op~0\|"),
        ({"cost": [1.0, float("nan"), 2.0]}, "row 1, column cost: nan, expected a finite number"),
        ({"run_a": [float("nan")] * 3, "run_b": [float("nan")] * 3}, "row 0, column run_a, run_b: no run has a value"),
    ],
    ids=["nan", "infinite", "unit", "text", "unknown", "cost", "runs"],
)
def test_what_is_wrong_with_a_table_is_said_with_row_and_column(
    small: Path, tmp_path: Path, change: dict[str, list[object]], told: str
) -> None:
    path = tmp_path / "bad.parquet"
    pd.read_csv(small).assign(**{"cost": 1.0, **change}).to_parquet(path)
    space = NasBench201(NasBench201Config(ops=("none", "skip_connect", "nor_conv_3x3")))
    runs = ("run_a", "run_b") if "run_a" in change else ()
    config = TabularConfig(path=str(path), genotype="cell", valid="score", cost="cost", runs=runs, unit="fraction")
    with pytest.raises(DataError, match=told) as caught:
        Tabular(space, NO_TASK, config).data_hash()
    assert "\n" not in str(caught.value)


def test_fractions_taken_for_percent_are_noticed(small: Path) -> None:
    space = NasBench201(NasBench201Config(ops=("none", "skip_connect", "nor_conv_3x3")))
    with pytest.raises(DataError, match=r"set evaluator\.unit to fraction"):
        len(Tabular(space, NO_TASK, TabularConfig(path=str(small), genotype="cell", valid="score")))


def test_the_hash_follows_the_file(small: Path) -> None:
    space = NasBench201(NasBench201Config(ops=("none", "skip_connect", "nor_conv_3x3")))
    config = TabularConfig(path=str(small), genotype="cell", valid="score", unit="fraction", partial=True)
    before = Tabular(space, NO_TASK, config).data_hash()
    assert before == Tabular(space, NO_TASK, config).data_hash()
    small.write_text(small.read_text().replace("0.7,", "0.8,"))
    assert before != Tabular(space, NO_TASK, config).data_hash()


def test_limits_are_of_settings_and_of_any_column(small: Path) -> None:
    space = NasBench201(NasBench201Config(ops=("none", "skip_connect", "nor_conv_3x3")))
    config = TabularConfig(
        path=str(small),
        genotype="cell",
        valid="score",
        unit="fraction",
        num_params="run_a",
        partial=True,
        twins="merge",
    )
    table = Tabular(space, NO_TASK, config)
    table.limits = Limits({"num_params": "<= 0.6", "run_b": "> 0"})
    kept, other = (space.parse(text) for text in (TWIN_OF_FIRST, BEST.replace("1x1", "3x3")))
    assert table.figures(kept) == {"num_params": 0.52, "run_b": 0.48}
    assert table.evaluate(Proposal(genotype=kept)).valid_accuracy == 0.5
    assert table.limits.broken(table.figures(other)), "what is not in the table keeps no limit"
    with pytest.raises(LimitError, match="num_params is nan"):
        table.evaluate(Proposal(genotype=other))
    table = Tabular(space, NO_TASK, config)
    table.limits = Limits({"speed": "> 0"})
    with pytest.raises(DataError, match=r"has no column speed; say which in evaluator\.\* and constraints"):
        table.facts()
