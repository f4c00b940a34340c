"""What the head's silence and another head come to, without a cluster."""

import socket
from types import SimpleNamespace

import pytest
from ray.exceptions import AuthenticationError, GetTimeoutError

from nao_ray.errors import RunError
from nao_ray.service.fleet import nodes as asked
from nao_ray.service.fleet.nodes import HeadAwayError, nodes, one_cluster, with_process


def _head(monkeypatch, error):
    def get_all_node_info(timeout):
        assert timeout == asked.ANSWER_SECONDS
        raise error

    client = SimpleNamespace(get_all_node_info=get_all_node_info)
    monkeypatch.setattr(asked, "global_worker", SimpleNamespace(gcs_client=client))


def test_a_head_that_is_silent_is_away(monkeypatch):
    _head(monkeypatch, GetTimeoutError("Timed out while waiting for GCS"))
    with pytest.raises(HeadAwayError, match="Timed out"):
        nodes()


def test_a_head_that_is_gone_is_away(monkeypatch):
    with socket.socket() as free:  # bound, and nobody listens
        free.bind(("127.0.0.1", 0))
        client = SimpleNamespace(address=f"127.0.0.1:{free.getsockname()[1]}")
        monkeypatch.setattr(asked, "global_worker", SimpleNamespace(gcs_client=client))
        with pytest.raises(HeadAwayError, match="refused"):
            with_process([b"1" * 16])


def test_the_head_of_another_cluster_ends_the_run_in_one_line(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    _head(monkeypatch, AuthenticationError("Unauthenticated: RPC error: WrongClusterID: restarted"))
    with pytest.raises(RunError, match=r"restarted at 10\.0\.0\.1:6379 without its state") as caught, one_cluster():
        nodes()
    assert "\n" not in str(caught.value)


def test_a_wrong_token_is_another_matter():
    with pytest.raises(AuthenticationError), one_cluster():
        raise AuthenticationError("InvalidAuthToken")
