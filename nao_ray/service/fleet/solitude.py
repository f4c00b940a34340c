"""Trials that are to have a node for themselves, because a neighbour may have been the cause of their end."""

from __future__ import annotations

from collections.abc import Mapping


class Solitude:
    """Which trial a node is kept for: nothing else begins there until it is over."""

    def __init__(self) -> None:
        self._nodes: dict[int, str] = {}
        self._had: set[int] = set()

    @property
    def nodes(self) -> Mapping[int, str]:
        """By trial."""
        return self._nodes

    def keeps(self, node_id: str) -> bool:
        """Whether the node is kept for a trial."""
        return bool(self._nodes) and node_id in self._nodes.values()

    def want(self, trial_id: int, node_id: str) -> None:
        """Keep the node for the trial."""
        self._nodes[trial_id] = node_id
        self._had.add(trial_id)

    def had(self, trial_id: int) -> bool:
        """Whether a node was kept for the trial, or is: it is tried so once."""
        return trial_id in self._had

    def give_up(self, trial_id: int) -> None:
        """The trial does without."""
        self._nodes.pop(trial_id, None)

    def end(self, trial_id: int) -> None:
        """The trial is over."""
        self.give_up(trial_id)
        self._had.discard(trial_id)
