"""How predictors are judged."""

import numpy as np
import pytest

from nao_ray.bench import predictor
from nao_ray.errors import ConfigError, DataError


def test_the_rank_of_the_best_of_the_chosen():
    truth = np.array([0.1, 0.9, 0.5, 0.7, 0.8])
    assert predictor.best_rank(truth, truth, top=1) == 1
    assert predictor.best_rank(-truth, truth, top=1) == 5
    assert predictor.best_rank(np.array([5, 0, 4, 3, 0]), truth, top=3) == 3
    assert predictor.best_rank(-truth, truth, top=5) == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"predictors": "gp,nonsense"}, "no predictor 'nonsense'; there are gp, mlp"),
        ({"sizes": "50,x"}, "sizes >= 2 by commas"),
        ({"sizes": 1}, "sizes >= 2 by commas"),
        ({"repeats": 0}, "repeats >= 1"),
    ],
)
def test_wrong_settings_are_named(settings, told):
    with pytest.raises(ConfigError, match=told):
        predictor.run(**settings)


def test_a_missing_table_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("NAO_RAY_DATA", str(tmp_path))
    with pytest.raises(DataError, match="darts_random_214"):
        predictor.run(datasets="")


@pytest.mark.slow
def test_more_architectures_teach_more_and_folds_leave_nothing_out(data_folder, monkeypatch):
    short = {"pretraining": {"steps": 10}}  # of the encoder, which only proposes: predicted is by the descriptors
    monkeypatch.setattr(predictor, "PREDICTORS", {"gp": short})
    result = predictor.run(predictors="gp", datasets="cifar100", sizes="10,50", repeats=1)
    few, many, folds = (dict(zip(result.columns, row, strict=True)) for row in result.rows)
    assert float(few["Kendall tau"].split()[0]) < float(many["Kendall tau"].split()[0])
    assert float(many["Kendall tau"].split()[0]) > 0.6, "published predictors reach 0.6 to 0.8"
    assert many[f"N@{predictor.TOP}"] < 30
    assert (folds["table"], folds["n"], folds["of"]) == ("darts_random_214", 5, 43)
