"""All models of a pipeline on the test split: their predictions, and the results of evaluating them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tl_dagster.data.manifest import read_groups
from tl_dagster.evaluation.comparison import assess, best_model
from tl_dagster.evaluation.metrics import confusion, measure
from tl_dagster.evaluation.results import Comparison, EvaluationResults, LearningCurvePoint, ModelResults
from tl_dagster.models.predictions import read_predictions
from tl_dagster.runtime.errors import InputError

__all__ = ["ModelPredictions", "TrainedModel", "evaluate", "read_model_predictions", "read_scratch_models"]


@dataclass(frozen=True)
class TrainedModel:
    """A trained model.

    Attributes:
        path: folder with its predictions.
        training_seconds: None when unknown.
    """

    path: Path
    training_seconds: float | None


@dataclass(frozen=True)
class ModelPredictions:
    """The models' predictions of the test images.

    Attributes:
        rows: id, label, predicted … of the selected model.
        truth: (n,) int64 class numbers.
        probabilities: model → (n, classes), from the simplest to the selected one.
        groups: (n,) group of each image.
        classes: class names.
    """

    rows: pd.DataFrame
    truth: np.ndarray
    probabilities: Mapping[str, np.ndarray]
    groups: np.ndarray
    classes: list[str]


def read_scratch_models(artifact: Path) -> dict[str, TrainedModel]:
    """Return the networks of a scratch_baseline artifact by name: ``scratch_convnet``, ``scratch_backbone``."""
    networks = json.loads((artifact / "scratch.json").read_text())
    return {f"scratch_{name}": TrainedModel(artifact / name, each["seconds"]) for name, each in networks.items()}


def read_model_predictions(models: Mapping[str, TrainedModel], dataset: Path) -> ModelPredictions:
    """Read the models' predictions of the test split.

    Args:
        models: name → model, from the simplest to the selected one; at least one.
        dataset: the artifact with the groups of the images.

    Raises:
        InputError: the test split has no image.
    """
    probabilities = {}
    for name, model in models.items():
        rows, truth, probabilities[name], classes = read_predictions(model.path, "test")
    if not len(rows):
        raise InputError("the test split has no image: declare a larger splits.test, or add images")
    return ModelPredictions(rows, truth, probabilities, read_groups(dataset, rows["id"]), classes)


def evaluate(
    models: Mapping[str, TrainedModel], predictions: ModelPredictions, learning_curve: Sequence[Mapping[str, Any]]
) -> EvaluationResults:
    """Measure and compare the models.

    Args:
        models: name → model, from the simplest to the selected one.
        predictions: of the same models.
        learning_curve: see :func:`tl_dagster.evaluation.learning_curve.learning_curve`.
    """
    measured, compared = assess(predictions.truth, predictions.probabilities, predictions.groups)
    results = {
        name: ModelResults.from_json(
            {
                **measured[name],
                "validation_log_loss": _validation_log_loss(model.path),
                "training_seconds": model.training_seconds,
                "confusion": _confusion_cells(predictions.truth, predictions.probabilities[name]),
            }
        )
        for name, model in models.items()
    }
    return EvaluationResults(
        classes=predictions.classes,
        images=len(predictions.truth),
        groups=len(np.unique(predictions.groups)),
        best=best_model({name: model.validation_log_loss for name, model in results.items()}),
        models=results,
        comparisons=[Comparison.from_json(pair) for pair in compared],
        learning_curve=[LearningCurvePoint.from_json(point) for point in learning_curve],
    )


def _validation_log_loss(model: Path) -> float | None:
    _, truth, probabilities, _ = read_predictions(model, "validation")
    return float(measure(truth, probabilities)["log_loss"]) if len(truth) else None


def _confusion_cells(truth: np.ndarray, probabilities: np.ndarray) -> list[tuple[int, int, int]]:
    matrix = confusion(truth, probabilities)
    return [(int(row), int(column), int(matrix[row, column])) for row, column in np.argwhere(matrix)]
