"""What is asked of a running search, from wherever its pool is seen: another budget, the end of a trial, of it all."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from typing import Any

from nao_ray.errors import ConfigError, PoolError, RunError

ANSWER_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_LOOKS = 6  # for an answer, between two for a driver
_REFUSED = "refused: "


def change_budget(pool: str, *, trials: int | None = None, hours: float | None = None) -> str:
    """Give a search another budget; returns the driver's answer. Raises as `ask`, and ConfigError."""
    if trials is None and hours is None:
        raise ConfigError("a budget is trials, hours, or both")
    for name, limit in (("trials", trials), ("hours", hours)):
        if limit is not None and not 0 < limit < 1e9:
            raise ConfigError(f"budget {name}={limit}: expected a {'whole ' * (name == 'trials')}number above 0")
    request: dict[str, Any] = {"what": "budget"}
    request |= {} if trials is None else {"trials": trials}
    request |= {} if hours is None else {"seconds": hours * 3600}
    first = f"trials={trials}" if trials is not None else f"hours={hours:g}"
    return ask(pool, request, f"nao-ray resume {shlex.quote(pool)} --set budget.{first} goes on with another budget")


def cancel(pool: str, trial_id: int) -> str:
    """Give up one trial, waiting or begun; returns the driver's answer. Raises as `ask`."""
    return ask(pool, {"what": "cancel", "trial_id": trial_id}, f"nao-ray resume {shlex.quote(pool)} goes on")


def drain(pool: str, seconds: float | None) -> str:
    """Let what runs end, and begin nothing further; the search then ends, resumable."""
    return ask(pool, {"what": "drain", "seconds": seconds}, "there is nothing to end")


def ask(
    pool: str,
    request: Mapping[str, Any],
    otherwise: str,
    *,
    patience: float = ANSWER_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Ask the driver of a pool; returns its answer.

    Args:
        pool: folder or URL.
        request: as `nao_ray.search.requests.Request`.
        otherwise: what to do where there is no driver.
        patience: seconds to wait for an answer.
        sleep: lets seconds go by.

    Raises:
        PoolError: there is no such pool, nobody searches it, or the driver refuses.
        RunError: no answer has come; nothing was changed.
    """
    from nao_ray.pool import PoolReader, Watch

    mailbox, watch = PoolReader.open(pool).mailbox, Watch(pool)
    is_there = watch.look().driver.state != "none"
    name = mailbox.ask(request) if is_there else ""
    answer, looks = None, max(1, round(patience / _LOOK_SECONDS))
    try:
        while answer is None and is_there and looks:
            sleep(_LOOK_SECONDS)
            answer, looks = mailbox.take_answer(name), looks - 1
            if looks % _LOOKS == 0:
                is_there = watch.look().driver.state != "none"
    finally:
        if answer is None and name:
            mailbox.take_back(name)
            answer = mailbox.take_answer(name)
    if answer is None and not is_there:
        raise PoolError(f"no search runs on {pool}: {otherwise}")
    if answer is None:
        raise RunError(
            f"the driver of {pool} gave no answer within {patience:g} s and is asked no longer: it may be dead, or "
            "evaluate in its own process, where it can answer between two trials only"
        )
    if answer.startswith(_REFUSED):
        raise PoolError(f"{pool}: {answer.removeprefix(_REFUSED)}")
    return answer
