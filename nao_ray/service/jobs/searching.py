"""A search as a job of a Ray cluster: checked here as far as it can be, then handed in."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from nao_ray import __version__
from nao_ray.addresses import absolute
from nao_ray.config_workers import login
from nao_ray.own_modules import OwnModules
from nao_ray.service import places
from nao_ray.service.given import Given, pool_of, read_config
from nao_ray.service.hosting.manifest import COMMAND
from nao_ray.service.jobs import client, marks, packing


@dataclass(kw_only=True)
class SearchJob:
    """One that is ready to be handed in."""

    jobs: client.Jobs
    name: str
    """Shared by all jobs of its config and pool."""
    url: str
    """Of the pool, as the cluster knows it."""
    config: str
    """Text of the config that the job carries."""
    overrides: tuple[str, ...]
    python: str
    detach: bool
    again: str | None
    """The command that hands it in again; None: there is none."""
    file: str
    carries: list[str] = field(default_factory=list, init=False)
    """What it carries, once it is handed in."""
    size: int = field(default=0, init=False)
    """Bytes of that."""
    _mark: str | None = field(default=None, init=False)

    def hand_in(self, *, package: bool = True) -> str:
        """Hand it in; returns the job's id.

        Args:
            package: carry nao_ray itself; else it is installed on the cluster.

        Raises:
            ConfigError: it is more than the job server takes.
            ClusterError: the cluster does not take it.
            KeyboardInterrupt: it may have been handed in.
        """
        modules = OwnModules.of_this_process()
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "job.zip"
            self.size = packing.pack(archive, self.config, self.file, package=package, modules=modules.files)
            known = packing.known_as(self.url)
            self._mark = None if known else marks.leave(self.url, self.jobs.nodes())
            try:
                command = packing.entrypoint(
                    self.python, self.file, self.url, self.overrides, detach=self.detach, made_as=known, mark=self._mark
                )
                about = client.describe(self.name, self.url, detach=self.detach)
                variables = {} if self.again is None else {COMMAND: self.again}
                job_id = self.jobs.submit(self.name, command, archive, about, variables)
            except Exception:
                self.take_mark_away()
                raise
        own = [f"nao_ray {__version__}"] if package else []
        self.carries = [*own, self.file, *(top for top, _ in modules.packages)]
        return job_id

    def take_mark_away(self) -> None:
        """Once the job has looked, or never will."""
        marks.take_away(self._mark)


def prepare(
    config: Given,
    pool: str | None,
    overrides: tuple[str, ...],
    address: str | None,
    python: str,
    *,
    detach: bool,
) -> SearchJob:
    """Check a search as far as that can be done from here.

    Args:
        config: as described there.
        pool: folder or URL; None: the default, from here.
        overrides: ``section.key=value``.
        address: of the cluster's dashboard; None: as `client.connect` finds it.
        python: that of the cluster's machines.
        detach: the search is to outlive the job.

    Raises:
        InputError: the config is wrong, or the cluster does not answer, or cannot see pool or data.
    """
    run_config, text = read_config(config, overrides)
    run_config.make_strategy()
    folder = pool_of(pool, run_config.name)
    url = packing.shared_pool(folder)
    jobs = client.connect(address)
    data = places.given(run_config)
    earlier = {f"strategy.warm_start[{k}]": place for k, place in enumerate(places.earlier_pools(run_config))}
    packing.refuse_local({packing.POOL: folder, **data, **earlier}, jobs.nodes())
    again = None
    if isinstance(config, str | Path):
        again = packing.handing_in(str(config), url, overrides, jobs.address, detach=detach)
    text, overrides = packing.without_files(text, overrides, run_config)
    if run_config.workers.user is None:
        overrides += (f"workers.user={json.dumps(login())}",)
    overrides += tuple(f"{key}={json.dumps(absolute(path))}" for key, path in data.items())
    if earlier:
        overrides += (f"strategy.warm_start={json.dumps([absolute(place) for place in earlier.values()])}",)
    return SearchJob(
        jobs=jobs,
        name=packing.job_name(run_config.name, url),
        url=url,
        config=text,
        overrides=overrides,
        python=python,
        detach=detach,
        again=again,
        file=f"{run_config.name}.yaml",
    )
