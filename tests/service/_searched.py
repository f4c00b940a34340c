"""A pool of three cells that next to nothing trains, as a search leaves it."""

from dataclasses import replace

import numpy as np

from nao_ray.pool import PoolWriter
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from tests.pool._made_up_trials import START, make_trial

SEARCH = {
    "name": "first",
    "space": "nao_cnn_small",
    "task": {"name": "synthetic", "per_class": 20},
    "evaluator": {
        "name": "standalone",
        "cells_per_stage": 1,
        "channels": 2,
        "epochs": 1,
        "repeats": 2,
        "recipe": "short_digits",
        "device": "cpu",
    },
    "strategy": "random_search",
    "budget": {"trials": 4},
}


def searched_pool(folder):
    pool = PoolWriter.create(folder, {"config": SEARCH})
    space = NaoCnnSmall()
    with pool.acquire():
        for k in range(3):
            trial = make_trial(k)
            genotype = space.canonical(space.sample(np.random.default_rng(k)))
            trial = replace(trial, proposal=replace(trial.proposal, genotype=genotype))
            pool.record_asked([trial.proposal], START)
            pool.record_finished([trial])
    return pool
