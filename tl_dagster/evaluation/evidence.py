"""What the cached features tell of the data: accuracy by the number of training images, and label suspects."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tl_dagster.data.labels import class_indices
from tl_dagster.data.manifest import read_groups
from tl_dagster.data.sampling import sample
from tl_dagster.data.splits import read_views, unit_hash
from tl_dagster.evaluation.label_suspects import FOLDS, contradicted, most_images
from tl_dagster.evaluation.learning_curve import learning_curve, most_tested
from tl_dagster.evaluation.learning_curve import most_images as most_curve_images
from tl_dagster.features.backbone_features import open_features, read_features
from tl_dagster.graph.stage import StageContext
from tl_dagster.training.feature_batches import build_targets
from tl_dagster.training.logistic_regression import held_out_probabilities

__all__ = ["accuracy_by_images", "label_suspects"]

PLAIN_L2 = 0.01  # where the top model has none of its own


def accuracy_by_images(work: StageContext, classes: list[str], top: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The learning curve on the plain images' features at the top model's taps; of large sets, on a part.

    Args:
        work: holds bottleneck_features.
        classes: class names.
        top: the top model's description: taps, and l2 if it has one.

    Returns:
        See :func:`tl_dagster.evaluation.learning_curve.learning_curve`.
    """

    features = work.inputs["bottleneck_features"]
    views = read_views(features.path)
    labels = class_indices(views["label"], classes)
    width = open_features(features, work.store, np.zeros(1, np.int64), top["taps"])[:].shape[1]

    def part(split: str, most: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero((views["view"] == 0) & (views["split"] == split))
        rows = rows[sample(labels[rows], min(1, most / len(rows)), 0)]
        return read_features(features, work.store, rows, top["taps"]), labels[rows]

    train, test = part("train", most_curve_images(width, len(classes))), part("test", most_tested(width))
    return learning_curve(train, test, len(classes), top.get("l2", PLAIN_L2))


def label_suspects(
    work: StageContext, classes: list[str], top: Mapping[str, Any], iterations: int
) -> tuple[pd.DataFrame, int]:
    """Images whose label is contradicted; of large sets, among a part of each class.

    Args:
        work: holds dataset and bottleneck_features.
        classes: class names.
        top: the top model's description: taps, and l2 if it has one.
        iterations: L-BFGS iterations at most.

    Returns:
        id, split, label, predicted, p_label, p_predicted, the strongest contradiction first; and how many labels were
        looked at.
    """

    features = work.inputs["bottleneck_features"]
    views = read_views(features.path)
    plain = np.flatnonzero(views["view"] == 0)
    width = read_features(features, work.store, plain[:1], top["taps"]).shape[1]
    share = min(1, most_images(width, len(classes)) / len(plain))
    plain = plain[sample(class_indices(views["label"], classes)[plain], share, 0)]
    table = views.iloc[plain].reset_index(drop=True)
    folds = np.array(
        [int(unit_hash("label suspects", key) * FOLDS) for key in read_groups(work.inputs["dataset"].path, table["id"])]
    )
    values = read_features(features, work.store, plain, top["taps"])
    l2 = top.get("l2", PLAIN_L2)
    probabilities = held_out_probabilities(values, build_targets(table, classes)[:].numpy(), folds, l2, iterations)
    labels = class_indices(table["label"], classes)
    found = contradicted(probabilities, labels)
    predicted = probabilities.argmax(1)[found]
    suspects = table.iloc[found][["id", "split", "label"]].reset_index(drop=True)
    suspects["predicted"] = pd.Series(np.array(classes, dtype=object)[predicted], dtype="str")
    suspects["p_label"] = probabilities[found, labels[found]].round(4)
    suspects["p_predicted"] = probabilities[found, predicted].round(4)
    return suspects, int((~np.isnan(probabilities[:, 0])).sum())
