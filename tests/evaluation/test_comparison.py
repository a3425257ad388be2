"""Several models on one test split."""

import numpy as np

from tests.evaluation.test_bootstrap import predictions
from tl_dagster.evaluation.comparison import assess, best_model


def test_models_are_measured_and_paired():
    truth, good = predictions(200)
    models = {"scratch": np.full((200, 2), 0.5), "top": good, "tuned": good}
    measured, compared = assess(truth, models, np.arange(200) // 2)
    assert measured["top"] == measured["tuned"]
    low, high = measured["top"]["intervals"]["accuracy"]
    assert low < measured["top"]["accuracy"] < high
    assert [(each["first"], each["second"]) for each in compared] == [
        ("tuned", "top"),
        ("tuned", "scratch"),
        ("top", "scratch"),
    ]
    assert compared[0]["difference"] == 0 == compared[0]["low"] and compared[1]["p_value"] < 0.001
    assert compared[1]["low"] > 0


def test_the_best_has_the_lowest_loss_and_of_equals_is_the_simplest():
    assert best_model({"scratch": 0.9, "top": 0.3, "tuned": 0.3}) == "top"
    assert best_model({"top": 0.3, "tuned": 0.2}) == "tuned"
    assert best_model({"top": None, "tuned": None}) == "tuned"
