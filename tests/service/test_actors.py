"""What an actor finds out about its machine."""

import socket

import psutil

from nao_ray.service.actors import interface_of


def test_the_interface_of_an_address_is_named():
    loopback = interface_of("127.0.0.1")
    assert loopback is not None
    addresses = psutil.net_if_addrs()[loopback]
    assert any(found.family is socket.AF_INET and found.address == "127.0.0.1" for found in addresses)


def test_an_address_of_another_machine_has_none():
    assert interface_of("203.0.113.7") is None
