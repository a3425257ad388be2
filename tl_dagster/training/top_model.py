"""The top model: a classifier on the cached features of all training views, calibrated on validation.

It is fitted by :mod:`tl_dagster.training.logistic_regression` or :mod:`tl_dagster.training.mlp`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from tl_dagster.models.calibration import Score, calibrated_score, validate
from tl_dagster.models.heads import compute_logits, fold_temperature
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.feature_batches import (
    MEMORY_BYTES,
    LabelledFeatures,
    StandardizedFeatures,
    Targets,
    standardize,
)
from tl_dagster.training.logistic_regression import fit_l2_path
from tl_dagster.training.mlp import fit_mlp
from tl_dagster.training.settings import MlpTopModel, TopModel

__all__ = ["FittedTopModel", "balanced_class_weights", "fit_top_model"]


@dataclass(frozen=True)
class FittedTopModel:
    """A fitted and calibrated top model.

    Attributes:
        state: see :func:`~tl_dagster.models.heads.build_head`; the temperature is in it.
        temperature: divisor of its logits.
        log_losses: on validation, before and after calibration.
        metadata: of the fit: l2 and path, or epoch and history.
    """

    state: dict[str, torch.Tensor]
    temperature: float
    log_losses: tuple[float, float]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class _Validation:
    """Validation views, on which networks on standardized features are compared and calibrated."""

    features: StandardizedFeatures
    labels: np.ndarray
    images: np.ndarray
    classes: int

    def logits(self, network: torch.nn.Module) -> np.ndarray:
        return compute_logits(network.eval(), self.features, self.classes)

    def score(self, network: torch.nn.Module) -> Score:
        """Return the calibrated score: the model is selected as it will be used."""
        return calibrated_score(self.logits(network), self.labels, self.images)


def fit_top_model(
    train: LabelledFeatures,
    validation: LabelledFeatures,
    classes: int,
    settings: TopModel,
    progress: Progress,
    memory: int = MEMORY_BYTES,
) -> FittedTopModel:
    """Standardize, fit, calibrate on validation, and choose there by the log-loss.

    Args:
        train: all training views; their images are not used.
        validation: views whose predictions are averaged over each image; their confidence is not used.
        classes: number of classes.
        settings: the declared settings.
        progress: counts strengths or steps.
        memory: bytes that the training views may take, and as much the validation views; above that they are read
            again in each pass. The result is the same.

    Raises:
        InputError: the loss is not a number.
    """
    features = standardize(train.features, memory)
    unseen = StandardizedFeatures(validation.features, features.mean, features.std, memory)
    held_out = _Validation(unseen, validation.labels, validation.images, classes)
    targets = Targets(train.labels, train.confidence, classes)
    class_weights = balanced_class_weights(train.labels, classes) if settings.balanced else None
    if isinstance(settings, MlpTopModel):
        network, metadata = fit_mlp(features, targets, class_weights, held_out.score, settings, progress)
    else:
        network, metadata = fit_l2_path(features, targets, class_weights, held_out.score, settings, progress)
    logits = held_out.logits(network)
    before = validate(softmax(logits, axis=1), validation.labels, validation.images)[0]
    after, _, divisor = calibrated_score(logits, validation.labels, validation.images)
    progress.log(f"temperature {divisor:.3f}: validation log-loss {before:.4f}, then {after:.4f}")
    fold_temperature(network.get_submodule("output"), divisor)
    state = {"mean": features.mean, "std": features.std, **network.state_dict()}
    return FittedTopModel(state, divisor, (before, after), metadata)


def balanced_class_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Return weights that give each class that occurs the same share of the loss: float32 (classes,), mean 1 over rows.

    Args:
        labels: (N,) class number of each row.
        classes: number of classes; one without rows gets 1.
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = np.ones(classes, np.float32)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return torch.from_numpy(weights)
