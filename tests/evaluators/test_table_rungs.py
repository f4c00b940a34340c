"""Tables of several numbers of epochs: which column answers a rung of a ladder, and what it costs."""

import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, DataError
from nao_ray.evaluators.tabular import Tabular, TabularConfig
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.run import run
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config
from nao_ray.trial import Fidelity, Interim, Proposal

OPS = ("none", "skip_connect", "nor_conv_3x3")
SPACE = NasBench201(NasBench201Config(ops=OPS))
CELL = SPACE.parse("|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
TWIN = SPACE.parse("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|")


@pytest.fixture
def path(tmp_path):
    """Three texts of equal cells; curves of three epochs, the last one's of one."""
    texts = [CELL.key, TWIN.key, "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"]
    frame = pd.DataFrame({"arch_str": texts, "acc_2": [0.3, 0.4, 0.2], "acc_8": [0.6, 0.7, 0.65], "half": [0.1] * 3})
    frame["seconds"], frame["seconds_2"] = [80.0, 160.0, 40.0], [30.0, 31.0, 32.0]
    frame["run_a_2"], frame["run_b_2"], frame["run_a_8"], frame["run_b_8"] = 0.2, 0.4, 0.5, 0.7
    frame["curve"] = [[0.1, 0.2, 0.3], [0.2, 0.3, 0.4], [0.5]]
    frame.to_parquet(tmp_path / "table.parquet")
    return str(tmp_path / "table.parquet")


def table(path, rungs=(), **settings):
    config = TabularConfig(path=path, unit="fraction", partial=True, **{"epochs": 8, **settings})
    made = Tabular(SPACE, None, config)
    made.rungs = rungs
    return made


def asked(table, epochs, genotype=CELL, **more):
    measured = table.evaluate(Proposal(genotype=genotype, fidelity=Fidelity(epochs=epochs), **more))
    return measured.score, measured.device_seconds


def test_a_pattern_answers_by_the_epochs_asked_for_and_a_cost_without_one_by_their_share(path):
    made = table(path, valid="acc_{epochs}", cost="seconds")
    assert asked(made, 2) == (0.3, 20.0)
    assert asked(made, 8) == asked(made, None) == (0.6, 80.0)
    assert (made.valid(CELL), made.best_valid, made.seconds(CELL)) == (0.6, 0.7, 80.0), "judged by all epochs"
    assert asked(table(path, valid="acc_{epochs}"), 2) == (0.3, None)


def test_columns_without_a_pattern_are_given_by_their_epochs(path):
    made = table(
        path,
        valid="acc_8",
        cost="seconds",
        by_epochs={4: {"valid": "half"}, 2: {"valid": "acc_2", "cost": "seconds_2"}},
    )
    assert asked(made, 4) == (0.1, 40.0)
    assert asked(made, 2) == (0.3, 30.0), "its own seconds, not a share of them"
    with pytest.raises(
        ConfigError, match=r"which columns are of 3 epochs: write \{epochs\} in the name of evaluator.valid"
    ):
        asked(made, 3)


def test_a_trial_that_goes_on_pays_all_of_its_rung_or_what_it_has_not(path):
    rungs = (2, 4, 8)
    for resumes, seconds in ((False, [20.0, 40.0, 80.0]), (True, [20.0, 20.0, 40.0])):
        made = table(
            path, rungs, valid="acc_{epochs}", cost="seconds", by_epochs={4: {"valid": "half"}}, resumes=resumes
        )
        found = [asked(made, 2), asked(made, 4, parent_trial_id=0), asked(made, 8, parent_trial_id=1)]
        assert [cost for _, cost in found] == seconds


def test_runs_and_curves_have_rungs_too(path):
    made = table(path, runs="run_a_{epochs},run_b_{epochs}")
    assert {asked(made, 2, seed=seed)[0] for seed in range(20)} == {0.2, 0.4}
    assert asked(table(path, runs="run_a_{epochs},run_b_{epochs}", draw="mean"), 8)[0] == pytest.approx(0.6)
    made = table(path, epochs=3, valid="curve[{epochs}]", twins="merge", where={"half": 0.1, "seconds": 80.0})
    assert [asked(made, epochs)[0] for epochs in (1, 2, 3)] == [0.1, 0.2, 0.3]
    with pytest.raises(DataError, match=r"row 2, column curve\[3\]: nan"):
        table(path, epochs=3, valid="curve[{epochs}]").evaluate(Proposal(genotype=CELL))
    with pytest.raises(DataError, match=r"has no column acc_5"):
        asked(table(path, valid="acc_{epochs}"), 5)


def test_twins_are_treated_at_every_rung_as_in_the_whole_table(path):
    merged = table(path, valid="acc_{epochs}", twins="mean")
    assert [asked(merged, 2, cell)[0] for cell in (TWIN, CELL)] == pytest.approx([0.3, 0.3]), "of all three"
    assert asked(table(path, valid="acc_{epochs}"), 2, TWIN)[0] == 0.4, "which are distinct here, by their values"


def test_what_says_nothing_of_fewer_epochs_is_refused_before_anything_starts(path):
    with pytest.raises(ConfigError, match="is named by its epochs: give epochs"):
        table(path, valid="acc_{epochs}", epochs=None)
    with pytest.raises(ValueError, match="by_epochs: test has no column for fewer epochs; cost, valid may"):
        table(path, valid="acc_8", by_epochs={2: {"test": "acc_2"}})
    with pytest.raises(ConfigError, match="evaluator: nothing says which columns are of 2 epochs"):
        config(path, valid="acc_8")


def config(path, **settings):
    evaluator = {"name": "tabular", "path": path, "unit": "fraction", **settings}
    return RunConfig(
        name="t", space={"name": "nas_bench_201", "ops": OPS}, evaluator=evaluator, strategy="random_search",
        budget={"trials": 24}, fidelity={"epochs": [2, 8], "keep": 0.5},
    )  # fmt: skip


def test_a_search_on_a_table_with_a_ladder_keeps_its_pattern_and_goes_on(tmp_path):
    texts = (SPACE.decode(np.array(tokens) + 1) for tokens in itertools.product(range(len(OPS)), repeat=6))
    cells = sorted({SPACE.canonical(cell).key for cell in texts})
    scores = np.linspace(0.1, 0.9, len(cells))
    frame = pd.DataFrame({"arch_str": cells, "acc_2": scores / 2, "acc_8": scores, "seconds": 80.0})
    frame.to_parquet(tmp_path / "t.parquet")
    made = config(str(tmp_path / "t.parquet"), valid="acc_{epochs}", cost="seconds", twins="merge")
    assert RunConfig.parse(made.to_yaml()).to_yaml() == made.to_yaml()
    assert made.to_data()["evaluator"]["valid"] == "acc_{epochs}"
    run(made, str(tmp_path / "pool"), in_process=True)
    log = PoolReader.open(tmp_path / "pool").log()
    assert Counter(trial.proposal.fidelity.epochs for trial in log) == {2: 16, 8: 8}
    for trial in log:
        if (parent := trial.proposal.parent_trial_id) is not None and trial.score is not None:
            assert trial.score == pytest.approx(2 * log[parent].score)
            assert trial.measurement.device_seconds == 4 * log[parent].measurement.device_seconds == 80.0


def test_a_training_tells_what_the_table_has_after_fewer_epochs(path):
    made = table(path, valid="acc_{epochs}", cost="seconds", tells=[2])
    asked = Proposal(genotype=CELL, trial_id=7)
    assert made.course(asked, made.evaluate(asked)) == [(20.0, Interim(7, 2, 0.3))]
    loss = table(path, valid="acc_{epochs}", cost="seconds", tells=[2], goal="minimize", metric="loss")
    assert loss.course(asked, loss.evaluate(asked)) == [(20.0, Interim(7, 2, -0.3))], "a score is more, the better"
    short = Proposal(genotype=CELL, fidelity=Fidelity(epochs=2))
    assert made.course(short, made.evaluate(short)) == [], "of two epochs the end alone is told"
    silent = table(path, valid="acc_{epochs}", cost="seconds")
    assert silent.course(asked, silent.evaluate(asked)) == []
    two = table(path, valid="acc_{epochs}", cost="seconds", tells=[2, 4], by_epochs={4: {"valid": "half"}})
    told = two.course(asked, two.evaluate(asked))
    assert [(seconds, *interim) for seconds, interim in told] == [(20.0, 7, 2, 0.3), (40.0, 7, 4, 0.1)]


@pytest.mark.parametrize("tells", [[8], [0], [2, 2], [4, 2]])
def test_what_cannot_be_told_on_the_way_is_refused(path, tells):
    with pytest.raises(ValueError, match="tells: give numbers of epochs, ascending, each at least 1 and fewer than"):
        table(path, valid="acc_{epochs}", tells=tells)
    with pytest.raises(ConfigError, match="evaluator: nothing says which columns are of 2 epochs"):
        RunConfig(
            name="t", space={"name": "nas_bench_201", "ops": OPS}, strategy="random_search", budget={"trials": 3},
            evaluator={"name": "tabular", "path": path, "valid": "acc_8", "epochs": 8, "tells": [2]},
        )  # fmt: skip
