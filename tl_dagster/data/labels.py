"""Class names, class numbers and label confidence of tables of views."""

import numpy as np
import pandas as pd

__all__ = ["class_indices", "class_names", "label_confidence"]


def class_names(table: pd.DataFrame) -> list[str]:
    """Return the class names in the order of a model's outputs (sorted)."""
    return sorted(str(label) for label in table["label"].unique())


def class_indices(labels: pd.Series, classes: list[str]) -> np.ndarray:
    """Return the class number of each label: (n,) int64.

    Args:
        labels: (n,) class names.
        classes: the class names in the order of a model's outputs.
    """
    numbers: np.ndarray = labels.map({label: number for number, label in enumerate(classes)}).to_numpy(np.int64)
    return numbers


def label_confidence(table: pd.DataFrame) -> np.ndarray:
    """Return the probability that each view's label is right: float32 (views,); 1 where the source says nothing."""
    confidence: np.ndarray = table["confidence"].to_numpy(np.float32, na_value=1.0)
    return confidence
