"""What every strategy keeps: it goes on after any break as if there had been none, and asks what the space has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nao_ray import registry, rng
from nao_ray.contracts.checking import about, require
from nao_ray.search.retries import FailedTrials
from nao_ray.spaces.base import SearchSpace
from nao_ray.strategies.base import Strategy
from nao_ray.trial import FailureKind, Fidelity, Measurement, Proposal, Trial

NUM_TRIALS = 26
_BREAKS = (3, 12, 19)
_RETRIES = ((1, 8, 18), (3, 11, 18))
"""How many trials at once, and after how many failures are asked again."""
_FAILURES = 20


def check_strategy(
    strategy: type[Strategy[Any]],
    *,
    space: type[SearchSpace[Any]] | SearchSpace[Any] | None = None,
    **settings: object,
) -> None:
    """Check a strategy as those of nao_ray are checked: searches of 26 made-up trials, every fifth of which fails.

    Args:
        strategy: a class.
        space: what it searches; None: `nao_cnn_small`.
        settings: of its `Config`, small enough for so short a search.

    Raises:
        AssertionError: says what is broken.
    """
    maker = Maker(strategy, settings, space)
    checks = [goes_on_after_a_break, asks_the_same_again]
    if not strategy.shares_weights:
        checks += [proposals_are_legal_new_and_numbered, only_failures_end_in_no_dead_end]
        checks += [goes_on_with_failures_asked_again]
    for check in checks:
        with about(f"{strategy.__name__}, {check.__name__.replace('_', ' ')}"):
            check(maker)


class Maker:
    """Makes a strategy, anew at each call."""

    def __init__(
        self,
        strategy: type[Strategy[Any]],
        settings: dict[str, Any],
        space: type[SearchSpace[Any]] | SearchSpace[Any] | None = None,
    ) -> None:
        given = registry.load("space", "nao_cnn_small") if space is None else space
        self.space: SearchSpace[Any] = given() if isinstance(given, type) else given
        self._strategy, self._settings = strategy, settings

    def __call__(self, seed: int = 3) -> Strategy[Any]:
        config = self._strategy.Config(**self._settings)
        return self._strategy(self.space, config, seed, Fidelity(epochs=1))


class World:
    """A search in this process with `width` trials in flight; first come, first finished."""

    def __init__(self, strategy: Strategy[Any], width: int, log: Sequence[Trial] = ()) -> None:
        self.strategy, self.width = strategy, width
        self.trials = {trial.trial_id: trial for trial in log}
        self.finished = sum(trial.log_index is not None for trial in log)
        strategy.restore(log)

    def advance(self, num_asked: int) -> None:
        """Until `num_asked` trials were asked; what is in flight stays so."""
        while len(self.trials) < num_asked:
            running = [trial for trial in self.trials.values() if trial.log_index is None]
            asked = self.strategy.ask(1) if len(running) < self.width else []
            if asked:
                self.trials[asked[0].trial_id] = Trial(proposal=asked[0])
            else:
                require(running, "it proposes nothing while nothing runs: the search is stuck")
                self._end(running[0])

    def _end(self, trial: Trial) -> None:
        done = finish(trial.proposal, self.finished, self.strategy.space)
        self.finished += 1
        self.trials[trial.trial_id] = done
        self.strategy.tell([done])

    @property
    def proposals(self) -> list[Proposal]:
        """In the order asked."""
        return [self.trials[k].proposal for k in sorted(self.trials)]


def finish(proposal: Proposal, log_index: int, space: SearchSpace[Any]) -> Trial:
    """Every fifth trial fails; the others are scored by their tokens, with a little noise."""
    trial = Trial(proposal=proposal, attempt=1)
    if proposal.phase is not None:
        return trial.complete(_trained(proposal, space), log_index=log_index)
    if proposal.trial_id % 5 == 4:
        return trial.fail(FailureKind.ERROR, "out of luck", log_index=log_index)
    tokens = np.array(proposal.tokens)
    noise = 0.01 * rng.child(proposal.seed, "noise").normal()
    score = 0.4 + 0.3 * float(tokens.mean() / tokens.max()) + noise
    return trial.complete(Measurement(valid_accuracy=min(1.0, score), device_seconds=1.0), log_index=log_index)


def _trained(proposal: Proposal, space: SearchSpace[Any]) -> Measurement:
    """Of a phase; where the space has alphas they are random ones."""
    if not space.alpha_edges:
        return Measurement(train_loss=1.0)
    draw, width = rng.child(proposal.seed, "alphas"), len(space.primitives)
    alphas = [draw.normal(size=(edges, width)) for edges in space.alpha_edges.values()]
    flat = tuple(value for cell in alphas for value in cell.ravel().tolist())
    derived = space.derive(alphas).key
    return Measurement(train_loss=1.0, derived_genotype=derived, alphas=flat, device_seconds=30.0)


# -- what is kept ---------------------------------------------------------------------------------------------


def goes_on_after_a_break(make: Maker, widths: Sequence[int] = (1, 3)) -> None:
    """Rebuilt from the log after so many trials, it proposes what it would have, one at a time and three at a time."""
    for width in widths:
        unbroken, logs = World(make(), width), {}
        for broken_at in _BREAKS:
            unbroken.advance(broken_at)
            logs[broken_at] = list(unbroken.trials.values())
        unbroken.advance(NUM_TRIALS)
        for broken_at, log in logs.items():
            after = World(make(), width, log=log)
            after.advance(NUM_TRIALS)
            pairs = enumerate(zip(after.proposals, unbroken.proposals, strict=True))
            other = next((k for k, (mine, wanted) in pairs if mine != wanted), None)
            what = f"broken after {broken_at} of {NUM_TRIALS} trials, {width} at once, proposal {other} is another one"
            require(other is None, f"{what}: all state must follow from config, seed and told trials")


def asks_the_same_again(make: Maker) -> None:
    """Made twice, it proposes the same: random numbers come from `rng` alone."""
    first, again = World(make(), 1), World(make(), 1)
    first.advance(NUM_TRIALS)
    again.advance(NUM_TRIALS)
    other = [k for k, pair in enumerate(zip(first.proposals, again.proposals, strict=True)) if pair[0] != pair[1]]
    require(not other, f"made twice, it differs at proposal {other[:1]}: random numbers come from rng alone")


def proposals_are_legal_new_and_numbered(make: Maker) -> None:
    """Of strategies without shared weights: canonical genotypes of the space, none twice, in order."""
    strategy = make()
    world = World(strategy, width=2)
    world.advance(NUM_TRIALS)
    keys = [proposal.genotype.key for proposal in world.proposals]
    require(len(set(keys)) == len(keys), "an architecture was asked twice")
    for k, proposal in enumerate(world.proposals):
        strategy.space.validate(proposal.genotype)
        canonical = strategy.space.canonical(proposal.genotype)
        require(canonical == proposal.genotype, f"proposal {k} is not canonical")
        require(proposal.trial_id == k, f"proposal {k} has the id {proposal.trial_id}")
        tokens = tuple(strategy.space.encode(proposal.genotype).tolist())
        require(proposal.tokens == tokens, f"proposal {k} has other tokens than its genotype")
        require(0 <= proposal.asked_after <= k, f"proposal {k} says that it was asked after {proposal.asked_after}")
        require(proposal.fidelity == Fidelity(epochs=1), f"proposal {k} has another fidelity than it was given")


def only_failures_end_in_no_dead_end(make: Maker) -> None:
    """Of strategies without shared weights: where everything fails it goes on asking."""
    strategy = make()
    for k in range(_FAILURES):
        asked = strategy.ask(1)
        require(len(asked) == 1, f"it asks nothing after {k} failed trials")
        strategy.tell([Trial(proposal=asked[0], attempt=1).fail(FailureKind.NAN, "nan", log_index=k)])
    require(strategy.num_asked == _FAILURES, f"it has asked {strategy.num_asked} of {_FAILURES}")


def goes_on_with_failures_asked_again(make: Maker) -> None:
    """Of strategies without shared weights: trials that failed are asked again, twice, and then it is as after a break.

    What it asks itself is as new as ever, and has the seeds that it would have had.
    """
    for width, *moments in _RETRIES:
        log: list[Trial] = []
        for moment in moments:
            world = World(make(), width, log)
            world.advance(moment)
            log = _asked_again(world)
        unbroken = World(make(), width, log)
        for more in (1, 5):
            unbroken.advance(len(log) + more)
            restored = World(make(), width, list(unbroken.trials.values()))
            restored.advance(len(log) + more + 3)
            unbroken.advance(len(log) + more + 3)
            same = restored.proposals == unbroken.proposals
            require(same, f"broken {more} trials after failures were asked again, {width} at once, it proposes others")
        own = [proposal for proposal in unbroken.proposals if proposal.retry_of is None]
        require(len({proposal.genotype.key for proposal in own}) == len(own), "an architecture was asked twice")
        seeds = [rng.child_seed(unbroken.strategy.seed, "trial", k) for k in range(len(own))]
        require([proposal.seed for proposal in own] == seeds, "retries change the seeds of what it asks itself")


def _asked_again(world: World) -> list[Trial]:
    """The log of a world, with retries of all that has failed."""
    failed = FailedTrials()
    log = list(failed.passing(world.trials.values()))
    again = failed.again(failed.of_kind(), world.strategy.seed)
    require(again, "nothing has failed")
    return [*log, *(Trial(proposal=proposal) for proposal in again)]
