"""Measurement of size and similarity on the cached features of plain training images, and the decision."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tl_dagster.backbones.own_classifier import load_with_classifier, own_confidence
from tl_dagster.backbones.parameters import count_tuned_parameters
from tl_dagster.data.labels import class_indices, class_names
from tl_dagster.features.backbone_features import BackboneFeatures
from tl_dagster.features.feature_table import FeatureTable
from tl_dagster.features.side_outputs import plain_training
from tl_dagster.runtime.progress import Progress
from tl_dagster.strategy.decide import Size, decide
from tl_dagster.strategy.decision import Decision
from tl_dagster.strategy.probes import fit_probes, stratified

__all__ = ["measure_strategy"]


def measure_strategy(
    strategy: str,
    features: BackboneFeatures,
    table: FeatureTable,
    groups: Callable[[pd.Series], np.ndarray],
    progress: Progress,
) -> tuple[Decision, int]:
    """Probe the features of the training images and decide.

    Args:
        strategy: as declared: "auto" or a cell of the table.
        features: the backbone.
        table: views and features.
        groups: image ids → the group of each.
        progress: informed of each step.

    Returns:
        The decision, and how many training images there are.

    Raises:
        InputError: features-low with one tap only.
    """
    info = features.backbone.info
    rows = np.flatnonzero(plain_training(table.views))
    views = table.views.iloc[rows]
    labels = class_indices(views["label"], class_names(table.views))
    columns = {tap: column.read(views["key"].tolist()) for tap, column in table.columns.items()}
    highest = info.highest(list(columns))
    probed = stratified(labels, sum(column.width for column in columns.values()))
    values = {tap: column[probed] for tap, column in columns.items()}
    penultimate = [tap for tap in values if info.module(tap) == info.classifier]
    if penultimate:
        model, layer = load_with_classifier(info, features.backbone.weights)
    else:  # the file may lack what runs after the taps
        model, layer = features.load(), None
    parameters = count_tuned_parameters(model, info, highest)
    size = Size(len(labels), len(np.unique(labels)), parameters)
    progress.log(f"probing {len(probed):,} training images at {', '.join(columns)}")
    probes = fit_probes(values, labels[probed], groups(views["id"].iloc[probed]), highest)
    confidence, confidence_note = own_confidence(layer, values[penultimate[0]] if penultimate else None)
    evidence = {
        "images_probed": len(probed),
        "own_confidence": confidence,
        "own_confidence_note": confidence_note,
        "note": _note(probes, len(columns)),
    }
    return decide(strategy, list(columns), highest, size, probes, evidence), len(labels)


def _note(probes: Sequence[Any], taps: int) -> str:
    if not probes:
        return (
            "no class has two training images of different groups: nothing can be cross-validated, so the features of "
            "the highest tap"
        )
    return "" if taps > 1 else "one tap: how similar the task is cannot be measured; add a lower tap to backbone.taps"
