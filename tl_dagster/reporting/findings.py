"""The results of an evaluation as sentences and tables."""

from collections.abc import Sequence
from dataclasses import replace

from tl_dagster.evaluation.results import Comparison, EvaluationResults
from tl_dagster.models.spec import ModelSpec
from tl_dagster.reporting.report import Table
from tl_dagster.store.artifacts import TableRows
from tl_dagster.strategy.decision import Decision

__all__ = [
    "class_rows",
    "class_table",
    "comparison_sentences",
    "headline",
    "joint_title",
    "model_rows",
    "model_table",
    "model_title",
    "reasons",
]

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


def joint_title(names: Sequence[str]) -> str:
    """Return the title of models that are the same one, such as "top model = fine-tuned model"."""
    return " = ".join(map(model_title, names))


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
    ]


def reasons(results: EvaluationResults, tuned: ModelSpec, decision: Decision) -> list[str]:
    """Return sentences that say why the other models were not taken.

    Args:
        results: of the evaluation.
        tuned: the fine-tuned model, with the history of its training.
        decision: the transfer strategy's.
    """
    losses = {name: model.validation_log_loss for name, model in results.models.items()}
    same = {"top_model", "fine_tuned_model"} if tuned.training.epoch == 0 else set()
    others = [
        f"the {model_title(name)}, {loss:.4f}"
        for name, loss in losses.items()
        if loss is not None and name != results.best and not {name, results.best} <= same
    ]
    not_taken = [f"Not taken, by the log-loss on the validation images: {'; '.join(others)}."] if others else []
    return [*([_not_tuned(tuned, decision)] if same else []), *not_taken]


def _not_tuned(tuned: ModelSpec, decision: Decision) -> str:
    """Return why the fine-tuned model is the top model itself."""
    if tuned.depth == "none":
        if decision.depth == "none":
            return f"Nothing was fine-tuned: the transfer strategy is {decision.cell}. The top model is selected."
        return "Nothing was fine-tuned: fine_tuning.depth is none, or the taps leave nothing to tune."
    tried = [row for row in tuned.training.history if row["epoch"] > 0 and "validation_log_loss" in row]
    if not tried:
        return "Fine-tuning found nothing better: the top model is selected."
    best, top = min(tried, key=lambda row: row["validation_log_loss"]), tuned.training.history[0]
    return (
        f"No epoch of fine-tuning lowered the log-loss on the validation images: of {len(tried)} the best, epoch "
        f"{best['epoch']:g}, has {best['validation_log_loss']:.4f}, and the top model "
        f"{top['validation_log_loss']:.4f}. The top model is selected."
    )


def model_table(results: EvaluationResults) -> Table:
    """Return a table with a row for each model and a column for each metric that at least one model has."""
    models = results.models
    metrics = {
        key: title for key, title in COLUMNS.items() if any(model.metric(key) is not None for model in models.values())
    }
    head = ("model", "test accuracy", "95 % interval", *metrics.values(), "training, s")
    groups = _group_equal(results)
    rows = [_model_row(names, results, list(metrics)) for names in groups]
    return Table(rows, head, best=next(row for row, names in enumerate(groups) if results.best in names))


def _group_equal(results: EvaluationResults) -> list[list[str]]:
    """Return the names of the models; those of which the second is the first one, unchanged, stand together."""
    first, second = TITLES
    bare = [replace(results.models[name], training_seconds=None) for name in TITLES]
    if bare[0] != bare[1]:
        return [[name] for name in results.models]
    return [[first, second] if name == first else [name] for name in results.models if name != second]


def _model_row(names: Sequence[str], results: EvaluationResults, metrics: Sequence[str]) -> list[str]:
    model = results.models[names[0]]
    times = [seconds for name in names if (seconds := results.models[name].training_seconds) is not None]
    low, high = model.intervals["accuracy"]
    values = [model.metric(key) for key in metrics]
    return [
        joint_title(names),
        _percent(model.accuracy),
        f"{100 * low:.1f} – {_percent(high)}",
        *("–" if value is None else f"{value:.3f}" for value in values),
        f"{sum(times):,.1f}" if times else "–",
    ]


def comparison_sentences(results: EvaluationResults) -> list[str]:
    """Return a sentence for each pair of models that differ."""
    titles = {name: joint_title(names) for names in _group_equal(results) for name in names}
    firsts = {names[0] for names in _group_equal(results)}
    return [
        _compare(pair, titles[pair.first], titles[pair.second])
        for pair in results.comparisons
        if {pair.first, pair.second} <= firsts
    ]


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


def _compare(pair: Comparison, first: str, second: str) -> str:
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


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")
