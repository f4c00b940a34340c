"""The base of tasks of text that read files."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import ClassVar, TypeVar

from nao_ray.tasks.parts.identity import FileIdentity
from nao_ray.tasks.parts.layouts import Role
from nao_ray.tasks.texts.reading import Unit
from nao_ray.tasks.texts.sources import Files
from nao_ray.tasks.texts.word_task import WordTask, WordTaskConfig


class FileTaskConfig(WordTaskConfig):
    """Where the text is."""

    path: str
    """A folder of files that are named after splits, a Parquet table with columns split, line and text, or a folder of
    such; an address of one."""
    places: ClassVar[frozenset[str]] = frozenset({"path"})


C = TypeVar("C", bound=FileTaskConfig)


class FileTask(WordTask[C]):
    """Words between spaces, as corpora are kept."""

    kinds: ClassVar[tuple[str, ...]] = (".txt", ".tokens", ".raw")
    """Endings of a text's name."""
    given_out: ClassVar[str] = ""
    """What the files are called and where one gets them, in words."""

    @property
    def unit(self) -> Unit:
        return "space"

    @property
    def is_cut(self) -> bool:  # type: ignore[override]  # as the files say
        """Whether no file is named after a split."""
        return self._source.is_cut

    @cached_property
    def _source(self) -> Files:
        return Files(self.config.path, self.kinds, source=self.given_out)

    def _documents(self, role: Role) -> list[str]:
        return self._source.documents(role)

    def _files(self, roles: Collection[Role]) -> list[FileIdentity] | None:
        return self._source.identities(roles)

    @property
    def _where(self) -> str:
        return f"task {self.name}, {self.config.path}"
