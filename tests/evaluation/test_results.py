"""The results keep their JSON form."""

import json

from tl_dagster.evaluation.results import EvaluationResults

MODEL = {
    "accuracy": 0.5,
    "top5_error": None,
    "balanced_accuracy": 0.5,
    "macro_f1": 0.4,
    "log_loss": 0.7,
    "ece": 0.1,
    "ece_by_chance": 0.05,
    "auc": 0.6,
    "per_class": [{"precision": 0.5, "recall": 1.0, "f1": 0.67, "support": 2}] * 2,
    "intervals": {"accuracy": [0.4, 0.6]},
    "validation_log_loss": 0.6,
    "training_seconds": None,
    "confusion": [[0, 0, 2], [1, 0, 2]],
}
PAIR = {"difference": 0.0, "low": -0.1, "high": 0.1, "only_first": 1, "only_second": 1, "p_value": 1.0}
RESULTS = {
    "classes": ["a", "b"],
    "images": 4,
    "groups": 3,
    "best": "top_model",
    "models": {"top_model": MODEL, "fine_tuned_model": MODEL | {"accuracy": 0.75}},
    "comparisons": [{"first": "fine_tuned_model", "second": "top_model", **PAIR}],
    "learning_curve": [
        {"fraction": 1.0, "images": 9, "accuracy": 0.5, "lowest": 0.5, "highest": 0.5, "repeats": 1},
    ],
}


def test_json_round_trip():
    text = json.dumps(RESULTS)
    assert json.dumps(EvaluationResults.from_json(json.loads(text)).to_json()) == text


def test_values_by_name():
    results = EvaluationResults.from_json(RESULTS | {"a key of a later version": 1})
    assert results.selected.accuracy == results.selected.metric("accuracy") == 0.75
    assert results.models["top_model"].intervals["accuracy"] == (0.4, 0.6)
    assert results.selected.per_class[1].support == 2
    assert results.comparisons[0].first == "fine_tuned_model" and results.learning_curve[0].images == 9
