"""What an actor finds out about its machine."""

import socket

import psutil

from nao_ray.service.fleet import actors
from nao_ray.service.fleet.actors import EvaluatorActor, interface_of
from nao_ray.trial import FailureKind


def test_the_interface_of_an_address_is_named():
    loopback = interface_of("127.0.0.1")
    assert loopback is not None
    addresses = psutil.net_if_addrs()[loopback]
    assert any(found.family is socket.AF_INET and found.address == "127.0.0.1" for found in addresses)


def test_an_address_of_another_machine_has_none():
    assert interface_of("203.0.113.7") is None


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
