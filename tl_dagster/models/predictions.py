"""Held-out predictions, as the model stages write them and the evaluation reads them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from tl_dagster.data.labels import class_indices
from tl_dagster.models.calibration import averaged_softmax, validate

__all__ = ["copy_predictions", "read_predictions", "write_predictions"]

PREDICTIONS = "predictions.parquet"
CLASSES = "classes.json"


def write_predictions(folder: Path, table: pd.DataFrame, classes: list[str], logits: np.ndarray) -> dict[str, float]:
    """Average the views of each held-out image and write its class probabilities.

    Args:
        folder: the model's artifact.
        table: the validation and test rows of augmented_splits.
        classes: names of the outputs.
        logits: (len(table), classes).

    Returns:
        validation_accuracy and validation_log_loss, for the model's own metadata.
    """
    held_out = table.reset_index(drop=True)
    first, images = np.unique(held_out["id"].to_numpy(), return_index=True, return_inverse=True)[1:]
    averaged = averaged_softmax(logits, images)
    rows = held_out.loc[first, ["id", "label", "split"]].reset_index(drop=True)
    names = pd.Series(classes)[averaged.argmax(1)].to_numpy()
    probabilities = pd.DataFrame(averaged, columns=_columns(classes))
    predictions = pd.concat([rows, probabilities, pd.Series(names, name="predicted")], axis=1)
    predictions.to_parquet(folder / PREDICTIONS)
    (folder / CLASSES).write_text(json.dumps(classes))
    return _validation(predictions, classes)


def _columns(classes: list[str]) -> list[str]:
    return [f"p{number}" for number in range(len(classes))]


def copy_predictions(model: Path, folder: Path) -> dict[str, float]:
    """Hand on another model's predictions; returns what :func:`write_predictions` does."""
    for file in (PREDICTIONS, CLASSES):
        shutil.copyfile(model / file, folder / file)
    return _validation(pd.read_parquet(folder / PREDICTIONS), json.loads((folder / CLASSES).read_text()))


def _validation(predictions: pd.DataFrame, classes: list[str]) -> dict[str, float]:

    rows = predictions[predictions["split"] == "validation"]
    truth, probabilities = class_indices(rows["label"], classes), rows[_columns(classes)].to_numpy()
    loss, accuracy = validate(probabilities, truth, np.arange(len(rows)))
    return {"validation_accuracy": accuracy, "validation_log_loss": loss}


def read_predictions(path: Path, split: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, list[str]]:
    """One split's predictions of a model's artifact.

    Returns:
        The rows (id, label, predicted …), the true class numbers (n,), the probabilities (n, classes), the class names.
    """
    classes: list[str] = json.loads((path / CLASSES).read_text())
    rows = pd.read_parquet(path / PREDICTIONS)
    rows = rows[rows["split"] == split].reset_index(drop=True)
    truth = class_indices(rows["label"], classes)
    return rows, truth, rows[_columns(classes)].to_numpy(), classes
