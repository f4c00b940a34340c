"""Searches with shared weights against their control: the same budget, resumable, counted right."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nao_ray.bench import _shared_summary, shared
from nao_ray.cli import app as cli
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, DataError, RunError
from nao_ray.pool import PoolReader
from nao_ray.preset_files import find_config

SEARCH = """
name: {name}
space: {{name: enas_macro, layers: 3}}
task: {{name: synthetic, per_class: 24}}
evaluator:
  name: one_shot
  channels: 4
  period: 2
  recipe: {{name: paper_shared, crop_padding: 1, flip: false, batch: 48, lr: 0.1}}
  alone:
    channels: 4
    epochs: 1
    recipe: {{name: short, crop_padding: 1, flip: false, batch: 48}}
strategy: {strategy}
budget: {{trials: 3}}
"""
STRATEGIES = {
    "ws": {
        "name": "nao_shared",
        "pool": 6,
        "rounds": 2,
        "epochs": 1,
        "finalists": 2,
        "audited": 3,
        "controller": {"preset": "default", "round_size": 3, "pretraining": {"steps": 10, "genotypes": 20}},
    },
    "drawn": {
        "name": "enas",
        "rounds": 2,
        "epochs": 1,
        "paths": 4,
        "updates": 1,
        "candidates": 6,
        "finalists": 2,
        "audited": 3,
        "lstm": {"num_aggregate": 3},
    },
}
STRATEGIES["faster"] = STRATEGIES["drawn"] | {  # it scores as many
    "updates": 2,
    "candidates": 4,
    "lstm": {"num_aggregate": 2},
}


@pytest.fixture
def presets(tmp_path, monkeypatch):
    """Searches that take a second, in the folder where the command stands."""
    monkeypatch.chdir(tmp_path)
    for name, strategy in STRATEGIES.items():
        (tmp_path / f"{name}.yaml").write_text(SEARCH.format(name=name, strategy=json.dumps(strategy)))
    return tmp_path


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A folder with a `study` of `ws.yaml`."""
    folder = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "ws.yaml").write_text(SEARCH.format(name="ws", strategy=json.dumps(STRATEGIES["ws"])))
        study()
    return folder


@pytest.fixture
def ready(presets, searched):
    """`presets`, with that study."""
    shutil.copytree(searched / "study", presets / "study")
    return presets


def study(presets="ws.yaml", **settings):
    return shared.run(presets, **{"seeds": 1, "processes": 1, "results": "study"} | settings)


def row_of(job, row):
    """As if the search of that row had been this one."""
    return row | {"label": job.label, "name": job.name.rpartition("-s")[0], "seed": job.config.seed}


def test_the_control_has_the_budget_of_its_search():
    for name in ("nao_ws_small", "nao_v2_small", "enas_micro_small", "enas_macro_small"):
        config = RunConfig.load(find_config(name))
        against, mine = shared.control(config), config.make_strategy().config
        its = against.make_strategy().config
        assert (against.space, against.task, against.evaluator) == (config.space, config.task, config.evaluator)
        assert its.rounds * its.epochs == mine.rounds * mine.epochs
        assert (its.finalists, its.audited) == (mine.finalists, mine.audited)
        scored = sum(config.make_strategy().scored_in(index) for index in range(mine.rounds))
        assert its.scored * its.rounds == scored == 240
    preset = RunConfig.load(find_config("random_ws_small"))
    for name in ("nao_ws_small", "nao_v2_small"):
        against = shared.control(RunConfig.load(find_config(name)))
        assert against.model_copy(update={"name": preset.name}).to_yaml() == preset.to_yaml()


@pytest.mark.parametrize(("trained", "settings"), [("pool", {}), ("new", {"ws.strategy.trained": "new"})])
def test_a_row_is_what_the_pool_says(ready, trained, settings):
    result = study(**settings, results="study" if trained == "pool" else "another")
    assert [line[:3] for line in result.rows] == [["enas_macro", name, 1] for name in ("ws", shared.CONTROL)]
    place = "study" if trained == "pool" else "another"
    rows = pd.read_parquet(f"{place}/rows").set_index("label")
    for label, row in rows.iterrows():
        (folder,) = (ready / place / "pools").glob(f"{label}-*")
        trials = PoolReader.open(str(folder)).trials()
        alone = trials[trials["weights_version"].isna() & trials["phase"].isna()]
        last = trials[trials["weights_version"] == "e00002"]
        assert row["scored"] == trials["weights_version"].notna().sum()
        assert row["scored"] == {"pool": 12, "new": 15}[trained]
        best = last.sort_values(["valid_accuracy", "genotype"], ascending=[False, True])["genotype"][:2]
        np.testing.assert_array_equal(row["finalists"], alone.set_index("genotype").loc[best, "valid_accuracy"])
        assert len(row["sample"]) == len(row["sample_shared"]) == 3
        assert set(zip(row["sample"], row["sample_shared"], strict=True)) <= set(
            alone.merge(last, on="genotype")[["valid_accuracy_x", "valid_accuracy_y"]].itertuples(
                index=False, name=None
            )
        )
        assert row["cpu_training"] == pytest.approx(trials[trials["phase"].notna()]["device_seconds"].sum())
        assert row["shared_mean"] == pytest.approx(last["valid_accuracy"].mean())
    mine, its = (np.mean(rows.loc[label, "finalists"]) for label in ("ws", shared.CONTROL))
    assert result.rows[0][3].startswith(f"{mine:.3f} ± ")
    assert result.rows[0][4] == f"{mine - its:.3f}", "of one seed there is no error"
    assert json.loads(json.dumps(result.data)) == result.data


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_what_was_begun_goes_on(presets, monkeypatch):
    performed = []
    real = shared._perform
    monkeypatch.setattr(shared, "_perform", lambda job: performed.append(job.name) or real(job))
    both = "drawn.yaml,faster.yaml"
    first = study(both)
    labels = [name.rpartition("-s")[0].rpartition("-")[0] for name in performed]
    assert labels == ["drawn", shared.CONTROL, "faster"], "they have one control"
    performed.clear()
    assert study(both).rows == first.rows
    assert performed == []

    def done(job):
        """The row of another search: what counts is which are made."""
        performed.append(job.name)
        some = next((presets / "study" / "rows").iterdir())
        return row_of(job, shared.stored_row(some))

    monkeypatch.setattr(shared, "_perform", done)
    study(both, seeds=2)
    assert {name.rpartition("-s")[2] for name in performed} == {"00001"}
    performed.clear()
    study("drawn.yaml", **{"evaluator.batch": 8})
    assert len(performed) == 2, "another evaluator, another search and another control"
    monkeypatch.setattr(shared, "_perform", real)
    for row in (presets / "study" / "rows").glob("drawn-*-s00000.parquet"):
        row.unlink()
    monkeypatch.setattr(RunConfig, "make_evaluator", lambda config: _Finished())
    assert study(both).rows == first.rows, "the pool had it all"


class _Finished:
    """Evaluates nothing: everything is in the pool."""

    space = config = None
    measures = True
    rungs = ()
    task = SimpleNamespace(shapes=None)

    def check(self, space, shapes, config):
        pass

    def data_hash(self):
        return RunConfig.parse(SEARCH.format(name="x", strategy="shared_random_search")).make_task().data_hash()

    def facts(self):
        return None

    def settled(self):
        return {}


@pytest.mark.slow
def test_processes_give_what_one_process_gives(ready):
    here = study()
    there = study(processes=2, results=None)
    for mine, its in zip(here.data["searches"], there.data["searches"], strict=True):
        for name in ("label", "finalists", "sample", "sample_shared", "scored"):
            assert mine[name] == its[name]


@pytest.mark.parametrize(
    ("names", "settings", "told"),
    [
        ("digits", {}, "digits: the strategy nao shares no weights; there is no control"),
        ("nowhere", {}, "no config file nowhere, and no preset of that name"),
        ("ws.yaml", {"seeds": 0}, "seeds must be a whole number from 1 on"),
        ("ws.yaml", {"strategy.pol": 3}, "unknown key strategy.pol"),
        ("ws.yaml", {"drawn.strategy.paths": 3}, r"drawn\.strategy\.paths: expected SECTION.key or PRESET.SECTION.key"),
        ("ws.yaml", {"budget.trials": 3}, r"budget\.trials: expected SECTION.key"),
        ("ws.yaml", {"strategy.finalists": 0}, "ws: strategy.finalists is 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(presets, names, settings, told):
    with pytest.raises(ConfigError, match=told):
        study(names, **settings)
    assert not (presets / "study").exists()


def test_a_row_that_is_none_is_named(ready):
    next((ready / "study" / "rows").glob("ws-*")).write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"s00000\.parquet is not a row of a study"):
        study()


def test_a_training_that_fails_is_named(presets):
    with pytest.raises(RunError, match="ws, seed 0: the training of shared weights e00001 failed"):
        study(**{"evaluator.recipe.lr": 1e30, "evaluator.recipe.clip_norm": None})


def test_the_data_may_lie_elsewhere(presets, tmp_path):
    source = "/usr/share/datasets/fashion-mnist"
    if not (presets / source).is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    shutil.copytree(source, tmp_path / "images")
    names = set()
    for folder in (source, str(tmp_path / "images")):
        config = RunConfig.load(find_config("nao_ws_small"), (f"task.folder={folder}",))
        names.add(shared.name_of("x", config))
    assert len(names) == 1


def test_the_command(ready, capsys, monkeypatch):
    rows = {row["label"]: row for row in map(shared.stored_row, (ready / "study" / "rows").iterdir())}
    pools = []

    def done(job):
        pools.append(job.config.strategy.settings.get("pool"))
        return row_of(job, rows[job.label])

    monkeypatch.setattr(shared, "_perform", done)
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", "shared", "presets=ws.yaml", "seeds=2", "processes=1", "ws.strategy.pool=5", "--json"])
    assert left.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["search"] for row in said["rows"]] == ["ws", shared.CONTROL]
    assert [row["n"] for row in said["rows"]] == [2, 2]
    assert pools == [5, None, 5, None]
    assert not (ready / "rows").exists(), "without results nothing stays"


def test_tau_is_pooled_within_searches():
    scores = np.arange(12.0)
    same = {"sample_shared": scores, "sample": scores}
    shifted = {"sample_shared": scores + 50, "sample": scores - 50}  # across the two every pair is against
    assert _shared_summary.pooled_tau([same, shifted]) == pytest.approx((1, 1, 1))
    against = {"sample_shared": scores, "sample": -scores}
    middle, low, high = _shared_summary.pooled_tau([same, against])
    assert (middle, low, high) == pytest.approx((0, 0, 0), abs=0.5)
    assert middle == pytest.approx(0)
    noise = {"sample_shared": scores, "sample": np.random.default_rng(1).normal(size=12)}
    middle, low, high = _shared_summary.pooled_tau([noise])
    assert low < middle < high
    assert low < 0 < high
    assert np.isnan(_shared_summary.pooled_tau([{"sample_shared": [], "sample": []}])).all()
