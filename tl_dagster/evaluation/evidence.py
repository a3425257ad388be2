"""Evidence about the data from cached features: accuracy by the number of training images, and label suspects."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tl_dagster.data.labels import class_indices
from tl_dagster.data.sampling import sample
from tl_dagster.data.splits import unit_hash
from tl_dagster.evaluation.label_suspects import FOLDS, contradicted, most_images
from tl_dagster.evaluation.learning_curve import learning_curve, most_tested
from tl_dagster.evaluation.learning_curve import most_images as most_curve_images
from tl_dagster.features.feature_table import FeatureTable
from tl_dagster.training.cross_validation import held_out_probabilities
from tl_dagster.training.feature_batches import build_targets

__all__ = ["accuracy_by_images", "find_label_suspects"]

PLAIN_L2 = 0.01  # where the top model has none of its own


def accuracy_by_images(
    table: FeatureTable, taps: Sequence[str], classes: list[str], l2: float | None
) -> list[dict[str, Any]]:
    """Return the learning curve on the plain images' features; of large sets, on a part.

    Args:
        table: views and features.
        taps: declared names of those that the top model reads.
        classes: class names.
        l2: the top model's strength of L2, if it has one.

    Returns:
        See :func:`tl_dagster.evaluation.learning_curve.learning_curve`.
    """
    views = table.views
    labels = class_indices(views["label"], classes)
    width = _width(table, taps)

    def part(split: str, most: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero((views["view"] == 0) & (views["split"] == split))
        rows = rows[sample(labels[rows], min(1, most / len(rows)), 0)]
        return table.features(rows, taps)[:], labels[rows]

    train, test = part("train", most_curve_images(width, len(classes))), part("test", most_tested(width))
    return learning_curve(train, test, len(classes), l2 or PLAIN_L2)


def find_label_suspects(
    table: FeatureTable,
    groups: Callable[[pd.Series], np.ndarray],
    taps: Sequence[str],
    classes: list[str],
    l2: float | None,
    iterations: int,
) -> tuple[pd.DataFrame, int]:
    """Return the images whose label is contradicted; of large sets, among a part of each class.

    Args:
        table: views and features.
        groups: image ids → the group of each.
        taps: declared names of those that the top model reads.
        classes: class names.
        l2: the top model's strength of L2, if it has one.
        iterations: L-BFGS iterations at most.

    Returns:
        id, split, label, predicted, p_label, p_predicted, the strongest contradiction first; and how many labels were
        looked at.
    """
    plain = np.flatnonzero(table.views["view"] == 0)
    share = min(1, most_images(_width(table, taps), len(classes)) / len(plain))
    plain = plain[sample(class_indices(table.views["label"], classes)[plain], share, 0)]
    views = table.views.iloc[plain].reset_index(drop=True)
    folds = np.array([int(unit_hash("label suspects", key) * FOLDS) for key in groups(views["id"])])
    targets = build_targets(views, classes)[:].numpy()
    values = table.features(plain, taps)[:]
    probabilities = held_out_probabilities(values, targets, folds, [l2 or PLAIN_L2], iterations)[0]
    labels = class_indices(views["label"], classes)
    suspicious = contradicted(probabilities, labels)
    predicted = probabilities.argmax(1)[suspicious]
    suspects = views.iloc[suspicious][["id", "split", "label"]].reset_index(drop=True)
    suspects["predicted"] = pd.Series(np.array(classes, dtype=object)[predicted], dtype="str")
    suspects["p_label"] = probabilities[suspicious, labels[suspicious]].round(4)
    suspects["p_predicted"] = probabilities[suspicious, predicted].round(4)
    return suspects, int((~np.isnan(probabilities[:, 0])).sum())


def _width(table: FeatureTable, taps: Sequence[str]) -> int:
    return int(table.features(np.zeros(1, np.int64), taps)[:].shape[1])
