"""Held-out predictions, as the model stages write them and the evaluation reads them."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tl_dagster.training.feature_batches import Targets

__all__ = [
    "build_targets",
    "class_indices",
    "class_names",
    "copy_predictions",
    "label_confidence",
    "read_predictions",
    "write_predictions",
]

PREDICTIONS = "predictions.parquet"
CLASSES = "classes.json"


def class_names(table: "pd.DataFrame") -> list[str]:
    """The class names in the order of a model's outputs (sorted)."""
    return sorted(str(label) for label in table["label"].unique())


def class_indices(labels: "pd.Series[str]", classes: list[str]) -> "np.ndarray":
    """The class number of each label: (n,) int64."""
    import numpy as np

    numbers: np.ndarray = labels.map({label: number for number, label in enumerate(classes)}).to_numpy(np.int64)
    return numbers


def label_confidence(table: "pd.DataFrame") -> "np.ndarray":
    """How sure each view's label is: float32 (views,); 1 where the source says nothing."""
    import numpy as np

    sure: np.ndarray = table["confidence"].to_numpy(np.float32, na_value=1.0)
    return sure


def build_targets(table: "pd.DataFrame", classes: list[str]) -> "Targets":
    """What each view is trained towards: (views, classes), made when it is indexed.

    One-hot, or where the source says how sure a label is, that on the label and the rest spread over the others.
    """
    from tl_dagster.training.feature_batches import Targets

    return Targets(class_indices(table["label"], classes), label_confidence(table), len(classes))


def write_predictions(
    folder: Path, table: "pd.DataFrame", classes: list[str], logits: "np.ndarray"
) -> dict[str, float]:
    """Average the views of each held-out image and write its class probabilities.

    Args:
        folder: the model's artifact.
        table: the validation and test rows of augmented_splits.
        classes: names of the outputs.
        logits: (len(table), classes).

    Returns:
        validation_accuracy and validation_log_loss, for the model's own metadata.
    """
    import numpy as np
    import pandas as pd

    from tl_dagster.models.calibration import averaged_softmax

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
    import pandas as pd

    for file in (PREDICTIONS, CLASSES):
        shutil.copyfile(model / file, folder / file)
    return _validation(pd.read_parquet(folder / PREDICTIONS), json.loads((folder / CLASSES).read_text()))


def _validation(predictions: "pd.DataFrame", classes: list[str]) -> dict[str, float]:
    import numpy as np

    from tl_dagster.models.calibration import validate

    rows = predictions[predictions["split"] == "validation"]
    truth, probabilities = class_indices(rows["label"], classes), rows[_columns(classes)].to_numpy()
    loss, accuracy = validate(probabilities, truth, np.arange(len(rows)))
    return {"validation_accuracy": accuracy, "validation_log_loss": loss}


def read_predictions(path: Path, split: str) -> "tuple[pd.DataFrame, np.ndarray, np.ndarray, list[str]]":
    """One split's predictions of a model's artifact.

    Returns:
        The rows (id, label, predicted …), the true class numbers (n,), the probabilities (n, classes), the class names.
    """
    import pandas as pd

    classes: list[str] = json.loads((path / CLASSES).read_text())
    rows = pd.read_parquet(path / PREDICTIONS)
    rows = rows[rows["split"] == split].reset_index(drop=True)
    truth = class_indices(rows["label"], classes)
    return rows, truth, rows[_columns(classes)].to_numpy(), classes
