"""Two processes that train shared weights together, against the mean of their gradients computed here."""

import math
import os
import socket

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from nao_ray.training.failures import PeerLostError, classify
from nao_ray.training.group import meeting
from nao_ray.trial import FailureKind


class Net(nn.Module):
    """Paths a and b, and a common part."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.common, self.idle = (nn.Parameter(torch.full((3,), float(i))) for i in range(4))


GRADIENTS = {"a": {"a": 1.0, "common": 2.0}, "b": {"b": 10.0, "common": 4.0}, "c": {"common": 8.0}}
"""Of each genotype."""


def _work(rank: int, address: str, queue: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    net = Net()
    told, gather = [], dist.all_gather
    dist.all_gather = lambda everyone, mine: told.append(mine.device.type) or gather(everyone, mine)
    with meeting(rank, 2, address, torch.device("cpu")) as averager:
        assert averager is not None
        averager.watch(net)
        named = dict(net.named_parameters())
        for chosen in (("a", "b"), ("b", "a"), ("b", "b"), ("a", "c"), ("c", "b")):
            mine = GRADIENTS[chosen[rank]]
            for name, value in mine.items():
                named[name].grad = torch.full((3,), value)
            averager.expect(chosen)
            used = averager({name: named[name] for name in [*mine, "idle"]})  # `idle` has no gradient
            queue.put((chosen, {name: parameter.grad.tolist() for name, parameter in used.items()}))
            for parameter in used.values():
                parameter.grad = None
        queue.put((told, len(told)))


def _together(work, results):
    """What two processes put into the queue, and their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed", "nao_ray.training.group"])  # once, not in each
    queue = context.Queue()
    workers = [context.Process(target=work, args=(rank, address, queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    told = [queue.get(timeout=600) for _ in range(results)]
    for worker in workers:
        worker.join(600)
    return (told if results > 1 else told[0]), [worker.exitcode for worker in workers]


@pytest.mark.slow
def test_a_step_of_two_workers_is_the_mean_of_their_gradients():
    told, codes = _together(_work, results=2 * 6)
    assert codes == [0, 0]
    expected = [
        (("a", "b"), {"a": 0.5, "b": 5.0, "common": 3.0}),
        (("b", "a"), {"a": 0.5, "b": 5.0, "common": 3.0}),
        (("b", "b"), {"b": 10.0, "common": 4.0}),
        (("a", "c"), {"a": 0.5, "common": 5.0}),
        (("c", "b"), {"b": 5.0, "common": 6.0}),
    ]
    for chosen, means in expected:
        assert [means for given, means in told if given == chosen] == [
            {name: [value] * 3 for name, value in means.items()}
        ] * 2
    assert [given for given, count in told if count == 2 and given[0] == "cpu"] == [["cpu", "cpu"]] * 2, (
        "what a genotype uses is told once, from host to host"
    )


def _leave(rank: int, address: str, queue: multiprocessing.Queue) -> None:
    """The second worker dies in its second step."""
    torch.set_num_threads(1)
    net = Net()
    named = dict(net.named_parameters())
    try:
        with meeting(rank, 2, address, torch.device("cpu")) as averager:
            averager.watch(net)
            assert math.isnan(averager.mean(torch.tensor(math.nan if rank else 1.0)))
            if rank:
                os._exit(9)
            named["a"].grad = torch.ones(3)
            averager.expect(("a", "b"))
            averager({"a": named["a"]})
    except PeerLostError as error:
        queue.put((classify(error), str(error)))


@pytest.mark.slow
def test_the_end_of_a_peer_is_no_fault_of_the_others():
    (kind, told), _ = _together(_leave, results=1)
    assert kind is FailureKind.LOST
    assert "the group of workers broke" in told


def test_a_worker_on_its_own_needs_nobody():
    with meeting(0, 1, "", torch.device("cpu")) as averager:
        assert averager is None
