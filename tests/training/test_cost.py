"""What a network costs: times by a clock, memory by the kernel, and what does not fit."""

import resource

import pytest
import torch
from torch import nn

from nao_ray.training import cost

CPU = torch.device("cpu")
IMAGE = torch.empty(1, 3, 4, 4, device="meta")
WORD = torch.empty(1, 1, dtype=torch.int64, device="meta")


class _Widening(nn.Module):
    """Holds `floats` of each image, and tells ten classes."""

    def __init__(self, floats):
        super().__init__()
        self.floats, self.scale = floats, nn.Parameter(torch.ones(1))
        self.seen = []

    def forward(self, images):
        self.seen.append((len(images), self.training, torch.is_grad_enabled()))
        wide = (images.flatten(1)[:, :1] * self.scale).expand(-1, self.floats).exp()
        return wide[:, :10]


class _Clock:
    """Evaluations take 5, 1, 2, 3, ... times `unit` seconds."""

    def __init__(self, unit):
        self.unit, self.calls, self.now = unit, 0, 0.0

    def __call__(self):
        if self.calls % 2:
            self.now += self.unit * (5 if self.calls == 1 else self.calls // 2)
        self.calls += 1
        return self.now


def test_a_latency_is_the_median_of_several_after_the_first_ones():
    network = _Widening(10).train()
    told = cost.latency(network, IMAGE, CPU, _Clock(0.01))
    # batch 1: 50 and 10 ms are warming up; 20, 30, ... until they sum up to a second: 20 to 130 are 0.9 s, 140 the last
    assert told.latency_ms_1 == pytest.approx(80)
    assert [count for count, *_ in network.seen].count(1) == 2 + 13
    # batch 128: goes on with 150 and 160, then 170, ...: six make a second
    assert told.latency_ms_128 == pytest.approx(195)
    assert not any(training or grad for _, training, grad in network.seen)
    assert (told.latency_device, told.latency_threads) == ("cpu", torch.get_num_threads())


def test_what_is_slow_is_evaluated_few_times_and_what_is_fast_not_endlessly():
    slow, fast = _Widening(10), _Widening(10)
    cost.latency(slow, IMAGE, CPU, _Clock(100))
    assert len(slow.seen) == 2 * (1 + 3)
    cost.latency(fast, IMAGE, CPU, _Clock(0))
    assert len(fast.seen) == 2 * (2 + 20)


def test_a_training_step_needs_the_memory_of_what_it_keeps():
    small = cost.training_memory(_Widening(10), IMAGE, CPU)
    large = cost.training_memory(_Widening(2**16), IMAGE, CPU)
    kept = 128 * 2**16 * 4
    assert large - small > kept


def test_a_batch_that_does_not_fit_is_told_and_the_process_goes_on(monkeypatch):
    monkeypatch.setattr(cost, "_free", lambda: 2**25)
    before = resource.getrlimit(resource.RLIMIT_AS)
    network = _Widening(2**20)  # 512 MB of 128 images
    told = cost.latency(network, IMAGE, CPU)
    assert (told.latency_ms_1 is None, told.latency_ms_128) == (False, None)
    assert cost.training_memory(network, IMAGE, CPU) is None
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert "no memory for 128 (" in told.told("image")


def test_another_error_is_none_of_memory():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        cost.latency(nn.Linear(3, 2), torch.empty(1, 5, device="meta"), CPU)


def test_texts_are_evaluated_word_by_word_and_trained_in_windows():
    shapes = []

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(7, 7)

        def forward(self, tokens):
            shapes.append(tuple(tokens.shape))
            return self.words(tokens), (torch.zeros(1),)

    model = Model()
    assert cost.training_memory(model, WORD, CPU) > 0
    cost.latency(model, WORD, CPU, _Clock(1))
    assert set(shapes) == {(128, cost.WORDS), (1, 1), (128, 1)}
    assert cost.step_told(WORD, "token") == "128 texts of 35 tokens"
