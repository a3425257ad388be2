"""Curves of an evaluation: calibration, ROC, selection on validation, and accuracy against training images."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter
from sklearn.metrics import auc, roc_curve

from tl_dagster.evaluation.metrics import BINS, calibration
from tl_dagster.evaluation.results import LearningCurvePoint
from tl_dagster.reporting.figures import FIRST, INK, SECOND, SOFT, new_figure, save_png, short_name, style_axes

__all__ = ["EpochHistory", "L2Path", "learning_curves", "reliability", "roc", "scratch_curves", "training_size"]

Predictions = tuple[np.ndarray, np.ndarray]

# Okabe & Ito's colours, which colour-blind readers tell apart ("Color universal design", 2008).
COLORS = (FIRST, SECOND, "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MOST_CLASSES = 6
MOST_POINTS = 400  # of a ROC curve
LOSSES = (("validation_log_loss", FIRST, "validation"), ("training_loss", SECOND, "training"))


@dataclass(frozen=True)
class EpochHistory:
    """Losses of a training run by epoch.

    Attributes:
        rows: epoch, and training_loss and validation_log_loss if known, of each epoch.
        selected: the epoch whose weights were selected on validation.
    """

    rows: Sequence[Mapping[str, float]]
    selected: float


@dataclass(frozen=True)
class L2Path:
    """Validation results of a logistic regression by the strength of its L2 penalty.

    Attributes:
        points: (L2, log-loss, accuracy) of each strength.
        selected: the L2 that was selected on validation.
    """

    points: Sequence[tuple[float, float, float]]
    selected: float


@dataclass(frozen=True)
class _RocCurve:
    name: str
    area: float
    false_positives: np.ndarray
    true_positives: np.ndarray


def reliability(path: Path, models: Mapping[str, Predictions]) -> None:
    """Draw accuracy against confidence in 15 bins, and below the number of images in each bin.

    Args:
        path: the PNG file.
        models: title → class numbers (n,) and probabilities (n, classes) of the test images.
    """
    figure, (axis, below) = new_figure(5.6, 5.0, 1, heights=(3, 1))
    axis.plot([0, 1], [0, 1], ":", color=SOFT, label="confidence = accuracy")
    width = 1 / BINS / max(1, len(models))
    colored = zip(models.items(), _colors(models), strict=True)
    for number, ((title, (truth, probabilities)), color) in enumerate(colored):
        counts, confidence, accuracy = calibration(truth, probabilities)
        filled = counts > 0
        axis.plot(confidence[filled], accuracy[filled], "o-", color=color, markersize=4, label=title)
        centres = (np.arange(BINS) + 0.5) / BINS + (number + 0.5 - len(models) / 2) * width
        below.bar(centres, counts, width, color=color)
    axis.set_ylabel("accuracy")
    axis.set_ylim(-0.03, 1.03)
    below.set_ylabel("images")
    below.set_xlabel("confidence (probability of the predicted class)")
    for shared in (axis, below):
        shared.set_xlim(0, 1.01)
    style_axes(axis, below)
    save_png(figure, path)


def roc(path: Path, models: Mapping[str, Predictions], classes: Sequence[str]) -> None:
    """Draw ROC curves: every model's with two classes; with more, the last model's for six classes of least area.

    Args:
        path: the PNG file.
        models: title → class numbers (n,) and probabilities (n, classes) of the test images; the last is the model
            that was selected.
        classes: class names.
    """
    title, curves = _binary_curves(models, classes) if len(classes) == 2 else _class_curves(models, classes)
    figure, (axis,) = new_figure(5.6, 4.6, 1)
    axis.plot([0, 1], [0, 1], ":", color=SOFT)
    for curve, color in zip(curves, _colors(curves), strict=True):
        count = len(curve.false_positives)
        points = np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(int)
        label = f"{curve.area:.3f}  {curve.name}"
        axis.plot(curve.false_positives[points], curve.true_positives[points], color=color, label=label)
    axis.set_xlabel("false positive rate")
    axis.set_ylabel("true positive rate")
    axis.set_title(title, fontsize=11, color=INK)
    style_axes(axis, legend_title="area under the curve")
    save_png(figure, path)


def _binary_curves(models: Mapping[str, Predictions], classes: Sequence[str]) -> tuple[str, list[_RocCurve]]:
    """Return a title, and the curve of each model for the second of two classes."""
    title = f"{short_name(classes[1])} against {short_name(classes[0])}"
    curves = [_roc_curve(name, truth == 1, scores[:, 1]) for name, (truth, scores) in models.items()]
    return title, [curve for curve in curves if curve]


def _class_curves(models: Mapping[str, Predictions], classes: Sequence[str]) -> tuple[str, list[_RocCurve]]:
    """Return a title, and the last model's curves of the classes of least area."""
    name, (truth, scores) = list(models.items())[-1]
    by_class = [
        _roc_curve(short_name(label), truth == number, scores[:, number]) for number, label in enumerate(classes)
    ]
    curves = sorted((curve for curve in by_class if curve), key=lambda curve: curve.area)
    scope = "each class" if len(curves) <= MOST_CLASSES else "the hardest classes"
    return f"{name}: {scope} against the rest", curves[:MOST_CLASSES]


def _roc_curve(name: str, positive: np.ndarray, scores: np.ndarray) -> _RocCurve | None:
    """Return the curve of scores (n,) for positives (n,) bool; None where all images or none are positive."""
    if positive.all() or not positive.any():
        return None
    false_positives, true_positives, _ = roc_curve(positive, scores)
    return _RocCurve(name, auc(false_positives, true_positives), false_positives, true_positives)


def learning_curves(path: Path, top: EpochHistory | L2Path, tuned: EpochHistory | None) -> None:
    """Draw what was selected on validation: the top model's L2 or epoch, and beside it the fine-tuned model's epoch.

    Args:
        path: the PNG file.
        top: the top model's training.
        tuned: the fine-tuned model's, whose epoch 0 is the top model; None: nothing was trained, and nothing is drawn.
    """
    figure, (left, *others) = new_figure(8.4 if tuned else 4.4, 3.4, 2 if tuned else 1)
    if isinstance(top, EpochHistory):
        _draw_history(left, top)
    else:
        _draw_l2_path(left, top)
    left.set_title("top model", fontsize=11, color=INK)
    if tuned:
        _draw_history(others[0], tuned)
        others[0].set_xlabel("epoch (0: the top model)")
        others[0].set_title("fine-tuned model", fontsize=11, color=INK)
    style_axes(left, *others)
    save_png(figure, path)


def scratch_curves(path: Path, networks: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the log-loss by epoch of networks that were trained from random weights, side by side.

    Args:
        path: the PNG file.
        networks: name → epoch (selected) and history (see :class:`EpochHistory`); at least one.
    """
    figure, axes = new_figure(4.2 * len(networks), 3.4, len(networks))
    for axis, (name, network) in zip(axes, networks.items(), strict=True):
        _draw_history(axis, EpochHistory(network["history"], network["epoch"]))
        axis.set_title(f"{name}, from random weights", fontsize=11, color=INK)
    style_axes(*axes)
    save_png(figure, path)


def training_size(path: Path, points: Sequence[LearningCurvePoint], accuracies: Mapping[str, float]) -> None:
    """Draw test accuracy against the number of training images.

    Args:
        path: the PNG file.
        points: from few to all images.
        accuracies: model → its test accuracy on all training views, drawn as lines.
    """
    figure, (axis,) = new_figure(5.6, 3.6, 1)
    images = [point.images for point in points]
    lowest, highest = [point.lowest for point in points], [point.highest for point in points]
    axis.fill_between(images, lowest, highest, color=SOFT, alpha=0.35, linewidth=0, label="lowest to highest draw")
    axis.plot(images, [point.accuracy for point in points], "o-", color=INK, label="classifier on plain features")
    for (title, accuracy), color in zip(accuracies.items(), _colors(accuracies), strict=True):
        axis.axhline(accuracy, color=color, linestyle="--", linewidth=1, label=title)
    axis.set_xscale("log")
    axis.set_xticks(images)
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("training images")
    axis.set_ylabel("test accuracy")
    style_axes(axis)
    save_png(figure, path)


def _draw_history(axis: Axes, history: EpochHistory) -> None:
    """Draw validation and training loss by epoch, and the selected epoch."""
    for key, color, label in LOSSES:
        points = [(row["epoch"], row[key]) for row in history.rows if row.get(key) is not None]
        if points:
            axis.plot(*zip(*points, strict=True), "o-", color=color, markersize=4, label=label)
    axis.axvline(history.selected, color=SOFT, linestyle=":", label=f"selected: {history.selected:g}")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(history.rows) == 1:  # else the axis would be a fraction of an epoch wide
        axis.set_xlim(-1, 1)
    axis.set_xlabel("epoch")
    axis.set_ylabel("log-loss")


def _draw_l2_path(axis: Axes, path: L2Path) -> None:
    """Draw the validation loss by the strength of L2, and the selected strength."""
    strengths, losses = [point[0] for point in path.points], [point[1] for point in path.points]
    axis.set_xscale("log")
    axis.plot(strengths, losses, "o-", color=FIRST, label="validation")
    axis.axvline(path.selected, color=SOFT, linestyle=":", label=f"selected: {path.selected:g}")
    if len(strengths) == 1:  # which has no width
        axis.set_xlim(strengths[0] / 10, strengths[0] * 10)
    axis.set_xlabel("strength of L2")
    axis.set_ylabel("log-loss")


def _colors(curves: Collection[Any]) -> list[str]:
    """Return a colour for each curve; the last has the main colour."""
    return [COLORS[(len(curves) - 1 - number) % len(COLORS)] for number in range(len(curves))]
