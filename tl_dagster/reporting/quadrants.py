"""The transfer strategy's pictures: the lecture's four quadrants with the data set's place, and the cells' accuracy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_dagster.reporting.figures import FIRST, INK, SECOND, SOFT, new_figure, save_png, style_axes
from tl_dagster.strategy.decision import Decision

__all__ = ["accuracies", "quadrants"]

# Place of each cell: column (0 small, 1 large), row (0 different, 1 similar), and the lecture's words.
PLACES = {
    "features-high": (0, 1, "Small, similar", "linear classifier on\nfeatures of a higher layer"),
    "features-low": (0, 0, "Small, different", "linear classifier on\nfeatures of a lower layer"),
    "fine-tune-top": (1, 1, "Large, similar", "fine-tune the top layers"),
    "fine-tune-all": (1, 0, "Large, different", "fine-tune the\nwhole network"),
}
SHADE = "#e3edf7"
# The thresholds lie in the middle of the axes.
HALF = 0.7
REACH = 30.0  # the axis of size goes from a thirtieth of its threshold to thirty times it


def quadrants(path: Path, decision: Decision) -> None:
    """Draw the table, the thresholds as its lines, and the data set as a point.

    Args:
        path: the PNG file.
        decision: the strategy's, with its evidence.
    """
    size, similarity = decision.evidence["size"], decision.evidence["similarity"]
    threshold = similarity["different_from"]
    figure, (axis,) = new_figure(7.2, 4.6, 1)
    sides = (size["large_from"] / REACH, size["large_from"] * REACH)
    axis.set(xscale="log", xlim=sides, ylim=(threshold + HALF, threshold - HALF))
    axis.axvline(size["large_from"], color=SOFT)
    axis.axhline(threshold, color=SOFT)
    for cell, (column, row, title, words) in PLACES.items():
        left, bottom = column / 2, row / 2
        if cell == decision.cell:
            corners = {"x": [left, left + 0.5], "y1": bottom, "y2": bottom + 0.5}
            axis.fill_between(**corners, transform=axis.transAxes, color=SHADE, linewidth=0, zorder=0)
        axis.text(left + 0.02, bottom + 0.47, title, transform=axis.transAxes, va="top", weight="bold", color=INK)
        axis.text(left + 0.02, bottom + 0.40, words, transform=axis.transAxes, va="top", color=INK, fontsize=10)
    gain, error = similarity["gain_of_lower_taps"], similarity["standard_error"]
    x = float(np.clip(size["images_per_10000_parameters"], sides[0] * 1.1, sides[1] / 1.1))
    y = float(np.clip(gain, threshold - HALF + 0.04, threshold + HALF - 0.04)) if gain is not None else 0.0
    # Without lower taps, or images to probe, the similarity is unknown: an open point.
    face = SECOND if gain is not None else "white"
    axis.errorbar(x, y, yerr=error or None, color=SECOND, capsize=4, zorder=3)
    axis.plot(x, y, "o", color=SECOND, markerfacecolor=face, markersize=11, zorder=4)
    axis.set_xlabel("training images for each 10,000 parameters of the last stage (small → large)")
    axis.set_ylabel("share of the log-loss that\nlower layers save (different ← similar)")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    style_axes(axis)
    save_png(figure, path)


def accuracies(path: Path, rows: Sequence[Mapping[str, Any]], chosen: str) -> None:
    """Draw each cell's accuracy on validation and test as bars.

    Args:
        path: the PNG file.
        rows: cell, validation_accuracy, test_accuracy and seconds of each.
        chosen: the cell that the strategy chose.
    """
    figure, (axis,) = new_figure(7.2, 1.0 + 0.75 * len(rows), 1)
    places = range(len(rows))
    for shift, name, color in ((-0.18, "validation_accuracy", SOFT), (0.18, "test_accuracy", FIRST)):
        values = [row[name] for row in rows]
        axis.barh([place + shift for place in places], values, height=0.34, color=color, label=name.split("_")[0])
        for place, value in zip(places, values, strict=True):
            axis.text(value, place + shift, f" {value:.1%}", va="center", color=INK, fontsize=9)
    names = [f"{row['cell']}{' (chosen)' if row['cell'] == chosen else ''}\n{row['seconds']:.0f} s" for row in rows]
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    least = min(min(row["validation_accuracy"], row["test_accuracy"]) for row in rows)
    axis.set_xlim(max(0.0, least - 0.1), 1.03)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value <= 1 else "")
    axis.set_xlabel("accuracy")
    style_axes(axis, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    save_png(figure, path)
