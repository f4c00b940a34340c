"""Beside shared weights a table has the scores of architectures: nothing is trained for them, epochs have a truth."""

import itertools

import pytest
import torch
from _stand_in import MemoryPool

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, DataError
from nao_ray.evaluators.standalone import Standalone
from nao_ray.search.budget import Budget
from nao_ray.search.executor import SerialExecutor
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.service.hosting import checks
from nao_ray.service.places import placed
from nao_ray.trial import Proposal

OPS = ("none", "nor_conv_1x1")
TEXT = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
SECONDS = 7.0
CONFIG = """
name: cells
space: {name: nas_bench_201, ops: [none, nor_conv_1x1]}
task: {name: synthetic, classes: 2, per_class: 10}
evaluator:
  name: darts
  cells_per_stage: 1
  channels: 2
  period: 2
  recipe: {name: darts_search, crop_padding: 1, flip: false, batch: 4}
  alone: {name: tabular, path: PATH, valid: valid, cost: seconds}
strategy: {name: darts, order: first, seeds: 1, epochs: 2, control: 2}
budget: {trials: 100}
"""
ONE_SHOT = """
name: cells
space: {name: nas_bench_201, ops: [none, nor_conv_1x1]}
task: {name: synthetic, classes: 2, per_class: 10}
evaluator:
  name: one_shot
  cells_per_stage: 1
  channels: 2
  alone: {name: tabular, path: PATH, valid: valid, cost: seconds}
strategy: {name: shared_random_search, rounds: 1, epochs: 1, paths: 3, scored: 4, finalists: 1, audited: 0}
budget: {trials: 100}
"""


@pytest.fixture
def path(tmp_path):
    """All 64 cells: an accuracy in percent, more for each convolution, all different; so twins are distinct."""
    lines = ["arch_str,valid,seconds,loss"]
    for index, ops in enumerate(itertools.product(OPS, repeat=6)):
        lines.append(f"{TEXT.format(*ops)},{50 + 5 * ops.count('nor_conv_1x1') + 0.01 * index},{SECONDS},0.5")
    (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "table.csv"


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def parsed(path, text=CONFIG, *overrides):
    return RunConfig.parse(text.replace("PATH", str(path)), overrides)


def test_derived_cells_and_the_control_are_looked_up(path, tmp_path, monkeypatch):
    monkeypatch.setattr(Standalone, "evaluate", None)
    checked = checks.check_search(parsed(path), str(tmp_path / "pool"))
    evaluator, pool = checked.config.make_evaluator(), MemoryPool()
    executor = SerialExecutor(evaluator, weights=pool)
    SearchLoop(pool, LocalProposer(checked.config.make_strategy()), executor, Budget(trials=100)).run([])
    rows = dict(line.rsplit(",", 3)[:2] for line in path.read_text().splitlines()[1:])
    values = sorted(map(float, rows.values()), reverse=True)
    alone = [trial for trial in pool.finished if trial.proposal.phase is None]
    assert len(alone) == 2, "one was found, and a random one is what its time pays for"
    for trial in alone:
        assert trial.measurement.valid_accuracy == pytest.approx(float(rows[trial.genotype.key]) / 100)
        assert (trial.measurement.device_seconds, trial.measurement.device) == (SECONDS, "table")
        assert (trial.proposal.origin == "control") == (trial.proposal.source_trial_id is None)
    for row, trial in zip(pool.fits, [trial for trial in pool.finished if trial.proposal.phase], strict=False):
        truth = float(rows[trial.measurement.derived_genotype])
        assert row["derived_score"] == trial.measurement.derived_score == pytest.approx(truth / 100)
        assert row["derived_rank"] == trial.measurement.derived_rank == 1 + values.index(truth)


def test_what_the_table_decides_is_recorded_and_its_data_count(path, tmp_path):
    checked = checks.check_search(parsed(path), str(tmp_path / "pool"))
    assert (checked.config.space.settings["twins"], checked.config.evaluator.settings["alone"]["twins"]) == (
        "distinct",
        "distinct",
    )
    assert "images train" in checked.facts.summary
    assert "table.csv: 64 rows" in checked.facts.summary
    assert RunConfig.parse(checked.config.to_yaml()).to_yaml() == checked.config.to_yaml()
    before = checked.manifest["data_hash"]
    path.write_text(path.read_text().replace(",7.0,", ",8.0,"), encoding="utf-8")
    assert checks.check_search(parsed(path), str(tmp_path / "pool")).manifest["data_hash"] != before


def test_its_path_is_made_absolute_and_may_differ_later(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    config = placed(parsed("table.csv"))
    assert config.evaluator.settings["alone"]["path"] == str(path)


def test_so_are_architectures_beside_shared_weights_by_paths(path, monkeypatch):
    monkeypatch.setattr(Standalone, "evaluate", None)
    config = parsed(path, ONE_SHOT)
    genotype = config.make_space().parse(TEXT.format(*["nor_conv_1x1"] * 6))
    measured = config.make_evaluator().evaluate(Proposal(genotype=genotype))
    assert measured.valid_accuracy == pytest.approx((80 + 0.63) / 100)
    assert measured.device_seconds == SECONDS


@pytest.mark.parametrize("text", [CONFIG, ONE_SHOT], ids=["darts", "one_shot"])
@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("evaluator.alone.valid=other", "has no column other; say which in evaluator.alone.*"),
        ("evaluator.alone.path=no.csv", r"cannot read the table .*no.csv: .*; give evaluator.alone.path"),
        ("evaluator.alone.valdi=x", "unknown key evaluator.alone.valdi"),
        ("evaluator.alone={name: tabular, path: PATH, valid: loss, goal: minimize}", "the table's .* is no .*accuracy"),
        ("evaluator.alone.name=tabluar", "evaluator.alone.name"),
        ("space.ops=[none, skip_connect]", "nor_conv_1x1"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(path, tmp_path, text, override, says):
    with pytest.raises((ConfigError, DataError), match=says) as caught:
        checks.check_search(parsed(path, text, override.replace("PATH", str(path))), str(tmp_path / "pool"))
    assert "\n" not in str(caught.value)
