"""The base of every declared section."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from tl_dagster.runtime.errors import UnknownFieldError

__all__ = ["Settings"]


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
