"""The measurement of DARTS' step itself, on a tiny supernet: its table, and that both variants make the same step."""

import pytest
import torch
from torch import nn

from nao_ray.bench import darts
from nao_ray.errors import ConfigError


class Small(nn.Module):
    """Called as a relaxed supernet, of which a step takes half a second."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.classifier = nn.Conv2d(3, channels, 3, stride=4), nn.Linear(channels, 10)

    def forward(self, images, alphas):
        return self.classifier(self.conv(images).mean((2, 3))) * sum(alpha.softmax(1)[0, 0] for alpha in alphas)


def test_table(no_processes, monkeypatch):
    no_processes(darts)
    monkeypatch.setattr(darts, "gradient_differences", lambda *_: {"float64": {"first": 1e-14}})
    monkeypatch.setattr(darts, "networks", lambda layers, channels: (Small(channels), Small(channels)))
    result = darts.run(repeats=2, threads=1, batch=2, layers=3, channels=2)
    assert [row[0].partition(":")[0] for row in result.rows] == ["first order"] * 3 + ["second order"] * 3
    assert all(len(times) == 2 for order in result.data["seconds"].values() for times in order.values())


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"device": "tpu"}, "bench darts device=tpu: expected cpu, or cuda where there is one"),
        ({"orders": ["first", "third"]}, "bench darts orders=first,third: expected some of first, second"),
        ({"orders": []}, "bench darts orders=: expected some of first, second"),
    ],
)
def test_what_is_not_there_is_refused(setting, says):
    with pytest.raises(ConfigError, match=f"^{says}$"):
        darts.run(**setting)


def test_gradients_are_those_of_the_plain_one():
    differences = darts.gradient_differences(1, 2, batch=2)
    assert {what for each in differences.values() for what in each} == {"first", "second", "weights"}
    assert max(differences["float64"].values()) < 1e-10
    assert max(differences["float32, smooth"].values()) < 1e-4


def test_the_plain_step_moves_alphas_and_weights():
    step = darts.plain_step("second", 2, 3, 2)
    losses = torch.stack([step() for _ in range(2)])
    assert losses.isfinite().all()
    assert losses[0] != losses[1]
