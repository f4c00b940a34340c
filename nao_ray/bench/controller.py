"""``nao-ray bench controller``: the reference's procedure of fitting the controller against ours, side by side.

Random genotypes of `nao_cnn_small`, scored by the function that `_landscape` states, with noise; each seed is another
function and another sample. Every method gets the same trials and is judged on the same held-out ones, which it has
never seen. CPU time of this process, one thread; the fits only.

    nao-ray bench controller
    nao-ray bench controller seeds=1 epochs=100 methods=gp
    nao-ray bench controller results=controller.jsonl      resumable: what is in the file is not measured again
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import reference_fit
from nao_ray import rng
from nao_ray.bench._landscape import Landscape
from nao_ray.bench._result import BenchResult, machine
from nao_ray.controllers.gp_controller import GpController, fit_process
from nao_ray.controllers.measures import hamming, pairwise_accuracy, rank_correlation
from nao_ray.controllers.mlp_controller import MlpController
from nao_ray.controllers.pretraining import PretrainingConfig, pretrain
from nao_ray.controllers.sizes import EpdConfig
from nao_ray.errors import ConfigError
from nao_ray.spaces.base import Genotype, SearchSpace, Tokens
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall

Floats = NDArray[np.float64]
Record = dict[str, float | int | str]

NOISE = 0.3
"""Standard deviation of a score's noise, in deviations of the noise-free scores over the space."""
MEASURES = {
    "hamming": "Hamming, trials",
    "heldout_hamming": "Hamming, held out",
    "pairwise": "pairwise, held out",
    "pairwise_noise_free": "pairwise, noise-free",
    "rank_correlation": "rho, noise-free",
    "cpu_seconds": "CPU s per fit",
}
METHODS = {
    "reference": "reference: V1 size, token by token",
    "gp": "ours, default: pretrained, Gaussian process",
}


def run(
    seeds: int = 3,
    epochs: int = 1000,
    trials: int = 600,
    heldout: int = 200,
    methods: str = "reference,gp",
    results: str = "",
) -> BenchResult:
    """Fit every method to the same trials and compare what it costs and how good it is.

    Args:
        seeds: functions and samples; the table shows means over them.
        epochs: of the reference, whose own number is 1000.
        trials: scored genotypes a controller is fitted to.
        heldout: genotypes it is judged on.
        methods: any of `METHODS`, separated by commas.
        results: a file of JSON lines that is continued; empty: nothing is kept.

    Raises:
        ConfigError: there is no such method, or `results` is no file of this measurement.
    """
    chosen = [name.strip() for name in methods.split(",")]
    for name in chosen:
        if name not in METHODS:
            raise ConfigError(f"bench controller methods={methods}: no method {name!r}; known: {', '.join(METHODS)}")
    known = _read(results)
    records: list[Record] = []
    for seed in range(seeds):
        for name in chosen:
            facts: Record = {"method": name, "seed": seed, "trials": trials, "heldout": heldout}
            facts["epochs"] = epochs if name == "reference" else 0
            record = known.get(_key(facts)) or facts | _measure(name, seed, trials, heldout, epochs)
            if results and _key(facts) not in known:
                with Path(results).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
            records.append(record)
    return _summary(records, chosen, seeds=seeds, epochs=epochs, trials=trials, heldout=heldout)


def sample(space: SearchSpace[Any], seed: int, count: int) -> tuple[Tokens, Floats, Floats]:
    """Distinct random genotypes: tokens ``[N, L]``, noisy scores ``[N]``, noise-free scores ``[N]``."""
    landscape, draw = Landscape(space, seed), rng.child(seed, "bench controller")
    genotypes: dict[str, Genotype] = {}
    while len(genotypes) < count:
        genotype = space.sample(draw)
        genotypes.setdefault(genotype.key, genotype)
    tokens = np.stack([space.encode(genotype) for genotype in genotypes.values()])
    noisy = np.array([landscape.measure(genotype, draw, NOISE) for genotype in genotypes.values()])
    return tokens, noisy, np.array([landscape(genotype) for genotype in genotypes.values()])


def _measure(method: str, seed: int, trials: int, heldout: int, epochs: int) -> Record:
    space = NaoCnnSmall()
    tokens, scores, truth = sample(space, seed, trials + heldout)
    fits: dict[str, Callable[[Tokens, Floats], MlpController | GpController]] = {
        "reference": lambda x, y: reference_fit.fit(space, x, y, epochs, seed),
        "gp": lambda x, y: _process(space, x, y, seed),
    }
    began = time.process_time()
    controller = fits[method](tokens[:trials], scores[:trials])
    seconds = time.process_time() - began
    unseen = tokens[trials:]
    predicted, _ = controller.predict(unseen)
    return {
        "hamming": hamming(tokens[:trials], controller.reconstruct(tokens[:trials])),
        "heldout_hamming": hamming(unseen, controller.reconstruct(unseen)),
        "pairwise": pairwise_accuracy(scores[trials:], predicted),
        "pairwise_noise_free": pairwise_accuracy(truth[trials:], predicted),
        "rank_correlation": rank_correlation(truth[trials:], predicted),
        "cpu_seconds": seconds,
    }


def _process(space: SearchSpace[Any], tokens: Tokens, scores: Floats, seed: int) -> GpController:
    pretrained = pretrain(space, EpdConfig(), PretrainingConfig(), seed)
    return fit_process(space, pretrained, tokens, scores, bound=2.0)[0]


def _summary(records: list[Record], methods: list[str], **sizes: int) -> BenchResult:
    means = {
        method: {key: mean(float(r[key]) for r in records if r["method"] == method) for key in MEASURES}
        for method in methods
    }
    base = means.get("reference", {}).get("cpu_seconds")
    rows: list[list[object]] = [
        [METHODS[method], *values.values(), f"1/{base / values['cpu_seconds']:.1f}" if base else "-"]
        for method, values in means.items()
    ]
    notes = [
        f"Means over {sizes['seeds']} seeds; {sizes['trials']} random genotypes of nao_cnn_small and "
        f"{sizes['heldout']} held-out ones, scored by nao_ray/bench/_landscape.py with noise of {NOISE} deviations; "
        f"reference with {sizes['epochs']} epochs, batch 100; one thread; Hamming distance out of 40 tokens.",
        machine(),
    ]
    columns = ["method", *MEASURES.values(), "CPU vs reference"]
    return BenchResult(name="controller", columns=columns, rows=rows, notes=notes, data={"records": records})


def _key(record: Record) -> tuple[float | int | str, ...]:
    return tuple(record[name] for name in ("method", "seed", "trials", "heldout", "epochs"))


def _read(results: str) -> dict[tuple[float | int | str, ...], Record]:
    if not results or not Path(results).exists():
        return {}
    try:
        lines = [line for line in Path(results).read_text(encoding="utf-8").splitlines() if line.strip()]
        records: list[Record] = [json.loads(line) for line in lines]
        return {_key(record): record for record in records if set(MEASURES) <= set(record)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"bench controller results={results}: not a file of this measurement ({error!r})") from None
