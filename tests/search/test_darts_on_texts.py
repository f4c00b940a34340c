"""DARTS on recurrent cells end to end in this process: a made-up text, cells of two nodes, and their control."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from _stand_in import MemoryPool

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, DataError
from nao_ray.page.bundle import unpacked
from nao_ray.pool import PoolReader
from nao_ray.search.budget import Budget
from nao_ray.search.executor import Desk, SerialExecutor
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.tolerance import Tolerance
from nao_ray.search.trouble import Limits
from nao_ray.training.alternating import Alternating
from nao_ray.training.checkpoint import unpack_version
from nao_ray.trial import TrialState

CONFIG = """
name: cells
space: {name: darts_rnn, nodes: 2}
task: {name: made_up_text, words: 80, letters: 3, gap: 1}
evaluator:
  name: darts
  hidden: 4
  period: 2
  recipe: {name: darts_rnn_search, batch: 4, lr: 1.0}
  alphas: {share: 0.3}
  alone: {hidden: 4, epochs: 1, recipe: {name: short_text, batch: 4, lr: 1.0}}
strategy: {name: darts, seeds: 2, epochs: 2, order: first, control: 2}
budget: {trials: 100}
"""


def search(config, pool):
    log = pool.log()
    executor = SerialExecutor(config.make_evaluator(), weights=pool)
    bears = Tolerance(limits=Limits(bears_failed_phases=config.bears_failed_phases))
    SearchLoop(pool, LocalProposer(config.make_strategy(), log), executor, Budget(trials=100), tolerance=bears).run(log)


def facts(pool):
    """All but the times."""
    times = {"wall_seconds": None, "device_seconds": None, "peak_memory_bytes": None}
    return [
        (trial.proposal, trial.state, replace(trial.measurement, **times))
        for trial in sorted(pool.finished, key=lambda trial: trial.trial_id)
    ]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("order", ["first", "second"])
def test_killed_within_an_epoch_it_goes_on_as_unbroken(order, monkeypatch):
    """The weights' text is read in 11 steps, the alphas' in 5: their state goes on from epoch to epoch."""
    config = RunConfig.parse(CONFIG.replace("order: first", f"order: {order}").replace("seeds: 2", "seeds: 1"))
    unbroken = MemoryPool()
    search(config, unbroken)
    assert all(trial.state is TrialState.COMPLETED for trial in unbroken.finished)
    state, _ = unpack_version(unbroken.weights["s0-e00001"])
    assert state["alpha_carry.0"].shape == (4, 4)
    pool, compute = MemoryPool(), Alternating.compute
    left = 11 + 3  # of 11 steps an epoch

    def killed(self, *arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return compute(self, *arguments)

    monkeypatch.setattr(Alternating, "compute", killed)
    with pytest.raises(Killed):
        search(config, pool)
    monkeypatch.setattr(Alternating, "compute", compute)
    search(config, pool)
    assert facts(pool) == facts(unbroken)
    assert pool.weights == unbroken.weights


def test_a_search_of_two_seeds_their_cells_and_a_control(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells.yaml").write_text(CONFIG)
    done = call("search", "cells.yaml", "--in-process")
    assert done.code == 0, done.err
    pool = PoolReader.open("pools/cells")
    rows = pool.trials()
    phases, cells = rows[rows["phase"].notna()], rows[rows["phase"].isna()]
    assert len(phases) == 4
    assert {len(alphas) for alphas in phases["alphas"]} == {3 * 5}
    assert phases["supernet_score"].between(1, 20).all(), "a perplexity"
    assert phases["valid_perplexity"].isna().all()
    space = RunConfig.parse(CONFIG).make_space()
    for alphas, key in zip(phases["alphas"], phases["derived_genotype"], strict=True):
        assert space.derive([np.reshape(alphas, (3, 5))]).key == key
        assert "none" not in key
    assert cells["valid_perplexity"].between(1, 20).all()
    assert (cells["origin"] == "control").sum() == 2
    fits = pool.fits()
    assert {"none_recurrent", "entropy_recurrent"} <= set(fits)
    assert not [name for name in fits if "skips" in name]
    last = fits.iloc[-1]
    found = cells[cells["origin"] != "control"]
    assert last["best_derived"] == -found["valid_perplexity"].min()
    (told,) = unpacked((tmp_path / "pools" / "cells" / "report.html").read_text())["responses"]["api/pools"]["pools"]
    assert told["metric"]["label"] == "validation perplexity"
    assert told["is_recurrent"]
    assert call("film", "pools/cells", "--out", "film.html").code == 0
    page = (tmp_path / "film.html").read_text()
    data = json.loads(re.search(r'<script type="application/json" id="film">(.*?)</script>', page, re.DOTALL)[1])
    assert [row[:3] for row in data["relaxed"]] == [
        ["recurrent", "0", "1"],
        ["recurrent", "0", "2"],
        ["recurrent", "1", "2"],
    ]
    assert [data["ops"][op][2] for op in data["mixed"]] == ["none", "tanh", "relu", "sigmoid", "identity"]
    assert np.shape(data["tracks"][0]["alphas"]["shares"]) == (3, 5, 2)
    shown = call("describe", f"pools/cells:{found['trial_id'].iloc[0]}", "--draw", "cell.svg")
    assert shown.code == 0, shown.err
    assert "h_t = mean of 1, 2" in shown.out
    assert "h_{t-1}" in shown.out
    assert (tmp_path / "cell.svg").read_text().startswith("<svg")


def test_the_published_search():
    config = RunConfig.parse(
        "{name: x, space: darts_rnn, task: made_up_text, evaluator: darts, strategy: darts, budget: {trials: 1}}"
    )
    evaluator = config.evaluator_config
    recipe, alphas = evaluator.recipe, evaluator.alphas
    assert (evaluator.hidden, evaluator.period) == (300, 50)
    assert (recipe.lr, recipe.lr_end, recipe.batch, recipe.clip_norm, recipe.weight_decay) == (20, 20, 256, 0.25, 5e-7)
    assert (recipe.momentum, recipe.segments, recipe.averaging) == (0, "halved", "none")
    dropped = ("dropout", "dropout_hidden", "dropout_input", "dropout_embedding", "dropout_words")
    assert [getattr(recipe, name) for name in dropped] == [0.75, 0.25, 0.75, 0.2, 0]
    assert (recipe.slowness_penalty, recipe.activation_penalty) == (1e-3, 0)
    assert (alphas.lr, alphas.betas, alphas.weight_decay, alphas.radius) == (3e-3, (0.9, 0.999), 1e-3, 0.01)
    assert alphas.clips
    assert evaluator.alone.recipe.name == "short_text"
    alone = RunConfig.parse(CONFIG.replace("name: short_text, ", "")).evaluator_config.alone
    assert (alone.recipe.name, alone.recipe.batch) == ("short_text", 4), "settings alone are changes of what is usual"
    usual = RunConfig.parse(CONFIG.replace("name: darts_rnn_search, ", "")).evaluator_config.recipe
    assert (usual.name, usual.batch, usual.segments) == ("darts_rnn_search", 4, "halved")
    less = RunConfig.parse(CONFIG.replace("{share: 0.3}", "{lr: 0.1}")).evaluator_config.alphas
    assert (less.lr, less.betas, less.clips, less.share) == (0.1, (0.9, 0.999), True, 0.1)


def trainer(text):
    return RunConfig.parse(text).make_evaluator()._trainer(0, "first")


def test_what_is_dropped_and_punished_reaches_the_supernet():
    told = trainer(CONFIG).network.config
    assert (told.dropout, told.dropout_hidden, told.slowness_penalty, told.hidden) == (0.75, 0.25, 1e-3, 4)


def test_alphas_learn_on_the_validation_text_where_they_are_told_to():
    text = CONFIG.replace("{share: 0.3}", "{split: valid}")
    training, evaluator = trainer(text), RunConfig.parse(text).make_evaluator()
    train, valid = (torch.from_numpy(part) for part in evaluator.task.load())
    assert torch.equal(training.objective.train, train)
    assert torch.equal(training._alpha_objective.train, valid)
    assert "alphas are trained on the validation examples (evaluator.alphas.split), which" in evaluator.facts().line
    apart = trainer(CONFIG)
    assert torch.equal(torch.cat([apart.objective.train, apart._alpha_objective.train]), train)
    assert apart._alpha_objective.recipe.segments == "fixed"


def test_an_eigenvalue_where_it_is_asked_for():
    config = RunConfig.parse(CONFIG.replace("epochs: 2, order", "epochs: 2, eigenvalue: true, order"))
    measured, _ = Desk(config.make_evaluator(), MemoryPool()).work(config.make_strategy().ask(1)[0])
    assert measured.alpha_eigenvalue > 0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("batch: 4, lr: 1.0}\n  alphas", "batch: 4, averaging: nonmonotone}\n  alphas", "recipe.averaging: shared"),
        ("name: darts_rnn_search, batch: 4, lr: 1.0", "name: short_text", "recipe.restarts: shared weights do not"),
        ("period: 2", "augment_alphas: false", "augment_alphas: a text is not augmented; leave it out"),
        ("order: first", "stop_at_skips: 2", "strategy.stop_at_skips: cells of darts_rnn have no skip connections"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_line(old, new, says):
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse(CONFIG.replace(old, new)).make_strategy()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_too_short_for_a_part_is_refused_before_anything_starts():
    """240 tokens train, 24 of them the alphas."""
    evaluator = RunConfig.parse(
        CONFIG.replace("share: 0.3", "share: 0.1").replace("batch: 4", "batch: 5")
    ).make_evaluator()
    with pytest.raises(
        DataError,
        match=r"^task made_up_text: 24 tokens train the alphas \(.*share 0.1\), which make no step of 5 columns",
    ):
        evaluator.facts()


def test_a_validation_text_too_short_for_alphas_is_refused_before_anything_starts():
    short = CONFIG.replace("alphas: {share: 0.3}", "alphas: {split: valid}").replace("batch: 4", "batch: 30")
    with pytest.raises(
        DataError,
        match=r"^task made_up_text: \d+ tokens train the alphas \(.*split valid\), which make no step of 30 ",
    ):
        RunConfig.parse(short).make_evaluator().facts()
    assert (
        "the validation examples"
        in RunConfig.parse(short.replace("batch: 30", "batch: 2")).make_evaluator().facts().line
    )
