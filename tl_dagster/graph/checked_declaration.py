"""The declaration as the component accepts it: checks that need Dagster, or what the backbone's library has."""

from typing import Any

import dagster as dg
from pydantic import Field, field_validator

from tl_dagster.backbones.description import BackboneInfo, describe_backbone
from tl_dagster.backbones.settings import Backbone
from tl_dagster.data.check_transforms import check_transforms
from tl_dagster.declaration import Declaration, Schedule
from tl_dagster.runtime.errors import InputError

__all__ = ["CheckedDeclaration"]


class CheckedBackbone(Backbone):
    """A backbone that its library has, with taps that it has."""

    def model_post_init(self, context: Any, /) -> None:
        """Refuse what the library or the backbone lacks."""
        try:
            info = describe_backbone(self)
            for tap in self.taps:
                info.module(tap)
        except InputError as error:
            raise ValueError(str(error)) from error


class CheckedSchedule(Schedule):
    """A schedule whose cron expression Dagster accepts."""

    @field_validator("cron")
    @classmethod
    def _valid_cron(cls, cron: str) -> str:
        try:
            dg.ScheduleDefinition(name="check", job_name="check", cron_schedule=cron)
        except dg.DagsterError as error:
            raise ValueError(f"'{cron}' is not a cron expression of five fields, such as '0 3 * * 1'") from error
        return cron


class CheckedDeclaration(Declaration):
    """A declaration whose backbone was looked up, whose strategy and depth it can follow, and with a valid schedule."""

    backbone: CheckedBackbone = Field(default_factory=CheckedBackbone, description=Backbone.__doc__)
    schedule: CheckedSchedule | None = Field(None, description=Declaration.model_fields["schedule"].description)

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a depth that leaves nothing to tune, and transforms that cannot be drawn."""
        try:
            info = describe_backbone(self.backbone)
            self._check_strategy(info)
            check_transforms(self.augmentation, info.input_size(self.backbone))
        except InputError as error:
            raise ValueError(str(error)) from error

    def _check_strategy(self, info: BackboneInfo) -> None:
        strategy, taps = self.transfer_strategy.strategy, self.backbone.taps
        if strategy == "features-low" and len(taps) < 2:
            raise InputError(f"transfer_strategy.strategy: {strategy} needs a lower tap too; backbone.taps are {taps}")
        if info.untunable and self.fine_tuning.depth != "none":
            raise InputError(
                f"fine_tuning.depth: {info.name} cannot be fine-tuned, the gradients of one image end with "
                f"{info.untunable}: declare none, or another backbone"
            )
        depth = "top" if strategy == "fine-tune-top" else self.fine_tuning.depth
        if depth not in ("auto", "none"):
            info.frozen_through(taps, depth)
