"""What is kept of a failed attempt for people to read: where and when it ran, its traceback, what it printed."""

from __future__ import annotations

from nao_ray.search.executor import Completion, Failure
from nao_ray.trial import Trial


def log_text(trial: Trial, completion: Completion) -> str:
    """The text of `POOL/logs/TRIAL-ATTEMPT.txt`."""
    assert isinstance(completion.outcome, Failure)
    span = " to ".join(f"{at:%Y-%m-%d %H:%M:%S}" for at in (completion.started_at, completion.finished_at) if at)
    places = [
        f"on {completion.node}" if completion.node else "",
        completion.device or "",
        f"{span} UTC" if span else "",
    ]
    return "\n".join(
        [
            f"trial {trial.trial_id}, attempt {trial.attempt}: {completion.outcome.kind}",
            completion.outcome.message,
            ", ".join(place for place in places if place),
            f"genotype {trial.genotype.key}, seed {trial.proposal.seed}",
            "",
            completion.outcome.log.rstrip() or "nothing more is known of it",
            "",
        ]
    )
