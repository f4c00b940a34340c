"""The film of a search: every frame is the architecture of its moment, and the page needs nothing but itself."""

import base64
import hashlib
import json
import re
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nao_ray import registry, rng
from nao_ray.errors import ConfigError
from nao_ray.metric import Metric
from nao_ray.report.derived import alarms, training_table
from nao_ray.report.film import MOST_STEPS, UNITS, render_film
from nao_ray.report.pictures.union import edges, placed, union
from nao_ray.report.tracks import Frame, Track, best_trials, tracks_of
from nao_ray.report.write import find_tracks
from nao_ray.spaces.base import ArchGraph, Cell, Edge

ACCURACY = Metric("accuracy")
SPACES = registry.names("space")


def _data(page: str) -> dict:
    """What the page's script reads."""
    return json.loads(re.search(r'<script type="application/json" id="film">(.*?)</script>', page, re.DOTALL)[1])


@settings(max_examples=25)
@given(space=st.sampled_from(SPACES), first=st.integers(0, 10**6), count=st.integers(1, 6))
def test_a_union_has_every_edge_of_its_graphs_and_each_once(space, first, count):
    made = registry.load("space", space)()
    graphs = [made.lower(made.sample(rng.child(4, "union", first + k))) for k in range(count)]
    whole = union(graphs)
    names = edges(whole)
    assert len(set(names)) == len(names)
    shown = set()
    for graph in graphs:
        found = placed(graph, whole)
        shown |= set(found)
        for role, cell in graph.cells:
            every = dict(whole.cells)[role]
            for state, node in enumerate(cell.nodes, cell.inputs):
                here = [name for name in found if name.startswith(f"{role}:{state}:")]
                pairs = [
                    (every.nodes[state - cell.inputs][int(name.split(":")[2])].source, found[name]) for name in here
                ]
                assert sorted(pairs) == sorted((edge.source, edge.op) for edge in node)
            outputs = {int(name.split(":")[2]) for name in found if name.startswith(f"{role}:out:")}
            assert outputs == set(cell.output)
    assert shown == set(names), "no edge that none of them has"


def test_cells_of_other_inputs_make_no_film():
    graphs = [ArchGraph("", (("normal", Cell(n, ((Edge(0, "identity"),),), (n,))),)) for n in (1, 2)]
    with pytest.raises(ConfigError, match="cells of 1 inputs and of others"):
        union(graphs)


def test_trainings_are_tracks_with_alphas_alarms_and_what_was_watched(make_trainings):
    phases, fits = make_trainings(6)
    first, second = tracks_of(phases, phases, fits, ACCURACY)
    assert (first.name, second.name) == ("seed 0", "seed 1")
    assert [frame.label for frame in first.frames] == [f"epoch {epoch}" for epoch in range(1, 7)]
    assert [frame.genotype for frame in second.frames] == phases["derived_genotype"][1::2].tolist()
    assert [frame.alarm for frame in first.frames] == ["", "", "", "skips", "skips", "skips"]
    assert {frame.alarm for frame in second.frames} == {""}
    assert first.curves["skips normal"] == [1, 2, 3, 0, 1, 2]
    assert "alpha eigenvalue" not in first.curves, "it was not asked for"
    assert np.array_equal(first.alphas, np.stack(phases["alphas"][0::2]))


def test_alarms_and_the_last_state_of_trainings(make_trainings):
    phases, fits = make_trainings(6)
    tracks = tracks_of(phases, phases, fits, ACCURACY)
    assert alarms(tracks) == [("seed 0", tracks[0].frames[3])], "once, when it went off first"
    assert training_table(tracks) == (
        ["training", "so far", "skips normal", "entropy normal", "derived"],
        [[f"seed {k}", "epoch 6", "2", "2.079", tracks[k].frames[-1].genotype] for k in (0, 1)],
    )


def test_the_page_has_the_cell_of_every_moment(make_trainings):
    space = registry.load("space", "darts_cnn")()
    phases, fits = make_trainings(9)
    tracks = tracks_of(phases, phases, fits, ACCURACY)
    page = render_film("<digits>", tracks, space)
    data = _data(page)
    graphs = {text: space.lower(space.parse(text)) for text in phases["derived_genotype"]}
    whole = union(list(graphs.values()))
    assert data["edges"] == edges(whole)
    assert [frame[0] for frame in data["tracks"][0]["frames"]] == [f"epoch {k}" for k in range(1, 10)]
    for track, told in zip(tracks, data["tracks"], strict=True):
        for frame, (_, cell, alarm, instead) in zip(track.frames, told["frames"], strict=True):
            text, taken = data["cells"][cell]
            assert (text, alarm, instead) == (frame.genotype, frame.alarm, frame.instead)
            found = placed(graphs[text], whole)
            shown = {name: op for name, op in zip(data["edges"], taken, strict=True) if op >= 0}
            assert shown.keys() == found.keys()
            ops = {name: data["ops"][op][2] for name, op in shown.items() if ":out:" not in name}
            assert ops == {name: space.op_names.get(op, op) for name, op in found.items() if ":out:" not in name}
    assert [data["ops"][op][2] for op in data["mixed"]] == list(space.primitives)
    assert [row[:3] for row in data["relaxed"][:3]] == [
        ["normal", "c_{k-2}", "2"], ["normal", "c_{k-1}", "2"], ["normal", "c_{k-2}", "3"],
    ]  # fmt: skip
    shares = np.array(data["tracks"][1]["alphas"]["shares"])  # [E, O, F]
    assert shares.shape == (28, 8, 9)
    assert np.abs(shares.sum(axis=1) - UNITS).max() <= 4, "none has its share"
    powers = np.exp(np.array(phases["alphas"][3])[8:16])
    assert shares[1, :, 1].tolist() == pytest.approx((UNITS * powers / powers.sum()).tolist(), abs=0.51)


def test_the_page_needs_nothing_and_runs_its_own_script_alone(make_trainings):
    phases, fits = make_trainings(3)
    page = render_film(
        "</script><b>x", tracks_of(phases, phases, fits, ACCURACY), registry.load("space", "darts_cnn")()
    )
    assert "<h1>&lt;/script&gt;&lt;b&gt;x</h1>" in page
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"\b(src|href)\s*=", page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"


class _Hostile:
    """A space whose operations, and genotypes, are called what nobody should call them."""

    op_names: ClassVar = {"identity": "</script><script>alert(1)</script>"}
    primitives = ()

    def parse(self, text):
        return text

    def lower(self, text):
        edges = (Edge(0, "identity"), Edge(0, 'x" onload="alert(1)'), Edge(0, "a\x00\u202e" + "W" * 300))
        return ArchGraph("", (('r"><script>', Cell(1, (edges,), (1,))),))


def test_hostile_names_stay_text():
    track = Track("</script>", [Frame("<i>one</i>", "</script><img src=x onerror=alert(1)>", "</script>")])
    page = render_film("x", [track], _Hostile())
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert 'onload="' not in page.replace("&quot;", "")
    data = _data(page)
    assert data["cells"][0][0] == "</script><img src=x onerror=alert(1)>"
    assert max(len(label) for label, _, _ in data["ops"]) <= 30


def test_a_thousand_epochs_make_a_small_page(make_trainings):
    phases, fits = make_trainings(1000, seeds=2)
    page = render_film("long", tracks_of(phases, phases, fits, ACCURACY), registry.load("space", "darts_cnn")())
    assert len(page) < 1_500_000
    first = _data(page)["tracks"][0]
    assert len(first["frames"]) == 1000, "every epoch can be looked at"
    assert len(first["alphas"]["steps"]) <= MOST_STEPS
    assert (first["alphas"]["steps"][0], first["alphas"]["steps"][-1]) == (0, 999)


def test_alphas_of_edges_are_no_operations(make_trainings):
    """Of partial channels, each behind those of its edge."""
    phases, fits = make_trainings(3, seeds=1)
    space = registry.load("space", "darts_cnn")()
    drawn = [_data(render_film("x", tracks_of(phases, phases, fits, ACCURACY), space))]
    wider = [np.column_stack([np.reshape(alphas, (28, 8)), np.full(28, 7.0)]) for alphas in phases["alphas"]]
    phases["alphas"] = [alphas.ravel().tolist() for alphas in wider]
    drawn.append(_data(render_film("x", tracks_of(phases, phases, fits, ACCURACY), space)))
    first, second = (data["tracks"][0]["alphas"] for data in drawn)
    assert first is not None
    assert first == second


def test_alphas_that_fit_no_relaxed_cell_are_left_out(make_trainings):
    phases, fits = make_trainings(3, seeds=1)
    phases["alphas"] = [[0.0] * 10] * 3
    data = _data(render_film("x", tracks_of(phases, phases, fits, ACCURACY), registry.load("space", "darts_cnn")()))
    assert data["tracks"][0]["alphas"] is None
    phases["alphas"] = None
    assert tracks_of(phases, phases, fits, ACCURACY)[0].alphas is None


@pytest.mark.parametrize("metric", [ACCURACY, Metric("loss", "nats", "minimize")])
def test_any_other_search_shows_each_best_so_far(metric, make_trials, space):
    trials = make_trials(30, failed=3)
    trials["valid_score"] = 4 - 3 * trials["valid_accuracy"]
    (track,) = tracks_of(trials, trials.head(0).assign(derived_genotype=None), pd.DataFrame(), metric)
    values = trials[metric.column][:27].tolist()
    better = [k for k, v in enumerate(values) if all(metric.score(v) > metric.score(other) for other in values[:k])]
    assert best_trials(trials, metric) == better
    assert track.name == "best so far"
    assert [frame.genotype for frame in track.frames] == trials["genotype"][better].tolist()
    assert track.frames[-1].label == f"trial {better[-1]}, {metric.label} {metric.text(values[better[-1]])}"
    assert track.curves[metric.label] == [values[k] for k in better]
    data = _data(render_film("x", [track], space))
    assert (data["relaxed"], data["mixed"]) == ([], [])


def test_a_search_with_shared_weights_shows_the_best_of_each_version_and_those_trained_alone(shared_trials, space):
    trained = shared_trials[shared_trials["phase"].notna()].assign(derived_genotype=None)
    rounds, alone = tracks_of(shared_trials, trained, pd.DataFrame(), ACCURACY)
    scored = shared_trials[shared_trials["weights_version"].notna()]
    best = scored.loc[scored.groupby("weights_version")["valid_accuracy"].idxmax()]
    assert [frame.genotype for frame in rounds.frames] == best["genotype"].tolist()
    assert (rounds.name, alone.name) == ("best of each round, by shared weights", "best so far, trained alone")
    assert alone.frames[0].label.startswith("trial 50, ")
    assert _data(render_film("x", [rounds, alone], space))["tracks"][1]["name"] == alone.name


@pytest.mark.parametrize("strategy", ["darts", "mine:Search"])
def test_the_random_control_is_no_part_of_the_film(strategy, make_trainings, make_trials):
    """A cell without a round was taken for one, though a strategy of one's own marks which are."""
    phases, fits = make_trainings(2)
    alone = make_trials(6).assign(trial_id=range(100, 106), log_index=range(100, 106), round=None)
    if strategy == "darts":  # of before: there were no marks
        alone["round"] = [2, 2, None, 2, None, None]
    else:
        alone["origin"] = [None, None, "control", None, "control", "control"]
    alone["valid_accuracy"] = [0.5, 0.6, 0.9, 0.7, 0.8, 0.99]
    trials = pd.concat([phases, alone], ignore_index=True)

    def of_trials(_columns, ids=None):
        return trials if ids is None else trials[trials["trial_id"].isin(ids)]

    manifest = {"config": {"strategy": {"name": strategy}}}
    track = find_tracks(SimpleNamespace(manifest=manifest, trials=of_trials, fits=lambda: fits))[-1]
    assert [frame.label.split(",")[0] for frame in track.frames] == ["trial 100", "trial 101", "trial 103"]
    assert (track.name, len(track.frames)) == ("best so far, trained alone", 3)


def test_nothing_done_nothing_shown(make_trials):
    trials = make_trials(2, failed=2)
    assert tracks_of(trials, trials.head(0).assign(derived_genotype=None), pd.DataFrame(), ACCURACY) == []
