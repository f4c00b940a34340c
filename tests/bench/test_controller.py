"""The controller's measurement: fair inputs, the reference's procedure, and a file it continues."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import reference_fit
from nao_ray import rng
from nao_ray.bench import controller
from nao_ray.bench._landscape import CENTRE, UNIT, Landscape
from nao_ray.controllers.epd import Epd
from nao_ray.controllers.pretraining import PretrainingConfig
from nao_ray.controllers.sizes import SIZES
from nao_ray.errors import ConfigError
from nao_ray.spaces.nao_cnn import NaoCnn
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall

SMALL = {"seeds": 1, "epochs": 1, "trials": 30, "heldout": 20}


@pytest.mark.parametrize("space", [NaoCnn(), NaoCnnSmall()])
def test_the_landscape_is_a_function_of_the_architecture(space: NaoCnn | NaoCnnSmall) -> None:
    landscape, draw = Landscape(space, 3), rng.child(0, "landscape test")
    genotypes = [space.sample(draw) for _ in range(300)]
    scores = np.array([landscape(genotype) for genotype in genotypes])
    assert scores.mean() == pytest.approx(CENTRE, abs=0.2 * UNIT)
    assert scores.std() == pytest.approx(UNIT, rel=0.2)
    tokens = np.stack([space.encode(genotype) for genotype in genotypes[:20]])
    twins = [space.decode(row) for row in space.twins(tokens, draw)]
    assert [landscape(twin) for twin in twins] == pytest.approx(scores[:20].tolist()), "twins are one architecture"
    assert Landscape(space, 3)(genotypes[0]) == scores[0]
    assert Landscape(space, 4)(genotypes[0]) != scores[0]


def test_the_reference_decodes_what_one_call_decodes() -> None:
    space = NaoCnnSmall()
    tokens, _, _ = controller.sample(space, 0, 8)
    with rng.torch_seeded(0, "reference"), torch.no_grad():
        epd = Epd(SIZES["v1"], space.vocabulary, space.length, space.tokens_per_step).eval()
        shown = torch.from_numpy(tokens)
        memory = epd.encode(shown)
        point = epd.embed(memory)
        one_by_one = reference_fit._token_by_token(epd.decoder, memory, point, shown)
        at_once = torch.log_softmax(epd.decoder.teach(memory, point, shown), dim=-1)
    torch.testing.assert_close(one_by_one, at_once)


def test_the_reference_swaps_one_node_of_each_cell() -> None:
    tokens, _, _ = controller.sample(NaoCnnSmall(), 0, 50)
    swapped = reference_fit._swapped(tokens, rng.child(0, "swap"))
    nodes, others = tokens.reshape(-1, 2, 5, 2, 2), swapped.reshape(-1, 2, 5, 2, 2)
    changed = (nodes != others).any(axis=(3, 4)).sum(axis=2)
    assert changed.max() == 1
    assert changed.mean() > 0.7, "but for nodes with two equal edges"
    assert np.array_equal(
        np.where((nodes != others).any(axis=(3, 4))[..., None, None], others[..., ::-1, :], nodes), nodes
    )


def test_every_method_is_measured_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.jsonl"
    monkeypatch.setattr(controller, "PretrainingConfig", lambda: PretrainingConfig(steps=20, genotypes=60))
    first = controller.run(**SMALL, results=str(file), methods="reference,gp")
    assert [row[0] for row in first.rows] == [controller.METHODS[name] for name in ("reference", "gp")]
    assert "1/1.0" in first.table
    assert "30 random genotypes" in first.table
    monkeypatch.setattr(controller, "_measure", lambda *_: pytest.fail("measured again"))
    assert controller.run(**SMALL, results=str(file), methods="reference,gp") == first
    file.write_text("no JSON\n")
    with pytest.raises(ConfigError, match="not a file of this measurement"):
        controller.run(**SMALL, results=str(file))
    with pytest.raises(ConfigError, match="no method 'theirs'; known: reference"):
        controller.run(methods="theirs")
