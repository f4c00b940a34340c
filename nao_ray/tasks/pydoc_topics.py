"""The help texts of CPython's own `pydoc_data.topics`: real English that needs no download.

Which text that is depends on the version of Python; the last tenth of each topic tests, the tenth before validates.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.parts.layouts import Role
from nao_ray.tasks.texts.reading import Unit, with_end
from nao_ray.tasks.texts.word_task import WordTask, WordTaskConfig


class PydocTopicsConfig(WordTaskConfig):
    """What a word is."""

    min_count: int = Field(default=2, ge=1)
    """How often a word has to appear in the training text; the others teach what an unknown word is."""


class PydocTopics(WordTask[PydocTopicsConfig]):
    """Words and marks of punctuation."""

    Config: ClassVar[type[TaskConfig]] = PydocTopicsConfig

    name: ClassVar[str] = "pydoc_topics"
    usual_vocabulary = 4_000
    is_cut = True

    @property
    def unit(self) -> Unit:
        return "word"

    def _documents(self, role: Role) -> list[str]:
        from pydoc_data.topics import topics

        return [with_end(topics[name]) for name in sorted(topics)]
