"""The results of an evaluation as sentences and tables."""

from collections.abc import Sequence

from tl_dagster.evaluation.results import Comparison, EvaluationResults, ModelResults
from tl_dagster.reporting.report import Table
from tl_dagster.store.artifacts import TableRows

__all__ = ["class_rows", "class_table", "comparison_sentences", "headline", "model_rows", "model_table", "model_title"]

TITLES = {"top_model": "top model", "fine_tuned_model": "fine-tuned model"}
SCRATCH = "scratch_"
COLUMNS = {
    "balanced_accuracy": "balanced",
    "macro_f1": "macro-F1",
    "top5_error": "top-5 error",
    "log_loss": "log-loss",
    "ece": "calibration error",
    "auc": "AUC",
}
SCORES = ("precision", "recall", "f1")


def model_title(name: str) -> str:
    """Return the name of a model that readers see."""
    return TITLES.get(name) or f"{name.removeprefix(SCRATCH)} from scratch"


def headline(results: EvaluationResults) -> list[str]:
    """Return sentences that name the best model and its test accuracy."""
    model = results.models[results.best]
    low, high = model.intervals["accuracy"]
    loss = model.validation_log_loss
    if loss is None:
        best = f"The selected model, as no image was held out for validation, is the {model_title(results.best)}."
    else:
        best = f"Best is the {model_title(results.best)}, by its log-loss of {loss:.4f} on the validation images."
    return [
        f"{best} It is right on {_percent(model.accuracy)} of the {_count(results.images, 'test image')} of "
        f"{len(results.classes):,} classes; the 95 % interval is {_percent(low)} to {_percent(high)}.",
        *_no_gain(results),
    ]


def model_table(results: EvaluationResults) -> Table:
    """Return a table with a row for each model and a column for each metric that at least one model has."""
    models = results.models
    metrics = {
        key: title for key, title in COLUMNS.items() if any(model.metric(key) is not None for model in models.values())
    }
    head = ("model", "test accuracy", "95 % interval", *metrics.values(), "training, s")
    rows = [_model_row(name, model, list(metrics)) for name, model in models.items()]
    return Table(rows, head, best=list(models).index(results.best))


def _model_row(name: str, model: ModelResults, metrics: Sequence[str]) -> list[str]:
    low, high = model.intervals["accuracy"]
    values = [model.metric(key) for key in metrics]
    return [
        model_title(name),
        _percent(model.accuracy),
        f"{100 * low:.1f} – {_percent(high)}",
        *("–" if value is None else f"{value:.3f}" for value in values),
        "–" if model.training_seconds is None else f"{model.training_seconds:,.1f}",
    ]


def comparison_sentences(comparisons: Sequence[Comparison]) -> list[str]:
    """Return a sentence for each pair of models."""
    return [_compare(comparison) for comparison in comparisons]


def class_table(results: EvaluationResults, most: int) -> Table:
    """Return precision, recall and F1 of the selected model; with more than ``most`` classes, those of least F1."""
    rows = [
        [str(row["class"]), *(f"{row[score]:.3f}" for score in SCORES), f"{row['test images']:,}"]
        for row in class_rows(results, most)
    ]
    return Table(rows, ("class", "precision", "recall", "F1", "test images"))


def class_rows(results: EvaluationResults, most: int) -> TableRows:
    """Return :func:`class_table` as numbers: class, precision, recall, f1, test images."""
    rows = [
        {"class": name, **{score: round(getattr(scores, score), 4) for score in SCORES}, "test images": scores.support}
        for name, scores in zip(results.classes, results.selected.per_class, strict=True)
    ]
    if len(rows) <= most:
        return rows
    return sorted((row for row in rows if row["test images"]), key=lambda row: float(row["f1"]))[:most]


def model_rows(results: EvaluationResults) -> TableRows:
    """Return the models as rows of numbers, with the metrics that all models have."""
    models = results.models
    metrics = [
        key
        for key in ("accuracy", *COLUMNS, "training_seconds")
        if all(model.metric(key) is not None for model in models.values())
    ]
    return [
        {
            "model": name,
            **{key: round(float(getattr(model, key)), 4) for key in metrics},
            "accuracy_low": round(model.intervals["accuracy"][0], 4),
            "accuracy_high": round(model.intervals["accuracy"][1], 4),
        }
        for name, model in models.items()
    ]


def _compare(pair: Comparison) -> str:
    first, second = model_title(pair.first), model_title(pair.second)
    if not pair.only_first + pair.only_second:
        return f"The {first} and the {second} are right on the same test images."
    p_value = "p < 0.001" if pair.p_value < 0.001 else f"p = {pair.p_value:.3f}"
    # The test takes images for independent; the interval draws whole groups.
    significant = pair.p_value < 0.05 and (pair.low > 0 or pair.high < 0)
    chance = "more than chance explains" if significant else "no more than chance may explain"
    return (
        f"The {first} alone is right on {_count(pair.only_first, 'test image')}, the {second} alone on "
        f"{pair.only_second:,}: {_points(pair.difference)} points of accuracy (95 % interval "
        f"{_points(pair.low)} to {_points(pair.high)}; exact McNemar test, {p_value}), {chance}."
    )


def _no_gain(results: EvaluationResults) -> list[str]:
    top, tuned = (results.models[name].validation_log_loss for name in TITLES)
    if top is None or top != tuned:
        return []
    return ["Fine-tuning did not lower the validation loss, or was not needed: the top model itself is selected."]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")
