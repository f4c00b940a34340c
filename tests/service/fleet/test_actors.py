"""What an actor finds out about its machine."""

import os
import socket
from functools import partial
from types import SimpleNamespace

import psutil
import pytest

from nao_ray import rng
from nao_ray.config import RunConfig
from nao_ray.errors import DataError
from nao_ray.service.fleet import actors
from nao_ray.service.fleet.actors import EvaluatorActor, Place, interface_of
from nao_ray.service.fleet.worker import Gpu
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.trial import FailureKind, Measurement, Proposal

SPACE = NaoCnnSmall()
CHILD = """
name: child
space: nao_cnn_small
task: synthetic
evaluator: {name: standalone, epochs: 1, channels: 4, cells_per_stage: 1, recipe: {batch: 8, crop_padding: 1}}
strategy: random_search
budget: {trials: 1}
"""


def test_the_interface_of_an_address_is_named():
    loopback = interface_of("127.0.0.1")
    assert loopback is not None
    addresses = psutil.net_if_addrs()[loopback]
    assert any(found.family is socket.AF_INET and found.address == "127.0.0.1" for found in addresses)


def test_an_address_of_another_machine_has_none():
    assert interface_of("203.0.113.7") is None


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (None, None),
        (DataError("no images in /data"), None),  # the evaluation that needs them says so
        (RuntimeError("No CUDA GPUs are available"), "RuntimeError: No CUDA GPUs are available"),
    ],
)
def test_what_every_trial_needs_is_at_hand_before_the_first(monkeypatch, error, fault):
    calls = []

    def prepare():
        calls.append("prepare")
        if error is not None:
            raise error

    monkeypatch.setattr(actors, "_place", lambda: Place("n", 1))
    found = EvaluatorActor().start(lambda: SimpleNamespace(prepare=prepare)).fault
    assert calls == ["prepare"]
    assert (found and found.split(" (in ")[0]) == fault


@pytest.fixture(autouse=True)
def _visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")


def test_a_worker_that_is_given_no_gpu_sees_none(monkeypatch):
    monkeypatch.setattr(actors, "_place", lambda: Place("n", 1))
    seen = []
    EvaluatorActor().start(
        lambda: SimpleNamespace(prepare=lambda: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]), uses_gpu=True)
    )
    assert seen == [""]


def test_a_worker_that_is_given_a_gpu_it_cannot_use_does_not_train_on_the_cpu(monkeypatch):
    monkeypatch.setattr(actors, "_place", lambda: Place("n", 1, "gpu:1"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    seen = []
    make = partial(SimpleNamespace, prepare=lambda: seen.append("prepared"))
    fault = EvaluatorActor().start(lambda: make(uses_gpu=True)).fault
    assert "No CUDA GPUs are available" in fault
    assert "Ray gave gpu:1" in fault
    assert seen == []
    assert EvaluatorActor().start(lambda: make(uses_gpu=False)).fault is None
    assert seen == ["prepared"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_a_worker_whose_recording_failed_is_replaced(monkeypatch):
    monkeypatch.setattr(actors, "_device", lambda: "gpu:0")
    actor = EvaluatorActor()
    actor._evaluator, actor._files = SimpleNamespace(evaluate=lambda _: Measurement(valid_accuracy=0.5)), ()
    proposal = Proposal(genotype=SPACE.sample(rng.child(0, "actors")), trial_id=0)
    assert not actor.evaluate([proposal], None).is_spent
    monkeypatch.setattr("nao_ray.training.capture._spoilt", True)
    assert actor.evaluate([proposal], None).is_spent


@pytest.mark.parametrize(
    ("gpus", "computes_there", "seconds"),
    [(1.0, True, 12.0), (0.5, True, 6.0), (0.3333, True, 4.0), (0.3, True, 4.0), (2.0, True, 12.0), (0.5, False, 12.0)],
)
def test_a_gpus_time_is_shared_by_those_that_it_has_places_for(monkeypatch, gpus, computes_there, seconds):
    context = SimpleNamespace(get_assigned_resources=lambda: {"CPU": 1.0, "GPU": gpus}, get_accelerator_ids=dict)
    monkeypatch.setattr(actors.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(actors, "_is_on_gpu", lambda: computes_there)
    monkeypatch.setattr(actors, "_gpu", lambda is_alone: Gpu("A", 2**34, 2**29 if is_alone else None))
    measured = Measurement(valid_accuracy=0.5, wall_seconds=13.0, device_seconds=12.0, peak_memory_bytes=99)
    actor = EvaluatorActor()
    actor._evaluator, actor._files = SimpleNamespace(evaluate=lambda _: measured), ()
    proposal = Proposal(genotype=SPACE.sample(rng.child(0, "actors")), trial_id=0)
    report = actor.evaluate([proposal], None)
    (outcome,) = report.outcomes
    assert report.gpu == (Gpu("A", 2**34, 2**29 if gpus >= 1 else None) if computes_there else None)
    assert outcome.device_seconds == pytest.approx(seconds)
    assert (outcome.wall_seconds, outcome.peak_memory_bytes) == (13.0, 99)


def test_a_child_loads_its_data_before_its_first_trial(monkeypatch):
    evaluator = RunConfig.parse(CHILD).make_evaluator()
    loads, load = [], evaluator.task.load
    monkeypatch.setattr(evaluator.task, "load", lambda: loads.append(1) or load())
    evaluator.prepare()
    assert loads == [1]
    evaluator.evaluate(Proposal(genotype=SPACE.sample(rng.child(0, "actors")), trial_id=0))
    assert loads == [1]


def test_weights_that_cannot_be_fetched_are_no_architectures_fault(monkeypatch):
    def fail(weights):
        raise RuntimeError("object lost")

    actor = EvaluatorActor()
    monkeypatch.setattr(actor, "_use", fail)
    monkeypatch.setattr(actors, "_device", lambda: "cpu")
    report = actor.evaluate([None, None], None)
    assert [outcome.kind for outcome in report.outcomes] == [FailureKind.LOST] * 2
    assert "object lost" in report.outcomes[0].message
    assert report.is_spent


@pytest.mark.parametrize(("evaluator", "opens"), [("faulty", False), ("one_shot", False), ("standalone", True)])
def test_only_a_worker_that_may_keep_states_opens_the_pool(tmp_path, caplog, evaluator, opens):
    sizes = {} if evaluator == "faulty" else {"cells_per_stage": 1, "channels": 4, "recipe": "short"}
    settings = {"name": evaluator, **sizes} | ({"epochs": 1} if evaluator == "standalone" else {})
    strategy = "shared_random_search" if evaluator == "one_shot" else "random_search"
    what = {"name": "x", "space": "nao_cnn_small", "task": "synthetic", "budget": {"trials": 1}}
    made = RunConfig(**what, evaluator=settings, strategy=strategy)
    actors.EvaluatorFactory(made.to_yaml(), (str(tmp_path / "nowhere"), "id", 1.0))()
    assert ("does not see the pool" in caplog.text) == opens
