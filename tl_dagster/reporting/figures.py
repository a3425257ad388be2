"""Pictures of an evaluation, as PNG files: small enough for Dagster's event log."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from tl_dagster.reporting.fonts import drawable_parts, font_families

__all__ = [
    "FIRST",
    "INK",
    "SECOND",
    "SOFT",
    "class_balance",
    "confusion_matrix",
    "new_figure",
    "save_png",
    "short_name",
    "style_axes",
]

INK, SOFT, FIRST, SECOND = "#1f2933", "#9aa5b1", "#2563a8", "#d9822b"
MOST_BARS = 30
MOST_CELLS, MOST_PAIRS = 25, 20
MOST_NUMBERED = 12  # classes whose cells show their counts; with more, only one matrix is drawn
MOST_BYTES = 70_000
MOST_LETTERS = 18  # of a name in a figure
MOST_FLAT = 12  # of names that stand beside each other


def class_balance(path: Path, counts: pd.DataFrame) -> None:
    """Draw a bar for each class, its splits stacked.

    Args:
        path: the PNG file.
        counts: images of each class (rows) in each split (columns); of many classes the largest and the smallest.
    """
    ordered = counts.loc[counts.sum(axis=1).sort_values(kind="stable").index]
    title = ""
    if len(ordered) > MOST_BARS:
        title = f"the {MOST_BARS // 2} largest and smallest of {len(ordered):,} classes"
        ordered = ordered.iloc[[*range(MOST_BARS // 2), *range(len(ordered) - MOST_BARS // 2, len(ordered))]]
    figure, (axis,) = new_figure(7.0, 1.2 + 0.26 * len(ordered), 1)
    left = [0] * len(ordered)
    for split, color in zip(counts.columns, (FIRST, SECOND, SOFT), strict=True):
        axis.barh(range(len(ordered)), ordered[split], left=left, color=color, label=split)
        left = [before + int(count) for before, count in zip(left, ordered[split], strict=True)]
    for row, total in enumerate(left):
        axis.text(total, row, f" {total:,}", va="center", color=INK, fontsize=9)
    axis.set_yticks(range(len(ordered)), [short_name(str(name)) for name in ordered.index])
    axis.set_xlabel("images")
    axis.set_title(title, fontsize=11, color=INK)
    style_axes(axis, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    save_png(figure, path)


def confusion_matrix(path: Path, matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> None:
    """Draw confusion matrices, two in a row, cells shaded by the share of their row.

    With more than 12 classes, only the last model's; with more than 25, the pairs that it confuses most instead,
    because cells would be too small to be read.

    Args:
        path: the PNG file.
        matrices: title → counts (classes, classes), rows true, columns predicted.
        classes: class names.
    """
    if len(classes) > MOST_CELLS:
        title, counts = list(matrices.items())[-1]
        _confused_pairs(path, title, counts, classes)
        return
    if len(classes) > MOST_NUMBERED:
        matrices = dict(list(matrices.items())[-1:])
    side = max(3.8, 1.6 + 0.2 * len(classes))
    columns = min(2, len(matrices))
    rows = -(-len(matrices) // columns)
    figure, axes = new_figure(side * columns, side * 0.95 * rows, columns, heights=[1] * rows)
    for axis, (title, counts) in zip(axes, matrices.items(), strict=False):
        _draw_matrix(axis, title, counts, [short_name(name) for name in classes])
    for axis in axes[len(matrices) :]:
        axis.set_axis_off()
    save_png(figure, path)


def _draw_matrix(axis: Axes, title: str, counts: np.ndarray, names: Sequence[str]) -> None:
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_title(title, fontsize=11, color=INK)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    flat = len(names) < 4 and max(map(len, names)) <= MOST_FLAT
    axis.set_xticks(range(len(names)), names, rotation=0 if flat else 90)
    axis.set_yticks(range(len(names)), names)
    if len(names) <= MOST_NUMBERED:
        for row, column in np.ndindex(*counts.shape):
            color = "white" if shares[row, column] > 0.55 else INK
            axis.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=color)


def _confused_pairs(path: Path, title: str, counts: np.ndarray, classes: Sequence[str]) -> None:
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = [cell for cell in np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS] if wrong.flat[cell]][::-1]
    pairs = [divmod(int(cell), len(classes)) for cell in order]
    figure, (axis,) = new_figure(7.0, 1.4 + 0.26 * len(pairs), 1)
    axis.barh(range(len(pairs)), [wrong[pair] for pair in pairs], color=FIRST)
    for row, pair in enumerate(pairs):
        axis.text(
            wrong[pair], row, f" {wrong[pair]:,} of {counts[pair[0]].sum():,}", va="center", color=INK, fontsize=9
        )
    axis.set_yticks(range(len(pairs)), [" → ".join(short_name(classes[number]) for number in pair) for pair in pairs])
    axis.set_xlabel("images")
    axis.set_title(f"{title}: most confused, true → predicted" if pairs else f"{title}: no mistakes", color=INK)
    axis.margins(x=0.15)
    style_axes(axis)
    save_png(figure, path)


def new_figure(width: float, height: float, columns: int, heights: Sequence[float] = (1,)) -> tuple[Figure, Any]:
    """Return a figure and its axes, row by row.

    Args:
        width: in inches.
        height: in inches.
        columns: axes in a row.
        heights: of the rows, relative to each other.
    """
    # No pyplot: it keeps global state and looks for a display.

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(len(heights), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    return figure, axes.ravel()


def style_axes(*axes: Axes, legend_title: str | None = None, **legend: Any) -> None:
    """Give axes the pictures' common style: no frame above and on the right, and a plain legend of what has a label.

    Args:
        axes: of one figure.
        legend_title: heading of the legends.
        legend: further arguments of matplotlib's ``Axes.legend``, such as its place.
    """
    for axis in axes:
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=9, title=legend_title, title_fontsize=9, **legend)
        axis.spines[["top", "right"]].set_visible(False)


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure at 80 dots per inch; with 64 colours if it is too large for an event log otherwise."""
    _use_fonts(figure)
    figure.savefig(path, dpi=80, metadata={"Software": None})
    if path.stat().st_size > MOST_BYTES:
        with Image.open(path) as image:
            fewer = image.convert("RGB").quantize(64, dither=Image.Dither.NONE)
        fewer.save(path, optimize=True)


def short_name(name: str) -> str:
    """Return a class name on one line of at most 18 characters, which matplotlib draws literally.

    A character that no installed font has is escaped.
    """
    parts = drawable_parts(name)
    line = "".join(parts)
    if len(line) > MOST_LETTERS:
        fit = itertools.takewhile(lambda length: length < MOST_LETTERS, itertools.accumulate(map(len, parts)))
        line = "".join(parts[: len(list(fit))]) + "…"
    return line.replace("$", r"\$")  # a dollar sign would start matplotlib's mathematics


def _use_fonts(figure: Figure) -> None:
    """Let all texts of a figure use the fonts that their characters need."""
    for axes in figure.axes:  # which writes the labels of ticks
        axes.get_xticklabels()
        axes.get_yticklabels()
    texts = figure.findobj(Text)
    families = font_families("".join(text.get_text() for text in texts))
    if len(families) > 1:
        for text in texts:
            text.set_fontfamily(families)
