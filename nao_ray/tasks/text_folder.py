"""Any text of the user's own: a file, or a folder of files, in splits or to be cut."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from pydantic import Field

from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.texts.file_task import FileTask, FileTaskConfig
from nao_ray.tasks.texts.reading import Unit
from nao_ray.tasks.texts.sources import Files


class TextFolderConfig(FileTaskConfig):
    """What is read, and how."""

    path: str
    """A file of text or a folder, or an address of one. Files named after splits, by a folder or by themselves, are of
    those; where none is, the last tenth of each file tests, and the tenth before validates. Or a Parquet table with
    columns split, line and text."""
    cut: bool = False
    """Each file is cut whatever it is called."""
    unit: Unit = "word"
    """`word`: words and marks of punctuation; `space`: what stands between spaces; `character`."""
    min_count: int = Field(default=2, ge=1)
    """How often a word has to appear in the training text; the others teach what an unknown word is."""


class TextFolder(FileTask[TextFolderConfig]):
    """Text files below a folder."""

    Config: ClassVar[type[TaskConfig]] = TextFolderConfig

    name: ClassVar[str] = "text_folder"
    kinds: ClassVar[tuple[str, ...]] = (".txt", ".text", ".tokens", ".raw", ".md", ".rst")
    usual_vocabulary = 10_000

    @cached_property
    def _source(self) -> Files:
        return Files(self.config.path, self.kinds, named=not self.config.cut)

    @property
    def unit(self) -> Unit:
        return self.config.unit
