"""What an evaluation found, in words and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from tl_dagster.reporting.report import Table
from tl_dagster.store.artifacts import TableRows

__all__ = ["class_rows", "comparison", "headline", "model_rows", "model_title", "paired", "per_class"]

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
    """What readers call a model."""
    return TITLES.get(name) or f"{name.removeprefix(SCRATCH)} from scratch"


def headline(found: Mapping[str, Any]) -> list[str]:
    """Which model is best, and what it is worth.

    Args:
        found: the content of metrics.json: classes, images, best, and models (name → measures).
    """
    best = found["best"]
    model = found["models"][best]
    low, high = model["intervals"]["accuracy"]
    images, classes = found["images"], len(found["classes"])
    by = "The model handed on, as no image was held out for validation, is" if _loss(model) is None else "Best is"
    loss = "" if _loss(model) is None else f", by its log-loss of {_loss(model):.4f} on the validation images"
    return [
        f"{by} the {model_title(best)}{loss}. It is right on {_percent(model['accuracy'])} of the "
        f"{_count(images, 'test image')} of {classes:,} classes; the 95 % interval is {_percent(low)} to "
        f"{_percent(high)}.",
        *_no_gain(found),
    ]


def comparison(found: Mapping[str, Any]) -> Table:
    """Every model in a row, its measures in columns."""
    models: Mapping[str, Mapping[str, Any]] = found["models"]
    shown = {key: name for key, name in COLUMNS.items() if any(each[key] is not None for each in models.values())}
    rows = []
    for name, each in models.items():
        low, high = each["intervals"]["accuracy"]
        numbers = ["–" if each[key] is None else f"{each[key]:.3f}" for key in shown]
        seconds = each["training_seconds"]
        trained = "–" if seconds is None else f"{seconds:,.1f}"
        rows.append(
            [model_title(name), _percent(each["accuracy"]), f"{100 * low:.1f} – {_percent(high)}", *numbers, trained]
        )
    head = ("model", "test accuracy", "95 % interval", *shown.values(), "training, s")
    return Table(rows, head, best=list(models).index(found["best"]))


def paired(compared: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each pair of models in a sentence or two."""
    return [_pair(each) for each in compared]


def per_class(found: Mapping[str, Any], most: int) -> Table:
    """Precision, recall and F1 of the model handed on; of many classes those of least F1."""
    rows = [
        [row["class"], *(f"{row[score]:.3f}" for score in SCORES), f"{row['test images']:,}"]
        for row in class_rows(found, most)
    ]
    return Table(rows, ("class", "precision", "recall", "F1", "test images"))


def class_rows(found: Mapping[str, Any], most: int) -> TableRows:
    """The same as rows: class, precision, recall, f1, test images."""
    scores = list(found["models"].values())[-1]["per_class"]
    rows = [
        {"class": name, **{score: round(each[score], 4) for score in SCORES}, "test images": each["support"]}
        for name, each in zip(found["classes"], scores, strict=True)
    ]
    if len(rows) <= most:
        return rows
    return sorted((row for row in rows if row["test images"]), key=lambda row: float(row["f1"]))[:most]


def model_rows(found: Mapping[str, Any]) -> TableRows:
    """The models as rows of numbers; what one of them lacks is left out."""
    models: Mapping[str, Mapping[str, Any]] = found["models"]
    keys = [
        key for key in ("accuracy", *COLUMNS, "training_seconds") if all(m[key] is not None for m in models.values())
    ]
    return [
        {
            "model": name,
            **{key: round(float(each[key]), 4) for key in keys},
            "accuracy_low": round(each["intervals"]["accuracy"][0], 4),
            "accuracy_high": round(each["intervals"]["accuracy"][1], 4),
        }
        for name, each in models.items()
    ]


def _pair(each: Mapping[str, Any]) -> str:
    first, second = model_title(each["first"]), model_title(each["second"])
    if not each["only_first"] + each["only_second"]:
        return f"The {first} and the {second} are right on the same test images."
    p_value = "p < 0.001" if each["p_value"] < 0.001 else f"p = {each['p_value']:.3f}"
    # The test takes images for independent; the interval draws whole groups.
    sure = each["p_value"] < 0.05 and (each["low"] > 0 or each["high"] < 0)
    chance = "more than chance explains" if sure else "no more than chance may explain"
    return (
        f"The {first} alone is right on {_count(each['only_first'], 'test image')}, the {second} alone on "
        f"{each['only_second']:,}: {_points(each['difference'])} points of accuracy (95 % interval "
        f"{_points(each['low'])} to {_points(each['high'])}; exact McNemar test, {p_value}), {chance}."
    )


def _no_gain(found: Mapping[str, Any]) -> list[str]:
    losses = [_loss(found["models"][name]) for name in TITLES]
    if losses[0] is None or losses[0] != losses[1]:
        return []
    return ["Fine-tuning gave nothing lower on validation, or was not called for: the top model itself is handed on."]


def _loss(model: Mapping[str, Any]) -> float | None:
    loss: float | None = model["validation_log_loss"]
    return loss


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")
