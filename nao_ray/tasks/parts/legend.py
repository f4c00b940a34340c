"""What of a task's training data its test split is read by: kept in checkpoints, so that evaluation needs no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from nao_ray.errors import DataError


class Legend(BaseModel):
    """What a family of tasks keeps, as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def read(cls, data: Mapping[str, Any], where: str) -> Self:
        """From `Task.legend`, of a checkpoint perhaps.

        Raises:
            DataError: it is none of this family; `where` begins the message.
        """
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            first = error.errors()[0]
            what = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise DataError(f"{where}: what the checkpoint keeps of its training data is not of this task: {what}")
