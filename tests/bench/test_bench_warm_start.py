"""Searches after searches: who learns from whom, what is compared, and that a study goes on where it stopped."""

import json

import pandas as pd
import pytest

from nao_ray.bench import warm_start
from nao_ray.errors import ConfigError
from nao_ray.metric import ACCURACY, to_plain
from nao_ray.spaces.base import Genotype
from nao_ray.trial import Measurement, Proposal, Trial


@pytest.fixture
def asked(monkeypatch):
    """Searches that were done: (data set, seed, kind, earlier pools); a cold one takes 8 queries, a helped one 3."""
    done = []

    def perform(search, earlier, kept):
        done.append((search.table, search.seed, search.label, earlier))
        queries = 3 if search.label == "as it was" else 8
        for k in range(queries):
            proposal = Proposal(genotype=Genotype("nas_bench_201", f"{search.table}{search.seed}-{k}"), trial_id=k)
            kept.trials.append(Trial(proposal=proposal).complete(Measurement(valid_accuracy=0.1 * k), log_index=k))
        kept.fits += [{"round": 1, "warm_start": "on" if queries == 3 else "off"}] if earlier else [{"round": 1}]
        about = {"queries": queries, "queries_to_optimum": queries, "max_queries": search.max_queries}
        about |= {"curve_valid": [0.5] * (queries - 1) + [0.9], "best_valid_of_table": 0.9}
        return about | {"metric": json.dumps(to_plain(ACCURACY))}

    monkeypatch.setattr(warm_start, "perform", perform)
    monkeypatch.setattr(warm_start, "open_table", lambda _: (None, "hash"))
    monkeypatch.setattr(warm_start, "made", lambda work, todo, _: {k: work(job) for k, job in todo.items()})
    return done


def study(**settings):
    usual = {"path": "t.parquet", "datasets": "a,b", "valid": "{dataset}", "seeds": 2, "max_queries": 20}
    return warm_start.run(**{**usual, **settings})


def test_each_learns_from_the_next_seed_on_the_other_data_set(asked):
    result = study()
    cold = [search for search in asked if search[2] == "cold"]
    assert [search[:2] for search in cold] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert all(search[3] == () for search in cold)
    helped = {(table, seed, kind): earlier for table, seed, kind, (earlier,) in (s for s in asked if s[3])}
    assert len(helped) == 12
    plain = helped["b", 0, "as it was"]
    assert plain.genotypes == tuple(f"a1-{k}" for k in range(8))
    assert plain.scores == pytest.approx([0.1 * k for k in range(8)])
    assert helped["b", 0, "inverted"].scores == tuple(-score for score in plain.scores)
    shuffled = helped["b", 0, "shuffled"].scores
    assert (sorted(shuffled), shuffled != plain.scores) == (sorted(plain.scores), True)
    rows = {(row[0], row[1], row[2]): row[3:] for row in result.rows}
    assert rows["a", "b", "cold"][:3] == [2, "8.0 ± 0.0", ""]
    assert rows["a", "b", "as it was"] == [2, "3.0 ± 0.0", "5.0 ± 0.0", "0.000 ± 0.000", "100%"]
    assert rows["b", "a", "inverted"][-1] == "0%"


def test_a_study_goes_on_where_it_stopped(asked, tmp_path):
    first = study(results=str(tmp_path), starts="as it was")
    count = len(asked)
    assert len(pd.read_parquet(tmp_path)) == count == 8
    assert study(results=str(tmp_path), starts="as it was").rows == first.rows
    assert len(asked) == count
    study(results=str(tmp_path), starts="as it was,inverted")
    assert len(asked) == count + 4


def test_what_is_no_setting_is_refused():
    with pytest.raises(ConfigError, match="no start 'upside down'; there are as it was, shuffled, inverted"):
        study(starts="upside down")
    with pytest.raises(ConfigError, match="two data sets at least"):
        study(datasets="a")
