"""The least that a selected model must do on the test split."""

import copy

import pytest

from tests.evaluation.test_results import RESULTS
from tl_dagster.declaration import Checks
from tl_dagster.evaluation.results import EvaluationResults
from tl_dagster.graph.model_checks import DESCRIPTIONS, check_model

GOOD = {
    "accuracy": 0.9,
    "intervals": {"accuracy": [0.8, 0.95]},
    "ece": 0.04,
    "per_class": [{"precision": 0.9, "recall": 0.9, "f1": 0.9, "support": 50}] * 2,
}


def checked(pair: dict | None = None, **model) -> dict[str, bool]:
    results = copy.deepcopy(RESULTS)
    results["images"] = 100
    results["models"]["fine_tuned_model"] |= GOOD | model
    results["comparisons"][0] |= pair or {}
    found = check_model(EvaluationResults.from_json(results), Checks())
    return {name: check.passed for name, check in found.items()}


def test_a_good_model_passes_every_check():
    assert checked() == dict.fromkeys(DESCRIPTIONS, True)


@pytest.mark.parametrize(
    ("check", "values"),
    [
        ("better_than_majority", {"intervals": {"accuracy": [0.5, 0.95]}}),
        ("no_worse_than_top_model", {"pair": {"difference": -0.1, "low": -0.2, "high": -0.01}}),
        ("calibrated", {"ece": 0.2}),
        ("every_class_predicted", {"per_class": [GOOD["per_class"][0], GOOD["per_class"][0] | {"recall": 0.0}]}),
    ],
)
def test_each_check_fails_alone(check: str, values: dict):
    assert [name for name, passed in checked(**values).items() if not passed] == [check]


def test_a_calibration_error_that_is_chance_is_none():
    assert checked(ece=0.15, ece_by_chance=0.16)["calibrated"]
