"""Held-out predictions, as the model stages write them and the evaluation reads them."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["classes_of", "copy_predictions", "numbers_of", "read_predictions", "targets_of", "write_predictions"]

PREDICTIONS = "predictions.parquet"
CLASSES = "classes.json"


def classes_of(table: "pd.DataFrame") -> list[str]:
    """The class names in the order of a model's outputs (sorted)."""
    return sorted(str(label) for label in table["label"].unique())


def numbers_of(labels: "pd.Series[str]", classes: list[str]) -> "np.ndarray":
    """The class number of each label: (n,) int64."""
    import numpy as np

    numbers: np.ndarray = labels.map({label: number for number, label in enumerate(classes)}).to_numpy(np.int64)
    return numbers


def targets_of(table: "pd.DataFrame", classes: list[str]) -> "np.ndarray":
    """What each view is trained towards: float32 (views, classes).

    One-hot, or where the source says how sure a label is, that on the label and the rest spread over the others.
    """
    import numpy as np

    sure = table["confidence"].to_numpy(np.float32, na_value=1.0)[:, None]
    own = np.eye(len(classes), dtype=np.float32)[numbers_of(table["label"], classes)]
    targets: np.ndarray = own * sure + (1 - own) * (1 - sure) / (len(classes) - 1)
    return targets


def write_predictions(
    folder: Path, table: "pd.DataFrame", classes: list[str], logits: "np.ndarray"
) -> dict[str, float]:
    """Average the views of each validation and test image and write its class probabilities.

    Args:
        folder: the model's artifact.
        table: rows of augmented_splits, one for each row of ``logits``.
        classes: names of the outputs.
        logits: (views, classes).

    Returns:
        validation_accuracy, for the model's own metadata.
    """
    import numpy as np
    import pandas as pd
    from scipy.special import softmax

    from tl_dagster.training.top_model import averaged_probabilities

    rows = table["split"].to_numpy() != "train"
    held_out = table[rows].reset_index(drop=True)
    first, images = np.unique(held_out["id"].to_numpy(), return_index=True, return_inverse=True)[1:]
    averaged = averaged_probabilities(softmax(logits[rows].astype(np.float64), axis=1), images)
    predictions = held_out.loc[first, ["id", "label", "split"]].reset_index(drop=True)
    predictions[[f"p{number}" for number in range(len(classes))]] = averaged
    predictions["predicted"] = pd.Series(classes)[averaged.argmax(1)].to_numpy()
    predictions.to_parquet(folder / PREDICTIONS)
    (folder / CLASSES).write_text(json.dumps(classes))
    return _validation(predictions)


def copy_predictions(model: Path, folder: Path) -> dict[str, float]:
    """Hand on another model's predictions; returns what :func:`write_predictions` does."""
    import pandas as pd

    for file in (PREDICTIONS, CLASSES):
        shutil.copyfile(model / file, folder / file)
    return _validation(pd.read_parquet(folder / PREDICTIONS))


def _validation(predictions: "pd.DataFrame") -> dict[str, float]:
    validation = predictions[predictions["split"] == "validation"]
    return {"validation_accuracy": float((validation["label"] == validation["predicted"]).mean())}


def read_predictions(path: Path, split: str) -> "tuple[pd.DataFrame, np.ndarray, np.ndarray, list[str]]":
    """One split's predictions of a model's artifact.

    Returns:
        The rows (id, label, predicted …), the true class numbers (n,), the probabilities (n, classes), the class names.
    """
    import pandas as pd

    classes: list[str] = json.loads((path / CLASSES).read_text())
    rows = pd.read_parquet(path / PREDICTIONS)
    rows = rows[rows["split"] == split].reset_index(drop=True)
    truth = numbers_of(rows["label"], classes)
    return rows, truth, rows[[f"p{number}" for number in range(len(classes))]].to_numpy(), classes
