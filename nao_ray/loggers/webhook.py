"""Alerts by webhook: a message where a person should look, and one at the end.

A message is a JSON object, sent by POST: `text`, a line (which Slack, Mattermost and their like show), `alert` (its
kind), `search`, `pool`. Each is sent once, and again only after what it tells of was well meanwhile.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field, field_validator

from nao_ray.errors import ConfigError, LoggerError
from nao_ray.loggers.base import Logger, LoggerConfig, Position, Row, Search

Alert = Literal["no_progress", "failing", "disk", "finished", "stopped"]

_TIMEOUT_SECONDS = 10.0
_FEWEST = 10
"""Trials, before a share of them says something."""


class WebhookConfig(LoggerConfig):
    """Where to, and when."""

    url: str | None = None
    """http(s)://; by default what the driver's environment says as NAO_RAY_WEBHOOK: an address that is a secret stands
    there, for a config is recorded in the pool."""
    hours: float = Field(default=1.0, gt=0)
    """Without a finished trial, before that is told."""
    failing_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the last 20 trials, in (0, 1], that failed, from which on that is told."""
    free_share: float = Field(default=0.05, gt=0, lt=1)
    """Of the pool's disk, in (0, 1): where less is free that is told. Of a pool in a local folder."""

    @field_validator("url")
    @classmethod
    def _of_the_web(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("expected http://... or https://...")
        return value


class Webhook(Logger[WebhookConfig]):
    """Tells of no progress, of most trials failing, of a disk that is nearly full, and of the end."""

    Config = WebhookConfig
    package = "urllib"

    def __init__(self, config: WebhookConfig, search: Search, clock: Callable[[], float] = time.monotonic) -> None:
        """As `Logger`; `clock`: seconds.

        Raises:
            ConfigError: there is no address.
        """
        super().__init__(config, search)
        self._url = config.url or os.environ.get("NAO_RAY_WEBHOOK", "")
        if not self._url.startswith(("http://", "https://")):
            raise ConfigError("loggers: webhook: no url, and no NAO_RAY_WEBHOOK=http(s)://... in the environment")
        self._clock = clock
        self._since = clock()  # of the last progress
        self._began = time.time()
        self._told: set[Alert] = set()

    def open(self) -> Position:
        self._failed: deque[int] = deque(maxlen=20)  # of this driver's last trials, 1 for each that did
        self._trials, self._best = 0, ""
        return Position()  # the other side keeps nothing: all trials are counted anew, those of before in silence

    def log_trials(self, rows: Sequence[Row]) -> None:
        self._trials += len(rows)
        for row in rows:
            if row["is_best"]:
                self._best = f", best score {row['score']:.5g} (trial {row['trial_id']})"
            ago = math.inf if row["finished_at"] is None else max(0.0, time.time() - row["finished_at"].timestamp())
            if ago < time.time() - self._began:
                self._failed.append(row["failed"])
                self._since = max(self._since, self._clock() - ago)

    def log_fits(self, rows: Sequence[Row]) -> None:
        pass

    def look(self) -> None:
        hours = (self._clock() - self._since) / 3600
        self._tell("no_progress", hours >= self.config.hours, f"no trial has ended for {hours:.1f} hours")
        count, failed = len(self._failed), sum(self._failed)
        is_failing = count >= _FEWEST and failed >= self.config.failing_share * count
        self._tell("failing", is_failing, f"{failed} of the last {count} trials failed")
        if "://" not in self.search.pool_url:
            try:
                disk = shutil.disk_usage(self.search.pool_url)
            except OSError:  # gone, or away: the search says so itself
                return
            is_full = disk.free < self.config.free_share * disk.total
            self._tell("disk", is_full, f"the disk of its pool has {disk.free / 2**30:.1f} GiB left")

    def close(self) -> None:
        what = "done" if self.is_over else "stopped, it goes on with `nao-ray resume`"
        self._tell("finished" if self.is_over else "stopped", True, f"{what}; {self._trials:,} trials{self._best}")

    def _tell(self, alert: Alert, is_so: bool, text: str) -> None:
        """Send it, if it is so and was not told yet.

        Raises:
            LoggerError: it could not be sent.
        """
        if not is_so or alert in self._told:
            self._told -= set() if is_so else {alert}
            return
        name = self.search.name
        message = {"text": f"{name}: {text}", "alert": alert, "search": name, "pool": self.search.pool_url}
        request = urllib.request.Request(
            self._url, json.dumps(message).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
                self._told.add(alert)
        except OSError as error:  # all of urllib's are; none of their reasons shows the address
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            why = getattr(error, "reason", error)
            raise LoggerError(f"webhook: the alert {alert} could not be sent: {why}") from None
