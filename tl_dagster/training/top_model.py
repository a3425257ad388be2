"""The top model: a classifier on the cached features of all training views, calibrated on validation.

How it is fitted is in :mod:`tl_dagster.training.logistic_regression` and :mod:`tl_dagster.training.mlp`; its parts that are useful
elsewhere can be had from here.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tl_dagster.features.blocks import Features
from tl_dagster.models.calibration import averaged_probabilities, temperature, validate
from tl_dagster.models.heads import build_head, compute_logits
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.feature_batches import MEMORY_BYTES, LabelledFeatures, StandardizedFeatures, Targets, moments
from tl_dagster.training.logistic_regression import fit_l2_path, fit_logistic_regression
from tl_dagster.training.mlp import fit_mlp
from tl_dagster.training.settings import MlpTopModel, TopModel

__all__ = [
    "Features",
    "FittedTopModel",
    "LabelledFeatures",
    "averaged_probabilities",
    "balanced_class_weights",
    "build_head",
    "compute_logits",
    "fit_logistic_regression",
    "fit_top_model",
    "validate",
]


@dataclass(frozen=True)
class FittedTopModel:
    """A fitted and calibrated top model.

    Attributes:
        state: see :func:`~tl_dagster.models.heads.build_head`; the temperature is in it.
        temperature: what its logits were divided by.
        log_losses: on validation, before and after that.
        told: how it was chosen: l2 and path, or epoch and history.
    """

    state: dict[str, torch.Tensor]
    temperature: float
    log_losses: tuple[float, float]
    told: dict[str, Any]


def fit_top_model(
    train: LabelledFeatures,
    validation: LabelledFeatures,
    classes: int,
    settings: TopModel,
    progress: Progress,
    memory: int = MEMORY_BYTES,
) -> FittedTopModel:
    """Standardise, fit, calibrate on validation, and choose there by the log-loss.

    Args:
        train: all training views; their images are not used.
        validation: views whose predictions are averaged over each image; their confidence is not used.
        classes: how many.
        settings: the declared settings.
        progress: told how far it is.
        memory: bytes that the training views may take, and as much the validation views; above that they are read
            again in each pass. The result is the same.

    Raises:
        InputError: the loss is no number.
    """

    mean, std = moments(train.features)
    features = StandardizedFeatures(train.features, mean, std, memory)
    held_out = StandardizedFeatures(validation.features, mean, std, memory)
    targets = Targets(train.labels, train.confidence, classes)
    class_weights = balanced_class_weights(train.labels, classes) if settings.balanced else None

    def probabilities(logits: np.ndarray) -> np.ndarray:
        found: np.ndarray = torch.from_numpy(logits).softmax(1).numpy()
        return found

    def score(network: torch.nn.Module) -> tuple[float, float]:
        # As it would be handed on, calibrated: else the one that happens to be as sure as it is right would be chosen.
        logits = compute_logits(network.eval(), held_out, classes)
        logits /= temperature(logits, validation.labels, validation.images)
        return validate(probabilities(logits), validation.labels, validation.images)

    if isinstance(settings, MlpTopModel):
        network, told = fit_mlp(features, targets, class_weights, score, settings, progress)
    else:
        network, told = fit_l2_path(features, targets, class_weights, score, settings, progress)
    logits = compute_logits(network, held_out, classes)
    divisor = temperature(logits, validation.labels, validation.images)
    before, after = (
        validate(probabilities(each), validation.labels, validation.images)[0] for each in (logits, logits / divisor)
    )
    progress.log(f"temperature {divisor:.3f}: validation log-loss {before:.4f}, then {after:.4f}")
    state = {"mean": mean, "std": std, **network.state_dict()}
    state |= {name: state[name] / divisor for name in ("output.weight", "output.bias")}
    return FittedTopModel(state, divisor, (before, after), told)


def balanced_class_weights(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Weights that give each class that occurs the same share of the loss: float32 (classes,), of mean 1 over the rows.

    Args:
        labels: (N,) class number of each row.
        classes: how many; one without rows gets 1.
    """

    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = np.ones(classes, np.float32)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return torch.from_numpy(weights)
