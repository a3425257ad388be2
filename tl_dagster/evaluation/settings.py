"""Settings of the promotion of models."""

from pydantic import Field

from tl_dagster.runtime.settings import Settings

__all__ = ["Promotion"]


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
