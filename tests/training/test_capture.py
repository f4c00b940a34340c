import pytest
import torch
import torch.nn.functional as F
from recorder import ReplayRecorder
from torch import nn

from nao_ray import rng
from nao_ray.bench import child
from nao_ray.training import capture
from nao_ray.training.capture import WARM_UP, Capture

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _not_spoilt(monkeypatch):
    monkeypatch.setattr(capture, "_spoilt", False)


class Training:
    """A small training with everything that a graph could freeze: rate, drop path, random numbers, batch norm."""

    def __init__(self, steps, recorder=None, *, frozen=None):
        self.generator = rng.torch_generator(0, "augmentation")
        with rng.torch_seeded(0, "weights"):
            self.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(5))
            self.network(torch.zeros(2, 3, 6, 6))
        self.rate, self.keep = torch.zeros(()), torch.ones(())
        self.optimiser = torch.optim.SGD(self.network.parameters(), self.rate, 0.9, weight_decay=1e-3, fused=True)
        self.total, self.frozen = steps, frozen
        self.capture = Capture(CPU, [self.generator], recorder=recorder)
        self.run = self.capture.of(self._step)

    def _step(self, images, labels):
        keep = float(self.keep) if self.frozen == "keep" else self.keep
        noise = torch.rand(images.shape, generator=self.generator)
        out = self.network(images + 0.1 * noise)
        out = out * (torch.rand(len(out), 1) < keep) / keep
        loss = F.cross_entropy(out, labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0, foreach=True)
        self.optimiser.step()
        return loss.detach()

    def step(self, step, batch=8):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(batch, 3, 6, 6, generator=generator)
        labels = torch.randint(5, (batch,), generator=generator)
        self.rate.fill_(0.5 * (1 - step / self.total))
        self.keep.fill_(1 - 0.5 * step / self.total)
        return self.run(images, labels)

    def steps(self, count):
        with rng.torch_seeded(0, "dropout"):
            return [self.step(step).item() for step in range(count)]


def test_replay_does_what_the_steps_do_through_schedules_drop_path_and_random_numbers():
    recorder = ReplayRecorder()
    eager, graph = Training(60), Training(60, recorder)
    assert graph.steps(60) == eager.steps(60)
    assert (recorder.warmed, recorder.recorded, recorder.replays) == (WARM_UP, 1, 60 - WARM_UP)
    pairs = zip(eager.network.state_dict().values(), graph.network.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert graph.network[1].num_batches_tracked == 61
    assert graph.capture.execution == "graph"
    assert eager.capture.execution == "eager"


def test_a_number_that_is_frozen_is_seen_by_the_stand_in():
    class Frozen(Training):
        def step(self, step, batch=8):
            for group in self.optimiser.param_groups:
                group["lr"] = 0.5 * (1 - step / self.total)
            return super().step(step, batch)

    assert Frozen(20, ReplayRecorder()).steps(20) != Frozen(20).steps(20)


def test_a_batch_of_another_shape_runs_as_it_is():
    recorder = ReplayRecorder()
    eager, graph = Training(20), Training(20, recorder)
    sizes = [8, 8, 8, 8, 8, 3, 8, 8, 3]
    with rng.torch_seeded(0, "dropout"):
        plain = [eager.step(step, size).item() for step, size in enumerate(sizes)]
    with rng.torch_seeded(0, "dropout"):
        assert [graph.step(step, size).item() for step, size in enumerate(sizes)] == plain
    assert recorder.recorded == 1
    assert recorder.replays == sizes.count(8) - WARM_UP


def test_what_cannot_be_recorded_runs_eagerly_says_why_and_spoils_the_process(caplog):
    eager, graph = Training(20, frozen="keep"), Training(20, ReplayRecorder(), frozen="keep")
    assert graph.steps(10) == eager.steps(10)
    why = "RuntimeError: operation not permitted when stream is capturing"
    assert graph.capture.execution == f"eager: {why}"
    assert not graph.capture.is_on
    assert why in caplog.text
    assert capture.is_spoilt()
    assert Capture(torch.device("cuda")).execution == "eager: an earlier recording failed in this process"


def test_a_recording_without_memory_is_out_of_memory():
    class Full(ReplayRecorder):
        def record(self, run):
            try:
                raise torch.OutOfMemoryError("CUDA out of memory")
            except torch.OutOfMemoryError:
                raise RuntimeError("capture failed due to a previous error") from None

    training = Training(10, Full())
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        training.steps(10)
    assert capture.is_spoilt()


def test_execution_says_how_it_was():
    short = Training(10, ReplayRecorder())
    short.steps(WARM_UP)
    assert short.capture.execution == "eager: fewer than 4 steps"
    assert Capture(torch.device("cuda"), execution="eager").execution == "eager"
    with pytest.raises(RuntimeError, match="execution is graph, and nothing can be recorded: it takes CUDA"):
        Capture(CPU, execution="graph")


def test_outputs_are_new_and_may_be_several():
    with Capture(CPU, recorder=ReplayRecorder()) as session:
        run = session.of(lambda x, carry: (x.sum(), carry + x))
        carry, sums = torch.zeros(2), []
        for step in range(8):
            total, carry = run(torch.full((2,), float(step)), carry)
            sums.append(total)
    assert torch.stack(sums).tolist() == [2.0 * step for step in range(8)]
    assert carry.tolist() == [28.0, 28.0]


def test_what_was_recorded_is_given_back():
    recorder = ReplayRecorder()
    with Capture(CPU, recorder=recorder) as session:
        session.of(lambda x: x + 1)(torch.zeros(1))
        session.close()
    assert recorder.closed == 1, "its stream is given back once, or two trainings would have it"


def test_the_step_that_bench_child_has_in_a_graph_trains_as_the_launched_one():
    size = {"batch": 4, "cells_per_stage": 1, "channels": 2}
    (graph, how), (launched, _) = (
        child.stepper_of(variant, recorder=ReplayRecorder(), **size) for variant in (child.GRAPH, "nao_ray")
    )
    assert [graph().item() for _ in range(WARM_UP + 3)] == [launched().item() for _ in range(WARM_UP + 3)]
    assert how() == "graph"
    _, how = child.stepper_of(child.GRAPH, **size)
    assert how() == "eager"
