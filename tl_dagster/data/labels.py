"""Class names, class numbers and label confidence of tables of views."""

import numpy as np
import pandas as pd

__all__ = ["class_indices", "class_names", "label_confidence"]


def class_names(table: pd.DataFrame) -> list[str]:
    """The class names in the order of a model's outputs (sorted)."""
    return sorted(str(label) for label in table["label"].unique())


def class_indices(labels: pd.Series, classes: list[str]) -> np.ndarray:
    """The class number of each label: (n,) int64."""

    numbers: np.ndarray = labels.map({label: number for number, label in enumerate(classes)}).to_numpy(np.int64)
    return numbers


def label_confidence(table: pd.DataFrame) -> np.ndarray:
    """How sure each view's label is: float32 (views,); 1 where the source says nothing."""

    sure: np.ndarray = table["confidence"].to_numpy(np.float32, na_value=1.0)
    return sure
