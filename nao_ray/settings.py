"""What every section of a config has in common: its keys are known, and its numbers are numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidatorFunctionWrapHandler, field_validator


class Settings(BaseModel):
    """Settings: frozen, unknown keys refused; no number is infinite or a boolean."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _no_boolean_for_a_number(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401
        made = handler(value)
        if _is_boolean_for_a_number(value, made):
            raise ValueError("expected a number, not true or false")
        return made


def _is_boolean_for_a_number(value: object, made: object) -> bool:
    if isinstance(value, bool):
        return isinstance(made, int | float) and not isinstance(made, bool)
    if isinstance(value, list | tuple) and isinstance(made, list | tuple):
        return any(_is_boolean_for_a_number(*pair) for pair in zip(value, made, strict=False))
    return False


@dataclass(frozen=True, slots=True)
class Instead:
    """Of a field, beside its type: settings that may stand there, too, which a validator of it reads."""

    settings: type[BaseModel]
