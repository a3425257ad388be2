"""Settings of the transfer strategy."""

from typing import Literal

from pydantic import Field

from tl_dagster.runtime.settings import Settings

__all__ = ["TransferStrategy"]


class TransferStrategy(Settings):
    """The choice when and how to fine-tune: measured on the training images' cached features, or named.

    features-high and features-low stop at a classifier on the features of the highest tap, or of lower ones too;
    fine-tune-top and fine-tune-all train on, the last stage or the whole network.
    """

    strategy: Literal["auto", "features-high", "features-low", "fine-tune-top", "fine-tune-all"] = Field(
        "auto",
        description="auto: by the size of the set and its similarity to what the backbone was trained on. It gives the "
        "taps that the top model reads, and what `fine_tuning` leaves open: depth, epochs and learning rate.",
    )
    verify: bool = Field(
        False,
        description="An asset `strategy_verification` trains all four, and tells the predicted from the actual best.",
    )
