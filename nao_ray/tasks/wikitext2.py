"""WikiText-2: articles of Wikipedia, 33,278 words.

Merity, Xiong, Bradbury, Socher, ICLR 2017, arXiv 1609.07843. 2,088,628, 217,646 and 245,569 tokens, with one at the end
of each line, empty ones too.
"""

from __future__ import annotations

from typing import ClassVar

from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.texts.file_task import FileTask, FileTaskConfig


class WikiText2(FileTask[FileTaskConfig]):
    """`wiki.train.tokens`, `wiki.valid.tokens` and `wiki.test.tokens`, or a table."""

    Config: ClassVar[type[TaskConfig]] = FileTaskConfig

    name: ClassVar[str] = "wikitext2"
    network: ClassVar[str] = "wikitext2"
    usual_vocabulary = 33_278
    given_out = (
        "expected wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens, or the tables of the folder wikitext-2-v1 "
        "of https://huggingface.co/datasets/Salesforce/wikitext"
    )

    @property
    def full_training(self) -> str:
        return "nao_wikitext2"
