"""Before Ray is asked: does a head answer, are its sockets' paths short enough, where would the hosting actor go?"""

import socket
import threading
import time

import pytest

from nao_ray.errors import ClusterError, RunError
from nao_ray.service.hosting import cluster
from nao_ray.service.hosting.detached import _places


@pytest.fixture
def silent():
    """The address of a port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_an_address_that_is_no_clusters_is_given_up_within_the_limit(monkeypatch, silent):
    monkeypatch.setattr(cluster, "_KNOCK_SECONDS", 0.3)
    for address in (silent, "127.0.0.1:1", "no.such.host.invalid:6379", "nonsense"):
        with pytest.raises(
            ClusterError, match=f"RAY_ADDRESS {address}: start a cluster .cluster/machine.sh up"
        ) as told:
            cluster.knock(address)
        assert "\n" not in str(told.value)


def test_a_dashboards_address_is_told_apart():
    with pytest.raises(ClusterError, match="is that of a dashboard: hand the search in with nao-ray submit"):
        cluster.knock("https://head:8265")


def test_rays_thread_for_errors_rests_while_the_head_is_away_and_ends_at_once(monkeypatch):
    class Subscriber:
        asked, said = 0, (None, None)

        def poll(self):
            self.asked += 1
            return self.said

        def subscribe(self):
            return "subscribed"

        def close(self):
            return "closed"

    head, stopped = Subscriber(), threading.Event()
    rested = cluster._Rested(head, stopped)
    monkeypatch.setattr(cluster, "_REST_SECONDS", 0.1)
    begin = time.monotonic()
    assert (rested.poll(), rested.poll()) == ((None, None), (None, None))
    assert time.monotonic() - begin >= 0.2
    monkeypatch.setattr(cluster, "_REST_SECONDS", 60.0)
    begin, head.said = time.monotonic(), (b"key", {"error_message": "a node died"})
    assert rested.poll() == head.said
    stopped.set()
    head.said = (None, None)
    assert rested.poll() == head.said
    assert time.monotonic() - begin < 30
    assert head.asked == 4
    assert (rested.subscribe(), rested.close()) == ("subscribed", "closed")


def test_rays_folder_is_a_short_one(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/t")
    assert cluster._short_folder() is None
    monkeypatch.setenv("TMPDIR", "/" + "ü" * 22)
    assert cluster._short_folder() == "/tmp/ray"
    monkeypatch.setattr(cluster.os, "access", lambda *_: False)
    with pytest.raises(RunError, match="is too long for Ray's sockets: give RAY_TMPDIR"):
        cluster._short_folder()


def _node(node_id, **labels):
    head = {"node:__internal_head__": 1.0} if node_id == "head" else {}
    return {"NodeID": node_id, "Resources": head, "Labels": labels}


def _chosen(nodes):
    """As Ray does: the first selector that a node fits; its nodes."""
    for place in _places(nodes):
        wanted = [(key, value.removeprefix("!")) for key, value in place.items()]
        fits = [n for n in nodes if all({**n["Labels"], "ray.io/node-id": n["NodeID"]}.get(k) != v for k, v in wanted)]
        if fits:
            return [node["NodeID"] for node in fits]
    raise AssertionError("nowhere to go")


SPOT, STAYS = {"ray.io/market-type": "spot"}, {"ray.io/market-type": "on-demand"}


@pytest.mark.parametrize(
    ("nodes", "chosen"),
    [
        ([_node("head"), _node("a", **SPOT), _node("b", **STAYS)], ["b"]),
        ([_node("head"), _node("a", **SPOT), _node("b")], ["b"]),
        ([_node("head"), _node("a", **SPOT)], ["head"]),
        ([_node("head", **SPOT), _node("a", **SPOT)], ["a"]),
        ([_node("head", **SPOT)], ["head"]),
        ([_node("head")], ["head"]),
        ([_node("a"), _node("b", **SPOT)], ["a"]),
    ],
)
def test_the_hosting_actor_avoids_spot_nodes_and_then_the_head(nodes, chosen):
    assert _chosen(nodes) == chosen
