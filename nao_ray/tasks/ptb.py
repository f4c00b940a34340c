"""The Penn Treebank as language models read it: 10,000 words, one of them for all others.

Marcus, Santorini, Marcinkiewicz, 1993; Mikolov, Karafiat, Burget, Cernocky, Khudanpur, 2010. 929,589, 73,760 and 82,430
tokens, with one at the end of each line.
"""

from __future__ import annotations

from typing import ClassVar

from nao_ray.tasks.base import TaskConfig
from nao_ray.tasks.texts.file_task import FileTask, FileTaskConfig


class Ptb(FileTask[FileTaskConfig]):
    """`ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt`, or a table."""

    Config: ClassVar[type[TaskConfig]] = FileTaskConfig

    name: ClassVar[str] = "ptb"
    network: ClassVar[str] = "ptb"
    usual_vocabulary = 10_000
    given_out = (
        "expected ptb.train.txt, ptb.valid.txt and ptb.test.txt, given out in the folder data of "
        "http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz"
    )

    @property
    def full_training(self) -> str:
        return "nao_ptb"
