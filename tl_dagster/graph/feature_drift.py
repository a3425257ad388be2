"""The check of features against those of the images that the model in service was trained on."""

from typing import TYPE_CHECKING

import numpy as np

from tl_dagster.declaration import Checks
from tl_dagster.graph.champions import find_in_service
from tl_dagster.graph.stage import CheckResult
from tl_dagster.reporting.tables import table_rows
from tl_dagster.store.artifacts import FEATURES, Artifact, ArtifactStore

if TYPE_CHECKING:
    import pandas as pd

    from tl_dagster.features.feature_table import FeatureTable

__all__ = ["check_feature_drift"]

DELETED = "the features of the champion's training images were deleted: nothing to compare with"


def check_feature_drift(
    store: ArtifactStore, pipeline: str, features: Artifact, manifest: "pd.DataFrame", settings: Checks
) -> CheckResult:
    """Check whether images that the champion was not trained with come from where its training images came from.

    Args:
        store: of the champion.
        pipeline: whose champion.
        features: the new bottleneck_features.
        manifest: the dataset, which has the images' groups and addresses.
        settings: the share of false alarms.
    """
    import pandas as pd

    from tl_dagster.data.manifest import group_names, image_groups, shown_uris
    from tl_dagster.evaluation.feature_drift import measure_drift
    from tl_dagster.features.feature_table import FeatureTable

    champion = find_in_service(store, pipeline)
    if champion is None:
        return CheckResult(True, "no model is in service yet: nothing to compare with")
    before = store.find(FEATURES, champion.inputs[FEATURES])
    if before is None:
        return CheckResult(True, DELETED)
    cache = store.layout.features
    known, now = FeatureTable.open(before.path, cache), FeatureTable.open(features.path, cache)
    columns = {column.name for column in now.columns.values()}
    taps = [tap for tap, column in known.columns.items() if column.name in columns]
    if not taps:
        return CheckResult(True, "the champion has another backbone: nothing to compare with")
    groups = image_groups(manifest)
    known_rows, new_rows = _select_rows(known, now, groups)
    if not len(new_rows):
        return CheckResult(True, "no image is new since the champion was trained", metrics={"new_images": 0})
    by_name = {column.name: tap for tap, column in now.columns.items()}
    new_taps = [by_name[known.columns[tap].name] for tap in taps]
    known_rows = known_rows[known.has_features(known_rows, taps)]
    if not len(known_rows):
        return CheckResult(True, DELETED)
    values = known.features(known_rows, taps), now.features(new_rows, new_taps)
    ids = known.views["id"].iloc[known_rows], now.views["id"].iloc[new_rows]
    drift = measure_drift(*values, *(group_names(groups, each) for each in ids))
    order = np.argsort(-drift.distances, kind="stable")
    shown = now.views.iloc[new_rows[drift.rows[order]]]
    table = table_rows(
        {
            "image": shown_uris(manifest, shown["id"]),
            "distance": pd.Series(drift.distances[order], shown.index, "float64"),
            "split": shown["split"],
            "label": shown["label"],
        }
    )
    passed = drift.p_value >= settings.feature_drift
    description = (
        f"{len(new_rows):,} images are new since the champion was trained; that they come from where its training "
        f"images came from is {'possible' if passed else 'unlikely'} (p = {drift.p_value:.3f})"
    )
    if not passed:
        description += "; look at those that differ most: other devices, other scenes, or files that do not belong here"
    metrics = {"new_images": len(new_rows), "p_value": drift.p_value, "largest_distance": float(drift.distances.max())}
    return CheckResult(passed, description, table=table, metrics=metrics)


def _select_rows(known: "FeatureTable", now: "FeatureTable", groups: "pd.Series") -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the champion's training images, and of images from groups that it was not trained with.

    One row each: of the view as it is.
    """
    from tl_dagster.data.manifest import group_names

    before, images = (table.views[table.views["view"] == 0] for table in (known, now))
    is_new = ~np.isin(group_names(groups, images["id"]), group_names(groups, before["id"]))
    return (
        np.flatnonzero((known.views["view"] == 0) & (known.views["split"] == "train")),
        np.flatnonzero(now.views["view"] == 0)[is_new],
    )
