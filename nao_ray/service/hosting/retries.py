"""``resume --retry-failed``: which failed trials of a pool are asked for again, and what to say of it."""

from __future__ import annotations

import logging
from typing import NamedTuple

from nao_ray.errors import ConfigError
from nao_ray.pool import PoolReader, PoolWriter
from nao_ray.search.budget import Budget
from nao_ray.search.clock import WallClock
from nao_ray.search.retries import ALL, KINDS, FailedTrials, is_bound, kind_of, kinds
from nao_ray.search.tally import Tally
from nao_ray.trial import Proposal, Trial

_log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """What is asked for again."""

    proposals: list[Proposal]
    line: str
    is_over: bool
    """The budget leaves nothing to do but these."""


def plan(pool: PoolReader, budget: Budget, kind: str, seed: int) -> Plan:
    """Look through a pool for failed trials that may be asked for again; nothing is written.

    Args:
        pool: of the search.
        budget: that holds now; retries do not count against its trials, but they take of its time.
        kind: of failure, or `ALL`.
        seed: the search's.

    Raises:
        ConfigError: there is no such kind of failure, those that match have scores with shared weights alone, or no
            time is left for them.
    """
    failed, tally = FailedTrials(), Tally(budget, WallClock())
    unfinished = tally.take_up(failed.passing(pool.stream_log()))
    if kind not in KINDS:
        there = kinds(failed.of_kind()) or "no failed trial to ask for again"
        raise ConfigError(f"--retry-failed {kind}: no such kind of failure; {pool.url} has {there}")
    found = failed.of_kind(kind)
    chosen = [trial for trial in found if not is_bound(trial)]
    if found and not chosen:
        raise ConfigError(
            f"--retry-failed: all that failed in {pool.url}, {kinds(found)}, was to be scored with shared weights, "
            "or to train them, and the search has gone on without; what is trained alone can be asked for again"
        )
    if chosen and tally.out_of_time:
        raise ConfigError(
            f"--retry-failed: budget.hours of {pool.url} is used up, and nothing is asked for again: give it more time "
            "with --set budget.hours=..."
        )
    total = budget.total(_planned(pool))
    is_spent = tally.out_of_time or (total is not None and tally.asked >= total)
    proposals = failed.again(chosen, seed)
    line = _asking(proposals, chosen, len(found) - len(chosen)) if chosen else _nothing(kind, failed)
    return Plan(proposals, line, is_spent and not unfinished)


def record_retries(pool: PoolWriter, budget: Budget, kind: str, seed: int) -> None:
    """Ask for them, in one write, before the search takes its log up; as `plan`."""
    found = plan(pool, budget, kind, seed)
    pool.record_asked(found.proposals, WallClock().now())
    _log.warning("%s", found.line)


def _planned(pool: PoolReader) -> int | None:
    planned = pool.manifest.get("planned")
    return planned if isinstance(planned, int) else None


def _asking(proposals: list[Proposal], trials: list[Trial], num_bound: int) -> str:
    first, last = proposals[0].trial_id, proposals[-1].trial_id
    if len(trials) == 1:
        what = f"trial {trials[0].trial_id}, which failed ({kind_of(trials[0])}), is asked for again as trial {first}"
    else:
        what = f"{len(trials)} failed trials are asked for again as trials {first} to {last}: {kinds(trials)}"
    left = f"; {num_bound} with shared weights stay as they are" if num_bound else ""
    return what + left


def _nothing(kind: str, failed: FailedTrials) -> str:
    others = kinds(failed.of_kind())
    if kind == ALL and others:
        return f"no failed trial is left to ask for again but {others}, which --retry-failed cancelled asks for"
    if not others:
        return "no failed trial is left to ask for again"
    return f"no failed trial of kind {kind} is left to ask for again, of others {others}"
