"""Settings of the promotion of models, and of the comparison of backbones."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from tl_dagster.backbones.settings import Backbone
from tl_dagster.runtime.settings import Settings

__all__ = ["BackboneLeaderboard", "Promotion"]

TAP = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


class Promotion(Settings):
    """When a newly trained model takes the place of the one in service."""

    confidence: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="With this chance no model that is not better ever takes the place of the one in service, however "
        "many are tried against it.",
    )
    margin: float = Field(
        0.0, ge=0, lt=1, description="Test accuracy by which a model has to be better: 0.01 is one point."
    )
    freshness_days: float | None = Field(
        None, gt=0, description="Days within which the champion should be judged anew; later, Dagster calls it stale."
    )


class BackboneLeaderboard(Settings):
    """Backbones, layers and poolings to compare on the pipeline's training and validation images."""

    backbones: list[Backbone] = Field(
        [Backbone()],
        min_length=1,
        max_length=200,
        description="Names, or mappings with the fields of `backbone`; their taps and pooling are not read.",
    )
    taps: list[str] = Field(
        ["lower", "higher"], min_length=1, max_length=50, description="Layers of each backbone, as in `backbone.taps`."
    )
    poolings: list[Literal["avg", "max", "avg+max", "grid2x2"]] = Field(
        ["avg"], min_length=1, description="Poolings of each layer, as in `backbone.pooling`."
    )
    images: int = Field(
        3000, ge=20, le=50_000, description="Images to compare on, at most: the same share of each class."
    )

    @field_validator("backbones", mode="before")
    @classmethod
    def _named(cls, backbones: Any) -> Any:
        """Take a name for a mapping with it."""
        if not isinstance(backbones, list):
            return backbones
        return [{"name": each} if isinstance(each, str) else each for each in backbones]

    @field_validator("taps")
    @classmethod
    def _single(cls, taps: list[str]) -> list[str]:
        for tap in taps:
            if not TAP.fullmatch(tap):
                raise ValueError(
                    f"'{tap}' is no layer's name: write each as an entry of its own, such as [lower, higher]"
                )
        return taps

    @field_validator("backbones", "taps", "poolings")
    @classmethod
    def _distinct(cls, values: list[Any]) -> list[Any]:
        for number, value in enumerate(values):
            if value in values[:number]:
                raise ValueError(f"'{getattr(value, 'name', value)}' is given twice: drop one")
        return values
