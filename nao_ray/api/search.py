"""Start a search, look at it, and ask things of it, while the notebook does something else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from nao_ray.addresses import absolute
from nao_ray.api.drivers import Driver, Ended, Job, Process
from nao_ray.api.pool import Pool, open_pool
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, InputError, NaoRayError, PoolError, RunError
from nao_ray.pool import PoolReader
from nao_ray.preset_files import PRESETS
from nao_ray.service.given import Given, as_overrides, pool_of, read_config
from nao_ray.service.hosting import asking

State = Literal["starting", "running", "done", "stopped", "failed", "lost"]

_HINT = "nao_ray.start(CONFIG) starts a search and makes one"
_LOOK_SECONDS = 0.2
_REMOTE_LOOK_SECONDS = 2.0  # each is a request


class Search:
    """The search of a pool, whoever started it and wherever it runs: a handle that may be thrown away and made again.

    `nao_ray.start` gives one; ``nao_ray.Search("pools/digits")`` is another of the same search, in another process or
    after the kernel was restarted, which knows what the pool tells.
    """

    def __init__(self, pool: str | Path, *, _driver: Driver | None = None) -> None:
        """As described above.

        Args:
            pool: folder or URL.

        Raises:
            PoolError: there is none.
            PoolReadError: where it should be cannot be reached.
        """
        self.url = absolute(str(pool))
        self._driver = _driver
        if _driver is None and not PoolReader.exists(self.url):  # of one that was just started it may not be there yet
            is_preset = (PRESETS / f"{pool}.yaml").is_file()
            hint = f"{pool} is a preset: nao_ray.start({str(pool)!r}) starts a search" if is_preset else _HINT
            raise PoolError(f"there is no pool at {self.url}; {hint}")

    @cached_property
    def pool(self) -> Pool:
        """What it has found so far: see `nao_ray.Pool`. Its `watch` goes on until the search is over.

        Raises:
            PoolError: there is none; of a job whose pool is not seen from here, or is not there yet, too.
        """
        pool = open_pool(self.url)
        pool._goes_on = lambda: not self.is_over
        return pool

    @property
    def state(self) -> State:
        """How it stands.

        `starting`: its driver, or its Ray, is not up yet; `running`; `done`: its budget is used up, or its strategy is
        done; `stopped`: it was ended before, and goes on when it is started again; `failed`: see `wait`; `lost`: its
        driver gives no sign of life. Of a search that was not started here `done` is told from `stopped` by the budget
        that its pool was made with, or was given while it ran.

        Raises:
            NaoRayError: its pool cannot be read, or its cluster not be reached.
        """
        ended = None if self._driver is None else self._driver.ended()
        if ended is not None:
            return "done" if ended.code == 0 else "stopped" if ended.code == 130 else "failed"
        if self._driver is not None:
            try:
                return "running" if self.pool.status().driver.state == "alive" else "starting"
            except PoolError:  # a job's, which is not seen from here
                return "running" if isinstance(self._driver, Job) else "starting"
        view = self.pool.status()
        if view.driver.state != "none":
            return "running" if view.driver.state == "alive" else "lost"
        is_full = view.budget_trials is not None and view.finished >= view.budget_trials
        return "done" if is_full else "stopped"

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs."""
        return self.state not in ("starting", "running")

    def wait(self, timeout: float | None = None) -> State:
        """Wait until it is over; returns its state, which says so or, after `timeout` seconds, does not.

        Ctrl-C, or the end of the kernel, ends the waiting and not the search.

        Raises:
            InputError: it could not begin: the config, the data, the pool or the cluster is not what it should be.
            RunError: it failed; the pool is resumable.
        """
        end = None if timeout is None else time.monotonic() + timeout
        every = _REMOTE_LOOK_SECONDS if self._driver is None or isinstance(self._driver, Job) else _LOOK_SECONDS
        while not self.is_over:
            left = every if end is None else min(every, end - time.monotonic())
            if left <= 0:
                break
            time.sleep(left)
        state = self.state
        if state == "failed":
            assert self._driver is not None
            self._raise(self._driver.ended())
        return state

    def stop(self, *, drain: bool = True) -> str:
        """Ask it to end; returns the answer at once: `wait` waits for the end. The pool is resumable.

        Args:
            drain: let the trials that run end first; else they are given up, and are first when it goes on.

        Raises:
            PoolError: nobody searches the pool.
            RunError: its driver does not answer.
        """
        return self._asked(lambda: asking.drain(self.url, None if drain else 0.0), or_end=True)

    def set_budget(self, *, trials: int | None = None, hours: float | None = None) -> str:
        """Give it another budget while it runs; returns the driver's answer.

        Args:
            trials: over all drivers of the pool; None: as it was.
            hours: of wall time, likewise.

        Raises:
            ConfigError: there is no such budget.
            PoolError: nobody searches the pool, or the driver refuses: so many trials are asked already.
            RunError: its driver does not answer.
        """
        return self._asked(lambda: asking.change_budget(self.url, trials=trials, hours=hours))

    def cancel(self, trial_id: int) -> str:
        """Give up one trial, waiting or begun, which is then FAILED as `cancelled`; returns the driver's answer.

        Raises:
            PoolError: nobody searches the pool, or no such trial is open.
            RunError: its driver does not answer.
        """
        return self._asked(lambda: asking.cancel(self.url, trial_id))

    def log(self) -> str:
        """What its driver has said; empty where it was not started by this process."""
        return "" if self._driver is None else self._driver.log()

    def __repr__(self) -> str:
        try:
            return f"<Search {self.state}: {self.pool!r}>"
        except NaoRayError as error:
            return f"<Search of {self.url}: {error}>"

    def _repr_html_(self) -> str:
        try:
            return f"<p style='margin:0'>search: <b>{self.state}</b></p>{self.pool._repr_html_()}"
        except NaoRayError:
            from html import escape

            return f"<p>{escape(repr(self))}</p>"

    def _asked(self, ask: Callable[[], str], *, or_end: bool = False) -> str:
        """An answer; of one that has just been started, once it can hear, or it is ended instead."""
        while self._driver is not None and self.state == "starting":
            if or_end:
                return self._driver.end()
            time.sleep(_LOOK_SECONDS)
        return ask()

    def _raise(self, ended: Ended | None) -> None:
        assert ended is not None
        raise (InputError if ended.code == 2 else RunError)(ended.message)


def start(
    config: Given,
    pool: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | Sequence[str] = (),
    address: str | None = None,
    detach: bool = False,
    in_process: bool = False,
    wait: float = 0.0,
    python: str = "python",
) -> Search:
    """Start a search, or go on with that of a pool, and return while it runs: it is `nao-ray search`, beside you.

    Its driver is a process of its own, which the end of this one does not end. What is wrong with config, data or pool
    is raised here; what goes wrong later `Search.wait` raises.

    Args:
        config: path of a YAML config, name of a preset, the same as a mapping, or a `RunConfig`.
        pool: folder or URL, made if it is missing; None: ``pools/<name of the config>``.
        settings: laid over the config, ``{"budget.trials": 8}``, or texts as for ``--set``.
        address: of a Ray cluster: of its dashboard, ``http://HOST:8265``, and the search is handed in there as a job;
            of its head, ``HOST:6379`` or ``auto``, and the driver joins it. None: as ``RAY_ADDRESS`` says, or a local
            Ray, which the driver starts and ends.
        detach: on a cluster: the search outlives its driver, or its job.
        in_process: without Ray, one trial at a time in the driver; it answers between two trials.
        wait: seconds that the driver waits for another one of the pool to end or to fall silent.
        python: of a job, that of the cluster's machines.

    Raises:
        ConfigError: there is no such config, or it is wrong.
        DataError: its data are not there.
        PoolError: the pool is of another search, or is being searched.
        ClusterError: nothing answers at the address.
    """
    overrides = as_overrides(settings)
    if in_process and (detach or address is not None):
        raise ConfigError("in_process is without Ray: give neither address nor detach")
    where = None if pool is None else str(pool)
    if address is not None and address.startswith(("http://", "https://")):
        from nao_ray.service.jobs.searching import prepare

        job = prepare(config, where, overrides, address, python, detach=detach)
        return Search(job.url, _driver=Job(job))
    run_config, _ = read_config(config, overrides)
    url = absolute(pool_of(where, run_config.name))
    made_as = _checked(run_config, url, address, wait, in_process=in_process)
    is_file = isinstance(config, str | Path)
    arguments = [str(config), "--wait", str(wait), "--made-as", made_as]
    for override in overrides if is_file else ():
        arguments += ["--set", override]
    arguments += ["--in-process"] * in_process + ["--detach"] * detach
    return Search(url, _driver=Process(url, arguments, None if is_file else run_config.to_yaml(), address))


def _checked(config: RunConfig, url: str, address: str | None, wait: float, *, in_process: bool) -> str:
    """Raise what the driver would; make the pool, and return what it is known by."""
    from nao_ray.service.hosting.checks import check_search, refuse_device_without_gpu, take_pool
    from nao_ray.service.hosting.manifest import storage_id

    search = check_search(config, url)
    if not in_process:
        refuse_device_without_gpu(search.config)
    if address is not None and address != "local":
        from nao_ray.service.hosting.cluster import knock

        knock(address)
    is_searched = PoolReader.exists(url) and open_pool(url).status().driver.state == "alive"
    if (is_searched or Process.runs_on(url)) and not wait:
        raise PoolError(f"{url} is being searched already: nao_ray.Search({url!r}) is a handle of that search")
    return storage_id(take_pool(url, search).manifest)
