"""The Dagster component: a declaration becomes assets, a job, a schedule and a sensor."""

from pathlib import Path

import dagster as dg
from pydantic import BaseModel

from tl_dagster.declaration import Declaration
from tl_dagster.graph import automation
from tl_dagster.graph.asset import build_asset
from tl_dagster.graph.attributes import Attributes, resolve_declaration
from tl_dagster.graph.executor import EXECUTORS

__all__ = ["TransferLearning", "build_definitions"]


class TransferLearning(dg.Component, dg.Resolvable):
    """An image classifier by transfer learning, from a folder or table of labelled images.

    The smallest declaration is a name and a source; docs/declaration.md explains every field.
    """

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Return the model of ``attributes``: any of them may be a template, such as ``{{ env.DATA }}``."""
        return Attributes

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> "TransferLearning":
        """Return the component of attributes whose templates are resolved and whose values are checked."""
        return cls(resolve_declaration(context, model.model_dump()))

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "TransferLearning":
        """Return the component of a defs.yaml.

        Raises:
            DagsterInvalidDefinitionError: it has no attributes.
        """
        if attributes is None:
            raise dg.DagsterInvalidDefinitionError(
                "tl_dagster.TransferLearning needs `attributes` with a name and a source"
            )
        return super().load(attributes, context)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the pipeline's definitions; paths in the declaration start from the project's root."""
        return build_definitions(self.declaration, Path(context.project_root))


def build_definitions(declaration: Declaration, root: Path) -> dg.Definitions:
    """Return the assets, job, schedule and sensor of a pipeline.

    Args:
        declaration: the pipeline.
        root: the folder that relative paths in it start from.
    """
    source = [automation.describe_source(declaration)] if declaration.on_change else []
    stages = automation.enabled_stages(declaration, root)
    assets = [build_asset(stage, [] if stage.inputs else [spec.key for spec in source]) for stage in stages]
    job = dg.define_asset_job(
        declaration.name,
        selection=dg.AssetSelection.assets(*assets),
        description=declaration.description or f"Refresh every asset of {declaration.name}.",
        executor_def=EXECUTORS[declaration.compute.executor],
    )
    return dg.Definitions(
        assets=[*source, *assets],
        jobs=[job],
        schedules=automation.build_schedules(declaration, job),
        sensors=[automation.build_sensor(declaration, root, job)] if declaration.on_change else [],
    )
