"""Held-out predictions of many classes come back as they were written, and are scored."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from tl_dagster.data.labels import class_indices
from tl_dagster.models.predictions import copy_predictions, read_predictions, write_predictions
from tl_dagster.training.feature_batches import build_targets


def test_a_thousand_classes(tmp_path):
    classes = [f"class {number:04d}" for number in range(1000)]
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "id": np.repeat(["d", "c", "b", "a"], 2),
            "label": np.repeat([classes[3], classes[5], classes[3], classes[999]], 2),
            "split": ["validation"] * 4 + ["test"] * 4,
        },
        index=np.arange(100, 108),  # held-out rows of a longer table
    )
    logits = rng.normal(size=(8, 1000)).astype(np.float32)
    logits[0, 3] = logits[1, 3] = 20
    said = write_predictions(tmp_path, table, classes, logits)
    rows, truth, probabilities, names = read_predictions(tmp_path, "validation")
    assert names == classes and rows["id"].tolist() == ["c", "d"] and truth.tolist() == [5, 3]
    expected = softmax(logits[:2].astype(float), 1).mean(0)
    np.testing.assert_allclose(probabilities[1], expected)
    assert rows["predicted"][1] == classes[3]
    assert said["validation_accuracy"] == 0.5
    assert said["validation_log_loss"] == pytest.approx(-np.log(probabilities[[0, 1], [5, 3]]).mean())
    (tmp_path / "copy").mkdir()
    assert copy_predictions(tmp_path, tmp_path / "copy") == said


def test_targets():
    table = pd.DataFrame({"label": ["b", "a"], "confidence": pd.array([0.8, None], dtype="Float32")})
    assert class_indices(table["label"], ["a", "b", "c"]).tolist() == [1, 0]
    np.testing.assert_allclose(build_targets(table, ["a", "b", "c"])[:], [[0.1, 0.8, 0.1], [1, 0, 0]], rtol=1e-6)
