"""The feature engine of a stage: built from the declaration, the store and the inputs that were loaded."""

from typing import TYPE_CHECKING

from tl_dagster.declaration import Declaration
from tl_dagster.graph.stage import StageContext
from tl_dagster.runtime.errors import InputError

if TYPE_CHECKING:
    from tl_dagster.features.engine import LocalEngine
    from tl_dagster.features.feature_table import FeatureTable

__all__ = ["build_engine", "open_features"]


def build_engine(declaration: Declaration, context: StageContext) -> "LocalEngine":
    """Return the engine that computes the declared features.

    Raises:
        InputError: the backbone or its weights cannot be found.
    """
    from tl_dagster.data.manifest import read_manifest
    from tl_dagster.features.backbone_features import BackboneFeatures
    from tl_dagster.features.engine import LocalEngine

    return LocalEngine(
        BackboneFeatures.from_settings(declaration.backbone, context.store.layout.features),
        declaration.augmentation,
        declaration.compute,
        lambda: read_manifest(context.inputs["dataset"].path),
        context.progress,
    )


def open_features(declaration: Declaration, context: StageContext) -> "tuple[LocalEngine, FeatureTable]":
    """Return the engine, and the views and features of the bottleneck_features artifact that was loaded.

    Raises:
        InputError: the artifact was computed with another backbone than the declared one.
    """
    from tl_dagster.features.feature_table import FeatureTable

    engine = build_engine(declaration, context)
    table = FeatureTable.open(context.inputs["bottleneck_features"].path, context.store.layout.features)
    if [column.name for column in table.columns.values()] != [column.name for column in engine.features.columns()]:
        raise InputError(
            "bottleneck_features were computed with another backbone than is declared now: materialize them first"
        )
    return engine, table
