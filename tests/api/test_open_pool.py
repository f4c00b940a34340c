"""`open_pool`: tables decoded, what is new, figures, and how a pool shows itself."""

import base64
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

import nao_ray
from nao_ray.errors import ConfigError, PoolError
from nao_ray.report import charts
from nao_ray.spaces.base import Genotype


def test_tables_are_those_of_the_pool(told):
    pool = nao_ray.open_pool(told(5).pool.url)
    pd.testing.assert_frame_equal(
        pool.trials(), pd.read_parquet(f"{pool.url}/trials").sort_values("trial_id"), check_dtype=False
    )
    assert pool.trials(["state"], ids=[3])["state"].tolist() == ["FAILED"]
    assert pool.sql("select count(*) as n from trials")["n"].tolist() == [5]
    assert len(pool.best(3)) == 3
    with pytest.raises(ConfigError, match=r"best\(0\): expected how many trials, at least 1"):
        pool.best(0)
    assert pool.fits().empty
    with pytest.raises(PoolError, match="no pool"):
        nao_ray.open_pool(f"{pool.url}/none")


def test_genotypes_are_decoded(told):
    pool = told(5).pool
    texts = pool.trials(["genotype"])["genotype"].tolist()
    assert pool.trials(["genotype"], decode="genotypes")["genotype"].tolist() == [
        pool.space.parse(text) for text in texts
    ]
    assert isinstance(pool.trials(decode="genotypes")["genotype"][0], Genotype)
    counts = pool.trials(["trial_id"], decode="operations").set_index("trial_id")
    assert (counts.sum(axis=1) == 6).all()
    assert counts["op:skip_connect"].tolist() == [text.count("skip_connect") for text in texts]
    edges = pool.trials(["trial_id"], decode="edges").set_index("trial_id")
    assert edges.shape == (5, 6)
    for text, row in zip(texts, edges.to_numpy(), strict=True):  # |nor_conv_3x3~0|+|none~0|...
        assert [f"{source} {op}" for op, source in re.findall(r"(\w+)~(\d)", text)] == list(row)
    with pytest.raises(ConfigError, match="expected genotypes, operations or edges"):
        pool.trials(decode="tokens")


def test_embeddings_are_a_matrix(told, guided):
    pool = guided().pool
    assert told(3).pool.embeddings().shape == (0, 0)
    points = pool.embeddings()
    table = pool.trials(["trial_id", "embedding"]).dropna().set_index("trial_id")["embedding"]
    assert points.shape == (len(table), 3) == (8, 3)
    np.testing.assert_array_equal(points.loc[table.index[-1]].to_numpy(), table.iloc[-1])


def test_what_is_new_comes_once_and_reads_what_is_new_alone(told, monkeypatch):
    study = told(4)
    pool = nao_ray.open_pool(study.pool.url)
    news = pool.watch(["trial_id", "valid_accuracy"], every=0)
    assert next(news)["trial_id"].tolist() == [0, 1, 2, 3]
    monkeypatch.setattr(pool, "trials", None)  # the whole table is not asked for
    trial = study.ask()
    study.tell(trial, 0.5)
    assert next(news).to_dict("list") == {"trial_id": [4], "valid_accuracy": [0.5]}
    trial = study.ask()
    study.tell(trial, 0.25)
    study.close()
    assert [new["trial_id"].tolist() for new in news] == [[5]]  # and ends, for nobody writes any more
    with pytest.raises(PoolError, match="no column 'score'"):
        next(nao_ray.open_pool(study.pool.url).watch(["score"]))


def test_every_figure_draws_on_an_axes_and_says_what_it_lacks(told, guided):
    pool = guided().pool
    drawn = ["best_over_time", "best_over_trials", "fit_quality", "map_of_embeddings", "predicted_and_measured"]
    drawn += ["scores_by_round", "size_and_score"]
    lacking = {"mean_and_best": "shared weights", "shared_and_alone": "not audited"}
    assert sorted(dir(pool.plot)) == sorted([*drawn, *lacking])
    for name in drawn:
        _, axes = pyplot.subplots()
        assert getattr(pool.plot, name)(axes) is axes
        assert axes.get_xlabel()
        assert axes.collections or axes.lines
    for name, what in lacking.items():
        with pytest.raises(PoolError, match=what):
            getattr(pool.plot, name)()
    axes = pool.plot.best_over_trials()
    assert axes.figure.get_size_inches().tolist() == list(charts.SIZE)
    scores = pool.trials(["valid_accuracy"])["valid_accuracy"]
    (line,) = axes.lines
    assert line.get_ydata()[-1] == scores.max()
    pool = told(0).pool
    for name in drawn:
        with pytest.raises(PoolError, match=r"no completed trial|no fit"):
            getattr(pool.plot, name)()


def test_it_shows_itself_in_a_line_and_in_html(told):
    study = told(5, trials=9)
    best = study.pool.best(1).iloc[0]
    text = repr(study.pool)
    assert re.fullmatch(r"<Pool \S+: 5 of 9 trials, 1 failed, best 0\.\d{4} \(trial \d\)>", text)
    assert f"best {best['valid_accuracy']:.4f} (trial {best['trial_id']})" in text
    html = study.pool._repr_html_()
    assert "5 of 9 trials, 1 failed" in html
    assert html.count("<tr>") == 5  # a heading and the completed ones
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert len(pictures) == 2
    assert base64.b64decode(pictures[0]).decode().startswith("<svg")
    assert "<script" not in html
    assert "http" not in html


def test_a_pool_that_is_gone_still_shows_itself(told):
    import shutil

    study = told(2)
    pool = nao_ray.open_pool(study.pool.url)
    study.close()
    shutil.rmtree(pool.url)
    assert re.match(r"<Pool \S+: .*\bno pool", repr(pool))
    assert "no pool" in pool._repr_html_()
