"""What a search says is wrong, in a line."""

from dataclasses import replace

from _stand_in import MemoryPool, closed_form, simulate

from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import SerialExecutor
from nao_ray.search.tally import Past, Tally
from nao_ray.spaces.base import Genotype
from nao_ray.trial import Proposal, Trial


def test_the_worst_is_said_first():
    _, run = simulate(MemoryPool(), trials=3)
    good = run()
    assert good.note == ""
    aside = replace(good, aside=("gpu:2 of n3 for 60 s more: CUDA error", "gpu:3 of n3 for 9 s more: ECC"))
    assert aside.note == "set aside and 1 more: gpu:2 of n3 for 60 s more: CUDA error"
    assert replace(aside, trouble="no data").note == "paused: no data"
    assert replace(aside, trouble="no data", write_error="disk full").note == "cannot write the pool: disk full"


def test_what_an_executor_has_set_aside_is_in_every_snapshot():
    loop, run = simulate(MemoryPool(), trials=3)
    loop._executor.aside = ["gpu:2 of n3 for 60 s more: CUDA error"]
    assert run().aside == ("gpu:2 of n3 for 60 s more: CUDA error",)
    assert tuple(SerialExecutor(closed_form()).aside) == ()


def test_what_a_pool_holds_is_noted_while_its_log_passes_by_once():
    """The log was read twice, for the strategy and for the loop."""
    readings = []
    log = [Trial(proposal=Proposal(genotype=Genotype("s", f"{k}"), trial_id=k, seed=k)) for k in range(3)]

    def read():
        readings.append(len(log))
        return iter(log)

    past = Past()
    again = past.first(read)
    assert list(again()) == list(again()) == log
    tally, other = (Tally(Budget(), VirtualClock()) for _ in range(2))
    assert tally.take_up(past) == other.take_up(log) == log
    assert (tally.asked, other.asked, readings) == (3, 3, [3, 3])
