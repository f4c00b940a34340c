"""The loop in virtual time, over a pool in memory: order, determinism, retries, the end."""

import gc
import tracemalloc
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from _stand_in import Greedy, MemoryPool, beside, closed_form, facts, simulate

from nao_ray.errors import StuckSearchError
from nao_ray.evaluators.parts.wrappers import FlakyEvaluator
from nao_ray.search.budget import Budget, Spans
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Completion, Failure, Job, SerialExecutor
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.simulated import SimulatedExecutor
from nao_ray.search.tries import Retry
from nao_ray.spaces.base import Genotype
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.trial import FailureKind, Proposal, TrialState


class Killed(BaseException):
    pass


def killed_after(calls: int):
    """A driver that dies within its n-th write, before or after the pool has it."""

    def broken(_: str) -> bool:
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise Killed
        return False

    return broken


def test_one_worker_is_asked_for_one_proposal_at_a_time_after_everything_was_told():
    pool = MemoryPool()
    snapshot = simulate(pool, trials=12)[1]()
    assert snapshot.done == 12
    assert snapshot.total == 12
    assert [trial.proposal.asked_after for trial in pool.log()] == list(range(12))
    assert pool.calls == ["asked", "finished"] * 12  # with its attempt, in one write


def test_serial_and_simulated_executors_give_the_same_search():
    one, other = MemoryPool(), MemoryPool()
    simulate(one)[1]()
    serial = SerialExecutor(closed_form(noise=0.05))
    SearchLoop(other, LocalProposer(Greedy()), serial, Budget(trials=30)).run()
    assert facts(one) == facts(other)


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_virtual_clock_repeats_a_search_with_any_number_of_workers(workers):
    pools = [MemoryPool(), MemoryPool()]
    for pool in pools:
        simulate(pool, workers=workers)[1]()
    assert pools[0].finished == pools[1].finished
    assert pools[0].calls == pools[1].calls
    assert len({trial.proposal.genotype.key for trial in pools[0].finished}) > 20


@pytest.mark.parametrize(("thinking", "ahead"), [(0.0, 0), (0.1, 1), (1000.0, 4)])
def test_many_workers_look_ahead_by_what_ends_while_the_strategy_thinks(thinking, ahead):
    pool = MemoryPool()
    loop, run = simulate(pool, workers=4, trials=23)
    local, clock = loop._dialogue._proposer, loop._clock
    request = local.request
    local.request = lambda *given: (clock.advance_to(clock.seconds() + thinking), request(*given))
    in_hand = []
    loop._listener = lambda s: in_hand.append(s.asked - s.done - s.failed)
    run()
    assert max(in_hand) == 4 + ahead
    assert len(pool.asked) == 23  # never beyond the budget
    assert sorted(trial.trial_id for trial in pool.finished) == list(range(23))


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_are_busy_all_the_time(workers):
    pool = MemoryPool()
    _, run = simulate(pool, workers=workers, trials=30)
    seconds = run().seconds
    work = sum((trial.finished_at - trial.started_at).total_seconds() for trial in pool.finished)
    assert seconds < work / workers + 3.1  # less than one trial at the end


@pytest.mark.parametrize("kill_at", range(1, 40, 3))
def test_a_driver_killed_at_any_write_resumes_to_the_unbroken_search(kill_at):
    unbroken = MemoryPool()
    simulate(unbroken, trials=14)[1]()
    pool = MemoryPool()
    for calls in (kill_at, 5, 1, 0, 4):
        pool.broken = killed_after(calls)
        try:
            simulate(pool, trials=14)[1]()
        except Killed:
            continue
    pool.broken = lambda _: False
    simulate(pool, trials=14)[1]()
    assert facts(pool) == facts(unbroken)


def test_killed_with_many_workers_every_trial_finishes_once_with_its_own_score():
    pool = MemoryPool()
    for calls in range(0, 60, 5):
        pool.broken = killed_after(calls)
        with pytest.raises(Killed):
            simulate(pool, trials=400, workers=3)[1]()
    pool.broken = lambda _: False
    simulate(pool, trials=400, workers=3)[1]()
    assert Counter(trial.trial_id for trial in pool.finished) == Counter(range(400))
    for trial in pool.finished[::20]:
        assert closed_form(noise=0.05).evaluate(trial.proposal).score == trial.score


def test_asked_but_unfinished_trials_come_first_and_in_order_when_resumed():
    pool = MemoryPool()
    pool.broken = killed_after(2)  # asked and attempts of the first batch are written, no end
    with pytest.raises(Killed):
        simulate(pool, workers=4)[1]()
    assert len(pool.asked) == 4
    pool.broken = lambda _: False
    simulate(pool, workers=4)[1]()
    assert pool.attempts[:6] == [(0, 1), (1, 1), (2, 1), (3, 1), (0, 2), (1, 2)]


def lost_on(attempts: set[tuple[int, int]], kind: FailureKind = FailureKind.LOST):
    def fault(job: Job) -> Failure | None:
        return Failure(kind, "gone") if (job.proposal.trial_id, job.attempt) in attempts else None

    return fault


def test_a_lost_trial_is_tried_again_and_changes_nothing_but_its_attempt():
    unbroken, pool = MemoryPool(), MemoryPool()
    simulate(unbroken)[1]()
    simulate(pool, fault=lost_on({(3, 1), (3, 2), (11, 1)}))[1]()
    assert facts(pool) == facts(unbroken)
    assert {trial.trial_id: trial.attempt for trial in pool.finished if trial.attempt > 1} == {3: 3, 11: 2}


def test_a_trial_that_is_lost_every_time_fails_and_the_search_goes_on():
    pool = MemoryPool()
    snapshot = simulate(pool, fault=lost_on({(3, n) for n in range(1, 9)}), retry=Retry(max_attempts=4))[1]()
    assert (snapshot.done, snapshot.failed) == (29, 1)
    trial = pool.finished[3]
    assert (trial.trial_id, trial.attempt, trial.failure_kind) == (3, 4, FailureKind.LOST)


@pytest.mark.parametrize("kind", [FailureKind.ERROR, FailureKind.TIMEOUT, FailureKind.OUT_OF_MEMORY])
def test_other_failures_are_final_unless_the_config_says_otherwise(kind):
    once, again = MemoryPool(), MemoryPool()
    simulate(once, fault=lost_on({(3, 1)}, kind))[1]()
    simulate(again, fault=lost_on({(3, 1)}, kind), retry=Retry(kinds=frozenset({FailureKind.LOST, kind})))[1]()
    assert [trial.failure_kind for trial in once.finished if trial.score is None] == [kind]
    assert all(trial.score is not None for trial in again.finished)


@pytest.mark.parametrize("workers", [1, 3])
def test_failing_evaluations_are_failed_trials_and_told(workers):
    pool = MemoryPool()
    flaky = FlakyEvaluator(closed_form(), error=0.2, out_of_memory=0.1, nan=0.1)
    snapshot = simulate(pool, evaluator=flaky, workers=workers, trials=60)[1]()
    kinds = Counter(trial.failure_kind for trial in pool.finished if trial.state is TrialState.FAILED)
    assert set(kinds) == {FailureKind.ERROR, FailureKind.OUT_OF_MEMORY, FailureKind.NAN}
    assert snapshot.failed == sum(kinds.values()) < 40
    assert pool.log()[-1].proposal.asked_after >= 60 - 2 * workers
    error = next(trial for trial in pool.finished if trial.failure_kind is FailureKind.ERROR)
    assert error.failure_message.startswith(f"RuntimeError: made to fail (proposal {error.trial_id}) (in evaluate, ")


def test_a_late_result_of_an_old_attempt_is_dropped():
    class Zombie(SimulatedExecutor):
        """Reports the first attempt of trial 2 lost, then that result, late and wrong."""

        def wait(self, timeout=None, wake=()):
            ended = super().wait(timeout, wake)
            if any(c.trial_id == 2 and c.attempt == 2 for c in ended):
                late = replace(ended[0], attempt=1, outcome=Failure(FailureKind.ERROR, "late"))
                return [late, *ended, replace(late, trial_id=0)]
            return ended

    pool, clock = MemoryPool(), VirtualClock()
    executor = Zombie(closed_form(), clock, fault=lost_on({(2, 1)}))
    SearchLoop(pool, LocalProposer(Greedy()), executor, Budget(trials=6), clock=clock).run()
    assert all(trial.score is not None for trial in pool.finished)
    assert len(pool.finished) == 6


class Shy(Greedy):
    """Asks for barriers: rounds of five, and nothing at all after `last` proposals."""

    last, finished = 1000, False

    def propose(self, k, rng) -> Proposal | None:
        if k >= self.last or (k % 5 == 0 and self.num_told < k):
            return None
        return super().propose(k, rng)

    @property
    def done(self) -> bool:
        return self.finished and self.num_asked >= self.last


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_rounds_wait_for_their_last_trial(workers):
    pool = MemoryPool()
    simulate(pool, strategy=Shy(), workers=workers)[1]()
    assert len(pool.finished) == 30
    assert all(trial.proposal.asked_after >= trial.trial_id // 5 * 5 for trial in pool.finished)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_strategy_that_is_done_ends_the_search(workers):
    pool, strategy = MemoryPool(), Shy()
    strategy.last, strategy.finished = 13, True
    snapshot = simulate(pool, strategy=strategy, workers=workers, trials=None, seconds=10**9)[1]()
    assert (snapshot.done, snapshot.total) == (13, 13)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_strategy_that_says_nothing_and_is_not_done_is_stuck(workers):
    pool, strategy = MemoryPool(), Shy()
    strategy.last = 13
    with pytest.raises(StuckSearchError, match="proposes nothing after 13 finished trials"):
        simulate(pool, strategy=strategy, workers=workers)[1]()


@pytest.mark.parametrize("workers", [1, 3])
def test_budget_of_hours_counts_all_drivers_and_finishes_what_runs(workers):
    pool = MemoryPool()
    first = simulate(pool, trials=None, seconds=20, workers=workers)[1]()
    assert 20 <= first.seconds < 23
    assert first.running == 0
    done = first.done
    second = simulate(pool, trials=None, seconds=40, workers=workers)[1]()
    assert 17 <= second.seconds < 23
    assert second.done > done
    third = simulate(pool, trials=None, seconds=40, workers=workers)[1]()
    assert third.done == second.done


def spent(log):
    spans = Spans()
    for trial in log:
        spans.add(trial)
    return spans.seconds_spent


def test_seconds_spent_counts_side_by_side_once_and_leaves_out_stops():
    pool = MemoryPool()
    simulate(pool, trials=6, workers=2)[1]()
    log = pool.log()
    once = spent(log)
    assert once == (max(t.finished_at for t in log) - min(t.started_at for t in log)).total_seconds()
    day = timedelta(days=1)
    later = [replace(t, started_at=t.started_at + day, finished_at=t.finished_at + day) for t in log]
    assert spent(log + later) == pytest.approx(2 * once)


def test_more_budget_continues_a_finished_search():
    pool, whole = MemoryPool(), MemoryPool()
    simulate(pool, trials=10)[1]()
    assert simulate(pool, trials=10)[1]().done == 10
    simulate(pool, trials=25)[1]()
    simulate(whole, trials=25)[1]()
    assert facts(pool) == facts(whole)


@pytest.mark.parametrize("workers", [1, 3])
def test_stop_records_what_ended_and_leaves_a_resumable_pool(workers):
    pool = MemoryPool()
    with pytest.raises(KeyboardInterrupt):
        simulate(pool, workers=workers, stop=lambda: len(pool.finished) >= 7)[1]()
    assert 7 <= len(pool.finished) < 30
    simulate(pool, workers=workers)[1]()
    assert Counter(trial.trial_id for trial in pool.finished) == Counter(range(30))


class Diary(Greedy):
    def diagnostics(self):
        return [{"round": self.num_told, "told": self.num_told}]


def test_diagnostics_are_recorded_and_the_last_results_are_told():
    pool = MemoryPool()
    simulate(pool, strategy=Diary(), trials=4)[1]()
    assert [row["told"] for row in pool.fits] == [0, 1, 2, 3, 4]


def test_snapshots_count_and_estimate():
    pool = MemoryPool()
    seen = []
    simulate(pool, trials=40, workers=2, listener=seen.append)[1]()
    assert [s.done for s in seen] == sorted(s.done for s in seen)
    assert seen[0].eta_seconds is None
    middle = next(s for s in seen if s.done >= 20)
    assert middle.eta_seconds == pytest.approx(seen[-1].seconds - middle.seconds, rel=0.3)
    best = max(pool.finished, key=lambda trial: (trial.score, -trial.trial_id))
    assert (seen[-1].best_score, seen[-1].best_trial_id) == (best.score, best.trial_id)


def test_completion_fills_in_device_and_time():
    pool = MemoryPool()
    simulate(pool, trials=1)[1]()
    trial = replace(pool.asked[0])
    start, end = VirtualClock.START, VirtualClock.START + timedelta(seconds=3)
    bare = replace(pool.finished[0].measurement, wall_seconds=None, device=None)
    done = Completion(trial_id=0, attempt=1, outcome=bare, device="cuda:0", started_at=start, finished_at=end).apply(
        trial
    )
    assert (done.measurement.wall_seconds, done.measurement.device) == (3.0, "cuda:0")


class Forgetful:
    """A pool that keeps nothing, so that whatever grows is the loop's."""

    def record_asked(self, proposals, asked_at, attempts=()):
        pass

    def record_attempts(self, rows):
        pass

    def record_finished(self, trials):
        pass

    def record_fits(self, rows):
        pass


NAONET_B = Genotype("nao_cnn_small", NaoCnnSmall.published["NAONet-B"])


class Stubborn(Greedy):
    """The same proposal for ever: remembers nothing."""

    def propose(self, k, rng) -> Proposal | None:
        return Proposal(genotype=self.space.canonical(NAONET_B))

    def observe(self, trial):
        pass


def test_memory_of_the_loop_does_not_grow_with_finished_trials():
    clock, bytes_at = VirtualClock(), {}
    executor = SimulatedExecutor(closed_form(), clock, workers=8)

    def listener(snapshot):
        if snapshot.done % 100 < 8 and snapshot.done // 100 not in bytes_at:
            gc.collect()  # what is garbage already is not kept
            bytes_at[snapshot.done // 100] = tracemalloc.get_traced_memory()[0]

    loop = SearchLoop(
        Forgetful(),
        LocalProposer(Stubborn()),
        executor,
        Budget(trials=420),
        clock=clock,
        **beside(listener=listener),
    )
    tracemalloc.start()
    try:
        loop.run()
    finally:
        tracemalloc.stop()
    assert bytes_at[3] - bytes_at[1] < 200 * 100  # bytes: each trial that was kept would cost some 2,000
