"""The base of every declared section."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from tl_dagster.runtime.errors import UnknownFieldError

__all__ = ["Settings", "flatten"]


class Settings(BaseModel):
    """The base of declared sections: immutable; unknown fields are refused with the nearest match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for field in values:
                if field not in cls.model_fields:
                    raise UnknownFieldError(str(field), cls.model_fields)
        return values


def flatten(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of every setting in nested sections."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
