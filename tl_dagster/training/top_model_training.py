"""Training of a top model on the features of a pipeline's views."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tl_dagster.data.labels import class_indices, class_names, label_confidence
from tl_dagster.features.feature_table import FeatureTable
from tl_dagster.models.heads import build_head, compute_logits
from tl_dagster.models.spec import HeadSpec, TrainingRecord
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.feature_batches import LabelledFeatures
from tl_dagster.training.settings import TopModel
from tl_dagster.training.top_model import fit_top_model

__all__ = ["TrainedTopModel", "train_top_model"]


@dataclass(frozen=True)
class TrainedTopModel:
    """A trained top model with its predictions of the held-out views.

    Attributes:
        classes: names, in the order of the outputs.
        head: its kind and temperature.
        state: its tensors; see :func:`tl_dagster.models.heads.build_head`.
        record: how it was selected.
        rows: training views.
        held_out: (n,) row numbers of the validation and test views.
        logits: float32 (n, classes) of them.
        metrics: numbers to plot over time.
    """

    classes: list[str]
    head: HeadSpec
    state: dict[str, torch.Tensor]
    record: TrainingRecord
    rows: int
    held_out: np.ndarray
    logits: np.ndarray
    metrics: dict[str, float]


def train_top_model(
    table: FeatureTable, taps: Sequence[str], settings: TopModel, progress: Progress
) -> TrainedTopModel:
    """Fit, calibrate and select a top model.

    Args:
        table: views and features.
        taps: declared names of those that it reads.
        settings: the declared top model.
        progress: informed of each step.

    Raises:
        InputError: the loss is not a number.
    """
    classes = class_names(table.views)
    train, validation = (label_features(table, table.rows(split), taps, classes) for split in ("train", "validation"))
    begun = time.monotonic()
    fitted = fit_top_model(train, validation, len(classes), settings, progress)
    seconds = time.monotonic() - begun
    held_out = np.flatnonzero(table.views["split"] != "train")
    logits = compute_logits(build_head(fitted.state), table.features(held_out, taps), len(classes))
    before, after = fitted.log_losses
    calibration = {"validation_log_loss_uncalibrated": before, "validation_log_loss": after}
    selected: dict[str, float] = {name: fitted.metadata[name] for name in ("l2", "epoch") if name in fitted.metadata}
    return TrainedTopModel(
        classes=classes,
        head=HeadSpec(kind=settings.kind, temperature=fitted.temperature),
        state=fitted.state,
        record=TrainingRecord(**fitted.metadata, metrics=calibration),
        rows=len(train.labels),
        held_out=held_out,
        logits=logits,
        metrics={
            "validation_log_loss_uncalibrated": before,
            "temperature": fitted.temperature,
            "training_seconds": round(seconds, 3),
            **selected,
        },
    )


def label_features(table: FeatureTable, rows: np.ndarray, taps: Sequence[str], classes: list[str]) -> LabelledFeatures:
    """Return labelled views.

    Args:
        table: views and features.
        rows: (n,) row numbers.
        taps: declared names.
        classes: names, in the order of the class numbers.
    """
    part = table.views.iloc[rows]
    images = np.unique(part["id"].to_numpy(), return_inverse=True)[1]
    labels = class_indices(part["label"], classes)
    return LabelledFeatures(table.features(rows, taps), labels, images, label_confidence(part))
