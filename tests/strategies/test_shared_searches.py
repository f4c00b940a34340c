"""Searches with shared weights: what is trained and scored when, and what is learnt from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nao_ray import registry
from nao_ray.controllers.policy_gradient import PolicyGradient
from nao_ray.strategies.parts.shared_search import SharedSearch, audit, random_genotypes
from nao_ray.trial import Fidelity, Measurement, Proposal, Trial

SPACE = registry.load("space", "nao_cnn_small")()
TINY = {"preset": "default", "predictor": "gp", "round_size": 4, "pretraining": {"steps": 20, "genotypes": 50}}


def make(name: str, **settings: Any) -> SharedSearch[Any]:
    cls = registry.load("strategy", name)
    strategy: SharedSearch[Any] = cls(SPACE, cls.Config(**settings), 3, Fidelity(epochs=7))
    return strategy


def score(proposal: Proposal) -> float:
    """Shared scores depend on the version; a network on its own has another."""
    ops = [int(word) for word in proposal.genotype.key.split()[1::2]]
    version = int((proposal.fidelity.weights_version or "e99")[1:])
    return 0.3 + 0.0005 * sum(place * op for place, op in enumerate(ops)) + 0.0001 * version


def run(strategy: SharedSearch[Any]) -> tuple[list[Proposal], list[dict[str, Any]]]:
    """The whole search, everything that may be done at once asked at once."""
    asked: list[Proposal] = []
    while not strategy.done:
        proposals = strategy.ask(10_000)
        assert proposals, "stuck"
        asked += proposals
        for proposal in reversed(proposals):  # the order of the results does not matter
            scored = Measurement(train_loss=1.0) if proposal.phase else Measurement(valid_accuracy=score(proposal))
            strategy.tell([Trial(proposal=proposal, attempt=1).complete(scored, log_index=strategy.num_told)])
    return asked, [dict(row) for row in strategy.diagnostics()]


def phases(asked: list[Proposal]) -> list[Any]:
    return [proposal.phase for proposal in asked if proposal.phase]


def test_nao_trains_its_pool_in_versions_and_replaces_the_worst() -> None:
    settings = {"rounds": 3, "epochs": 5, "epochs_per_version": 2, "pool": 10, "finalists": 2, "audited": 4}
    asked, rows = run(make("nao_shared", **settings, controller=TINY))
    assert [(p.first_epoch, p.last_epoch) for p in phases(asked)] == [
        (0, 2), (2, 4), (4, 5), (5, 7), (7, 9), (9, 10), (10, 12), (12, 14), (14, 15)
    ]  # fmt: skip
    assert [p.source for p in phases(asked)] == [None, *[p.version for p in phases(asked)[:-1]]]
    scored = {version: [p for p in asked if p.fidelity.weights_version == version] for version in ("e00005", "e00010")}
    first, second = ({p.genotype.key: score(p) for p in each} for each in scored.values())
    assert len(first) == len(second) == 10
    kept = first.keys() & second.keys()
    assert len(kept) == 6
    assert min(first[key] for key in kept) >= max(first[key] for key in first.keys() - kept)
    assert set(phases(asked)[3].genotypes) == second.keys(), "what is scored is what was trained"
    alone = [p for p in asked if p.phase is None and p.fidelity.weights_version is None]
    assert all(p.fidelity == Fidelity(epochs=7) for p in alone)
    assert 4 <= len(alone) <= 6
    assert [row["round"] for row in rows] == [0, 1, 3]
    assert rows[-1]["audited"] == 4
    assert rows[-1]["audit_tau_low"] <= rows[-1]["audit_tau"] <= rows[-1]["audit_tau_high"]


def test_v2_trains_what_is_new_by_size_and_scores_everything_again() -> None:
    asked, _ = run(make("nao_shared", preset="nao_v2", rounds=3, epochs=1, pool=10, controller=TINY))
    assert [len(p.genotypes) for p in phases(asked)] == [10, 4, 4]
    assert {p.sampling for p in phases(asked)} == {"size"}
    sizes = [sum(p.fidelity.weights_version == f"e{epoch:05d}" for p in asked) for epoch in (1, 2, 3)]
    assert sizes == [10, 14, 18]


def test_sizes_are_counted_once_a_search() -> None:
    settings = {"preset": "nao_v2", "rounds": 2, "epochs": 2, "epochs_per_version": 1, "pool": 10, "controller": TINY}
    strategy, counted = make("nao_shared", **settings), list[str]()
    strategy.num_params = lambda genotype: counted.append(genotype.key) or len(genotype.key)  # type: ignore[func-returns-value]
    asked, _ = run(strategy)
    assert len(counted) == len(set(counted)) == 14
    for phase in phases(asked):
        assert phase.num_params == tuple(map(len, phase.genotypes))
    again, counted[:] = make("nao_shared", **settings), []
    again.num_params = strategy.num_params
    done = Trial(proposal=asked[0], attempt=1).complete(Measurement(train_loss=1.0), log_index=0)
    again.restore([done])
    assert again.ask(1) == [asked[1]], "the same genotypes"
    assert counted == []


def test_enas_trains_what_its_policy_draws_and_updates_it_batch_by_batch() -> None:
    settings = {"rounds": 3, "paths": 7, "updates": 2, "candidates": 5, "audited": 0, "finalists": 1}
    asked, rows = run(make("enas", **settings, lstm={"num_aggregate": 4}))
    assert {p.fidelity.valid_share for p in asked if p.round == 0} == {None}, "rewards are taken on batches"
    last = [p for p in asked if p.round == 3 and p.fidelity.weights_version]
    assert {p.fidelity for p in last} == {Fidelity(weights_version="e00003", valid_share=1.0)}
    assert len(last) == 5
    assert [len(p.genotypes) for p in phases(asked)] == [7, 7, 7]
    assert {p.sampling for p in phases(asked)} == {"given"}
    per_version = [sum(p.fidelity.weights_version == p2.version for p in asked) for p2 in phases(asked)]
    assert per_version[:2] == [8, 8], "two updates of four draws"
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    assert rows[0]["num_sequences"] == 4


def cells(name: str, space: str, **settings: Any) -> SharedSearch[Any]:
    cls = registry.load("strategy", name)
    home = registry.load("space", space)()
    strategy: SharedSearch[Any] = cls(home, cls.Config(**settings), 3, Fidelity(epochs=7))
    return strategy


def perplexity(proposal: Proposal) -> float:
    return 80.0 + 40.0 * proposal.genotype.key.count("relu")


def run_texts(strategy: SharedSearch[Any]) -> tuple[list[Proposal], list[dict[str, Any]]]:
    """As `run`, of perplexities."""
    asked: list[Proposal] = []
    while not strategy.done:
        for proposal in strategy.ask(10_000):
            asked.append(proposal)
            scored = Measurement(train_loss=1.0)
            if proposal.phase is None:
                scored = Measurement(valid_perplexity=perplexity(proposal))
            strategy.tell([Trial(proposal=proposal, attempt=1).complete(scored, log_index=strategy.num_told)])
    return asked, [dict(row) for row in strategy.diagnostics()]


def test_enas_is_rewarded_by_80_over_the_perplexity(monkeypatch: pytest.MonkeyPatch) -> None:
    rewards: list[float] = []
    update = PolicyGradient.update
    monkeypatch.setattr(
        PolicyGradient, "update", lambda self, tokens, given: rewards.extend(given) or update(self, tokens, given)
    )
    settings = {"preset": "enas_rnn", "rounds": 1, "paths": 4, "updates": 1, "candidates": 3, "audited": 0}
    asked, rows = run_texts(cells("enas", "enas_rnn", **settings))
    first = [80 / perplexity(proposal) for proposal in asked if proposal.round == 0 and proposal.phase is None]
    assert len(rewards) == 10
    assert sorted(set(rewards)) == pytest.approx(sorted(set(first)))
    assert rows[0]["mean_score"] == pytest.approx(-np.mean(80 / np.array(rewards))), "the score is a perplexity's"


def test_nao_learns_about_texts_from_losses_and_takes_random_cells_in() -> None:
    settings = {"preset": "nao_ws_rnn", "rounds": 2, "epochs": 1, "pool": 20, "random": 3, "audited": 0}
    strategy = cells("nao_shared", "nao_rnn", **settings, controller={**TINY, "top_k": 10})
    targets: list[np.ndarray] = []
    fit = strategy._fit  # type: ignore[attr-defined]
    strategy._fit = lambda index, tokens, given: targets.append(given) or fit(index, tokens, given)  # type: ignore[attr-defined]
    asked, _ = run_texts(strategy)
    first, second = ([p for p in asked if p.round == index and p.phase is None] for index in (0, 1))
    np.testing.assert_allclose(np.sort(targets[0]), np.sort([-np.log(perplexity(p)) for p in first]))
    assert len(second) == 20
    new = [p for p in second if p.genotype.key not in {q.genotype.key for q in first}]
    assert len(new) == 4 + 3
    predicted = [p.predicted_score for p in new if p.predicted_score is not None]
    assert len(predicted) == 4
    assert all(-1000 < score < -10 for score in predicted), "in the unit of scores"


@pytest.mark.parametrize(
    ("name", "settings", "scores"),
    [
        ("nao_shared", {"pool": 10, "controller": TINY}, 3 * 10),
        ("nao_shared", {"preset": "nao_v2", "pool": 10, "controller": TINY}, 10 + 14 + 18),
        ("enas", {"paths": 7, "updates": 2, "candidates": 5, "lstm": {"num_aggregate": 4}}, 3 * 8 + 5),
        ("shared_random_search", {"paths": 3, "scored": 9}, 3 * 9),
    ],
)
def test_a_search_knows_how_much_it_will_ask(name: str, settings: dict[str, Any], scores: int) -> None:
    strategy = make(name, rounds=3, epochs=3, epochs_per_version=2, finalists=2, audited=4, **settings)
    assert strategy.planned == 3 * 2 + scores + 2 + 4
    asked, _ = run(strategy)
    assert strategy.planned == len(asked) >= 3 * 2 + scores + 4


def test_a_pool_without_room_for_its_best_is_refused_in_a_line() -> None:
    says = r"pool: 10 hold none of the best beside the 11 that a round brings \(random 7, controller.round_size 4\)"
    with pytest.raises(ValueError, match=says):
        make("nao_shared", pool=10, random=7, controller=TINY)
    make("nao_shared", pool=11, random=7, controller=TINY)
    make("nao_shared", preset="nao_v2", pool=10, random=7, controller=TINY)  # which keeps them all


def test_no_more_is_drawn_than_a_space_has(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = registry.load("space", "nao_rnn")
    space = kind(kind.Config(nodes=2))
    draws: list[int] = []
    sample = kind.sample
    monkeypatch.setattr(kind, "sample", lambda self, generator: draws.append(0) or sample(self, generator))
    found = random_genotypes(space, 1000, np.random.default_rng(0))
    assert len(found) == space.num_architectures == 26
    assert len(draws) < 1000, "20,000 where nobody looks how many there are"


def test_the_audit_tells_agreement_from_noise() -> None:
    values = np.arange(30.0)
    same, against = audit(values, values**3, 0), audit(values, -values, 0)
    assert same["audit_tau"] == pytest.approx(1)
    assert against["audit_tau_high"] == pytest.approx(-1)
    noise = audit(values, np.random.default_rng(0).normal(size=30), 0)
    assert noise["audit_tau_low"] < 0 < noise["audit_tau_high"]
    assert audit(values[:2], values[:2], 0)["audit_tau"] is None
    assert audit(values, np.zeros(30), 0)["audit_tau"] is None


def test_fair_paths_use_every_choice_of_a_place_once_before_any_again() -> None:
    space = registry.load("space", "nas_bench_201")()
    settings = {"rounds": 2, "epochs": 1, "paths": 12, "scored": 2, "finalists": 0, "audited": 0, "sampling": "fair"}
    cls = registry.load("strategy", "shared_random_search")
    asked, _ = run(cls(space, cls.Config(**settings), 3, Fidelity(epochs=7)))
    first, second = phases(asked)
    assert first.sampling == "given"
    assert first.genotypes != second.genotypes
    assert len(first.genotypes) == 12
    drawn = np.stack([space.encode(space.parse(text)) for text in first.genotypes])
    for group in (drawn[:5], drawn[5:10]):
        assert (np.sort(group, axis=0) == np.arange(1, 6)[:, None]).all()
    assert all(len(set(column)) == 2 for column in drawn[10:].T)
    assert len({tuple(row) for row in drawn[:5] - drawn[:5, :1]}) > 1, "edges are drawn apart"


def test_random_paths_may_be_drawn_by_size() -> None:
    settings = {"rounds": 1, "epochs": 1, "paths": 3, "scored": 2, "finalists": 0, "audited": 0, "sampling": "size"}
    strategy = make("shared_random_search", **settings)
    strategy.num_params = lambda genotype: len(genotype.key)
    (phase,) = phases(run(strategy)[0])
    assert phase.sampling == "size"
    assert phase.num_params == tuple(map(len, phase.genotypes))
