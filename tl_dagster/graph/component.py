"""The Dagster component: a declaration becomes assets, a job, a schedule and a sensor."""

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel, Field

from tl_dagster.backbones.description import BackboneInfo, describe_backbone
from tl_dagster.backbones.settings import Backbone
from tl_dagster.data.check_transforms import check_transforms
from tl_dagster.declaration import Declaration
from tl_dagster.graph import automation
from tl_dagster.graph.asset import build_asset
from tl_dagster.graph.stages import STAGES
from tl_dagster.runtime.errors import InputError

__all__ = ["TransferLearning", "build_definitions"]


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


class CheckedDeclaration(Declaration):
    """A declaration whose backbone was looked up, and whose strategy and depth it can follow."""

    backbone: CheckedBackbone = Field(default_factory=CheckedBackbone, description=Backbone.__doc__)

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
        depth = "top" if strategy == "fine-tune-top" else self.fine_tuning.depth
        if depth not in ("auto", "none"):
            info.frozen_through(taps, depth)


class TransferLearning(dg.Component):
    """An image classifier by transfer learning, from a folder or table of labelled images.

    The smallest declaration is a name and a source; docs/declaration.md explains every field.
    """

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The schema of ``attributes``."""
        return CheckedDeclaration

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "TransferLearning":
        """A component from validated attributes."""
        if not isinstance(attributes, Declaration):
            raise dg.DagsterInvalidDefinitionError(
                "tl_dagster.TransferLearning needs `attributes` with a name and a source"
            )
        return cls(attributes)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The pipeline's definitions; paths in the declaration start from the project's root."""
        return build_definitions(self.declaration, Path(context.project_root))


def build_definitions(declaration: Declaration, root: Path) -> dg.Definitions:
    """Assets, job, schedule and sensor of a pipeline.

    Args:
        declaration: the pipeline.
        root: what relative paths in it start from.
    """
    follows_source = [automation.source_asset(declaration, root)] if declaration.on_change else []
    condition = automation.on_change() if declaration.on_change else None
    assets = [
        build_asset(
            stage(declaration, root), condition, [source.key for source in follows_source] if not stage.inputs else []
        )
        for stage in STAGES
        if stage.is_enabled(declaration)
    ]
    job = dg.define_asset_job(
        declaration.name,
        selection=dg.AssetSelection.assets(*assets),
        description=declaration.description or f"Refresh every asset of {declaration.name}.",
    )
    return dg.Definitions(
        assets=[*follows_source, *assets],
        jobs=[job],
        schedules=automation.schedule(declaration, job),
        sensors=[automation.sensor(declaration)] if declaration.on_change else [],
    )
