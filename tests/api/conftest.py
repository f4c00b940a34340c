"""Pools of studies, which need neither Ray nor networks."""

import pytest
from _guided import value_of

import nao_ray


@pytest.fixture(autouse=True)
def _no_window(monkeypatch):
    """matplotlib draws into memory; figures of pyplot are closed."""
    import matplotlib

    monkeypatch.setenv("MPLBACKEND", "agg")
    matplotlib.use("agg")
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.fixture
def told(tmp_path):
    """`told(n)`: a study of `nas_bench_201` by random search, of which n trials were told, the fourth failed."""
    studies = []

    def make(n=8, folder="pool", **settings):
        given = {"space": "nas_bench_201", "strategy": "random_search", "pool": tmp_path / folder, **settings}
        study = nao_ray.Study(**given)
        studies.append(study)
        for k in range(n):
            trial = study.ask()
            study.tell(
                trial, **({"failed": "why not"} if k == 3 else {"value": value_of(trial), "num_params": 1000 + k})
            )
        return study

    yield make
    for study in studies:
        study.close()


@pytest.fixture
def guided(told, fresh_modules):
    """The pool of a study whose strategy has rounds, embeddings, predictions and a fit; as `told`."""

    def make(n=12):
        return told(n, "guided", strategy="_guided:Guided")

    return make
