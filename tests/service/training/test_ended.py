"""What a full training leaves beside its weights: what it costs in its row, a card, a picture."""

import pandas as pd
import pytest

from nao_ray.config import TrainConfig
from nao_ray.export import card
from nao_ray.pool import Finals
from nao_ray.service.training import ended
from nao_ray.service.training.train import train
from nao_ray.training import cost

WHAT = {
    "space": {"name": "nao_cnn_small"},
    "genotype": " ".join(["0 4 1 2 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2),
    "task": {"name": "synthetic", "per_class": 20},
}
COSTS = ("peak_memory_bytes", "latency_ms_1", "latency_ms_128", "latency_device", "latency_threads")


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(cost, "_SECONDS", 0)


def _trained(folder):
    config = TrainConfig.make("short_digits", WHAT, ("channels=2", "epochs=1", "recipe.batch=24"))
    return train(config, str(folder), "cell")


def test_a_row_says_what_the_network_costs(tmp_path):
    row = _trained(tmp_path)
    (read,) = pd.read_parquet(tmp_path / "final").to_dict("records")
    assert all(read[name] == row[name] for name in COSTS)
    assert row["peak_memory_bytes"] > 10_000_000
    assert 0 < row["latency_ms_1"] < row["latency_ms_128"]
    assert (row["latency_device"], row["latency_threads"] >= 1) == ("cpu", True)


def test_a_card_and_its_picture_stand_beside_the_checkpoint(tmp_path):
    row = _trained(tmp_path)
    checkpoint = tmp_path / row["checkpoint"]
    told = checkpoint.with_name(f"{checkpoint.name}.md").read_text()
    for part in (
        f"# {row['name']}", f"| test accuracy | {row['test_accuracy']:.4f} (loss ", "| validation accuracy | ",
        f"| latency | {cost.told(row, 'image')['latency']} |", "MB of the whole process in training |",
        WHAT["genotype"], "lr: 0.1\n", f"nao-ray evaluate {checkpoint.name}", f"({checkpoint.name}.svg)",
    ):  # fmt: skip
        assert part in told
    assert checkpoint.with_name(f"{checkpoint.name}.svg").read_text().startswith("<svg")


def test_a_training_that_is_gone_on_with_elsewhere_knows_no_memory(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ended, "write", lambda *_: pytest.fail("killed"))
        with pytest.raises(BaseException, match="killed"):
            _trained(tmp_path)
    row = _trained(tmp_path)
    assert row["peak_memory_bytes"] is None
    assert row["latency_ms_1"] > 0


def _broken(*_):
    raise ValueError("by no means")


def test_what_cannot_be_measured_or_drawn_is_told_and_ends_no_training(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cost, "latency", _broken)
    monkeypatch.setattr(card, "draw_cells", _broken)
    row = _trained(tmp_path)
    assert [row[name] for name in COSTS[1:]] == [None] * 4
    assert 0 <= row["test_accuracy"] <= 1
    assert (tmp_path / row["checkpoint"]).exists()
    assert "its latency could not be measured: by no means" in caplog.text
    assert "has no card: by no means" in caplog.text


def test_rows_of_before_know_no_cost(tmp_path):
    row = _trained(tmp_path)
    place = tmp_path / "final" / f"{row['name']}.parquet"
    pd.read_parquet(place).drop(columns=list(COSTS)).to_parquet(place)
    old = Finals(str(tmp_path)).row(row["name"])
    assert cost.told(old, "image") == {}
    assert _trained(tmp_path) == old
