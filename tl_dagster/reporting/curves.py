"""Curves of an evaluation: calibration, ROC, what was chosen on validation, and accuracy against training images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter
from sklearn.metrics import auc, roc_curve

from tl_dagster.evaluation.metrics import BINS, calibration
from tl_dagster.reporting.figures import FIRST, INK, SECOND, SOFT, new_figure, save_png, short_name

Predictions = tuple[np.ndarray, np.ndarray]


__all__ = ["learning_curves", "reliability", "roc", "training_size"]

# Okabe & Ito's colours, which colour-blind readers tell apart ("Color universal design", 2008).
COLORS = (FIRST, SECOND, "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MOST_CLASSES = 6
MOST_POINTS = 400  # of a ROC curve


def reliability(path: Path, models: Mapping[str, Predictions]) -> None:
    """Accuracy against confidence in 15 bins; below, how many images each bin holds.

    Args:
        path: the PNG file.
        models: title → class numbers and probabilities of the test images.
    """
    figure, (axis, below) = new_figure(5.6, 5.0, 1, heights=(3, 1))
    axis.plot([0, 1], [0, 1], ":", color=SOFT, label="confidence = accuracy")
    width = 1 / BINS / max(1, len(models))
    for number, ((title, (truth, probabilities)), color) in enumerate(
        zip(models.items(), _colors(models), strict=True)
    ):
        counts, confidence, accuracy = calibration(truth, probabilities)
        held = counts > 0
        axis.plot(confidence[held], accuracy[held], "o-", color=color, markersize=4, label=title)
        places = [(bin_ + 0.5) / BINS + (number + 0.5 - len(models) / 2) * width for bin_ in range(BINS)]
        below.bar(places, counts, width, color=color)
    axis.set_ylabel("accuracy")
    axis.set_ylim(-0.03, 1.03)
    below.set_ylabel("images")
    below.set_xlabel("confidence (probability of the predicted class)")
    for each in (axis, below):
        each.set_xlim(0, 1.01)
    _tidy(axis, below)
    save_png(figure, path)


def roc(path: Path, models: Mapping[str, Predictions], classes: Sequence[str]) -> None:
    """ROC curves: of two classes each model's; of more, the last model's six classes of least area.

    Args:
        path: the PNG file.
        models: title → class numbers and probabilities of the test images; the last is the one handed on.
        classes: class names.
    """
    title, (truth, probabilities) = list(models.items())[-1]
    if len(classes) == 2:
        curves = [(name, known == 1, scores[:, 1]) for name, (known, scores) in models.items()]
        title = f"{short_name(classes[1])} against {short_name(classes[0])}"
    else:
        counts = np.bincount(truth, minlength=len(classes))
        both = np.flatnonzero((counts > 0) & (counts < len(truth))).tolist()
        title = f"{title}: {'each class' if len(both) <= MOST_CLASSES else 'the hardest classes'} against the rest"
        curves = [(short_name(classes[each]), truth == each, probabilities[:, each]) for each in both]
    drawn = []
    for name, own, scores in curves:
        if own.any() and not own.all():
            wrong, right, _ = roc_curve(own, scores)
            drawn.append((auc(wrong, right), name, wrong, right))
    if len(classes) > 2:
        drawn = sorted(drawn, key=lambda each: each[0])[:MOST_CLASSES]
    figure, (axis,) = new_figure(5.6, 4.6, 1)
    axis.plot([0, 1], [0, 1], ":", color=SOFT)
    for (area, name, wrong, right), color in zip(drawn, _colors(drawn), strict=True):
        kept = np.linspace(0, len(wrong) - 1, min(len(wrong), MOST_POINTS)).round().astype(int)
        axis.plot(wrong[kept], right[kept], color=color, label=f"{area:.3f}  {name}")
    axis.set_xlabel("false positive rate")
    axis.set_ylabel("true positive rate")
    axis.set_title(title, fontsize=11, color=INK)
    _tidy(axis, title="area under the curve")
    save_png(figure, path)


def learning_curves(path: Path, top: Mapping[str, Any], tuned: Mapping[str, Any]) -> None:
    """What was chosen on validation: the top model's L2 or epoch on the left, the fine-tuned model's on the right.

    Args:
        path: the PNG file.
        top: the top model's description: l2 and path [(l2, log-loss, accuracy)], or epoch and history.
        tuned: the fine-tuned model's: epoch and history [{epoch, training_loss, validation_log_loss, …}].
    """
    figure, (left, right) = new_figure(8.4, 3.4, 2)
    if top.get("history"):
        _epochs(left, top["history"], top["epoch"])
        left.set_xlabel("epoch")
    else:
        strengths, losses, *_ = zip(*top["path"], strict=True)
        left.plot(strengths, losses, "o-", color=FIRST, label="validation")
        left.axvline(top["l2"], color=SOFT, linestyle=":", label=f"kept: {top['l2']:g}")
        left.set_xscale("log")
        left.set_xlabel("strength of L2")
    left.set_ylabel("log-loss")
    left.set_title("top model", fontsize=11, color=INK)
    _epochs(right, tuned["history"], tuned["epoch"])
    right.set_xlabel("epoch (0: the top model)")
    right.set_title("fine-tuned model", fontsize=11, color=INK)
    _tidy(left, right)
    save_png(figure, path)


def training_size(path: Path, points: Sequence[Mapping[str, Any]], reached: Mapping[str, float]) -> None:
    """Test accuracy against the number of training images.

    Args:
        path: the PNG file.
        points: see :func:`tl_dagster.evaluation.learning_curve.learning_curve`.
        reached: model → its test accuracy on all training views, drawn as lines.
    """
    figure, (axis,) = new_figure(5.6, 3.6, 1)
    images = [point["images"] for point in points]
    axis.fill_between(
        images,
        [point["lowest"] for point in points],
        [point["highest"] for point in points],
        color=SOFT,
        alpha=0.35,
        linewidth=0,
        label="lowest to highest draw",
    )
    axis.plot(images, [point["accuracy"] for point in points], "o-", color=INK, label="classifier on plain features")
    for (title, accuracy), color in zip(reached.items(), _colors(reached), strict=True):
        axis.axhline(accuracy, color=color, linestyle="--", linewidth=1, label=title)
    axis.set_xscale("log")
    axis.set_xticks(images)
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("training images")
    axis.set_ylabel("test accuracy")
    _tidy(axis)
    save_png(figure, path)


def _epochs(axis: Axes, history: Sequence[Mapping[str, Any]], kept: int) -> None:
    for key, color, name in (("validation_log_loss", FIRST, "validation"), ("training_loss", SECOND, "training")):
        rows = [row for row in history if row.get(key) is not None]
        if not rows:
            continue
        axis.plot(
            [row["epoch"] for row in rows], [row[key] for row in rows], "o-", color=color, markersize=4, label=name
        )
    axis.axvline(kept, color=SOFT, linestyle=":", label=f"kept: {kept}")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(history) == 1:  # else the axis would be a fraction of an epoch wide
        axis.set_xlim(-1, 1)


def _colors(drawn: Sequence[Any] | Mapping[str, Any]) -> list[str]:
    """A colour each; the last is the main one."""
    return [COLORS[(len(drawn) - 1 - number) % len(COLORS)] for number in range(len(drawn))]


def _tidy(*axes: Axes, title: str | None = None) -> None:
    for axis in axes:
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=9, title=title, title_fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)


def scratch_curves(path: Path, told: Mapping[str, Mapping[str, Any]]) -> None:
    """Log-loss by epoch, one network beside the other, with the epoch that was kept."""
    figure, axes = new_figure(4.2 * len(told), 3.4, len(told))
    for axis, (name, each) in zip(axes, told.items(), strict=True):
        for key, color in (("validation_log_loss", FIRST), ("training_loss", SECOND)):
            points = [(row["epoch"], row[key]) for row in each["history"] if key in row]
            axis.plot(*zip(*points, strict=True), "o-", markersize=3, color=color, label=key.partition("_")[0])
        axis.axvline(each["epoch"], color=SOFT, linestyle=":", label=f"kept: {each['epoch']}")
        axis.set_xlabel("epoch")
        axis.set_ylabel("log-loss")
        axis.set_title(f"{name}, from random weights", fontsize=11, color=INK)
        axis.legend(frameon=False, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    save_png(figure, path)
