"""Pictures of an evaluation, as PNG files: small enough for Dagster's event log."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["class_balance", "confusion_matrix", "learning_curves", "new_figure", "save_png", "short_name"]

INK, SOFT, FIRST, SECOND = "#1f2933", "#9aa5b1", "#2563a8", "#d9822b"
MOST_BARS = 30


def class_balance(path: Path, counts: "pd.DataFrame") -> None:
    """A bar for each class, its splits stacked.

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
    axis.legend(frameon=False, fontsize=9, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    axis.spines[["top", "right"]].set_visible(False)
    save_png(figure, path)


def confusion_matrix(path: Path, matrices: Mapping[str, Sequence[Sequence[int]]], classes: Sequence[str]) -> None:
    """One confusion matrix beside the other, cells shaded by the share of their row.

    Args:
        path: the PNG file.
        matrices: title → counts, rows true, columns predicted.
        classes: class names.
    """
    import numpy as np

    figure, axes = new_figure(4.0 * len(matrices), 3.8, len(matrices))
    for axis, (title, counts) in zip(axes, matrices.items(), strict=True):
        table = np.asarray(counts)
        shares = table / np.maximum(table.sum(1, keepdims=True), 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axis.set_title(title, fontsize=11, color=INK)
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
        shown = [short_name(name) for name in classes]
        axis.set_xticks(range(len(classes)), shown, rotation=0 if len(classes) < 4 else 90)
        axis.set_yticks(range(len(classes)), shown)
        if len(classes) <= 12:
            for row, column in np.ndindex(*table.shape):
                color = "white" if shares[row, column] > 0.55 else INK
                axis.text(column, row, f"{table[row, column]:,}", ha="center", va="center", color=color)
    save_png(figure, path)


def learning_curves(
    path: Path,
    strengths: Sequence[tuple[float, float, float]],
    chosen: float,
    history: Sequence[Mapping[str, Any]],
    epoch: int,
) -> None:
    """What was chosen on validation: the top model's L2 on the left, the fine-tuned model's epoch on the right.

    Args:
        path: the PNG file.
        strengths: (l2, validation log-loss, validation accuracy) of each strength tried.
        chosen: the l2 kept.
        history: per epoch: validation_log_loss, and training_loss from the first epoch on.
        epoch: the epoch kept.
    """
    figure, (left, right) = new_figure(8.4, 3.4, 2)
    left.plot([l2 for l2, _, _ in strengths], [loss for _, loss, _ in strengths], "o-", color=FIRST, label="validation")
    left.axvline(chosen, color=SOFT, linestyle=":", label=f"kept: {chosen:g}")
    left.set_xscale("log")
    left.set_xlabel("strength of L2")
    left.set_ylabel("log-loss")
    left.set_title("top model", fontsize=11, color=INK)
    epochs = [row["epoch"] for row in history]
    right.plot(epochs, [row["validation_log_loss"] for row in history], "o-", color=FIRST, label="validation")
    trained = [row for row in history if "training_loss" in row]
    right.plot(
        [row["epoch"] for row in trained],
        [row["training_loss"] for row in trained],
        "o-",
        color=SECOND,
        label="training",
    )
    right.axvline(epoch, color=SOFT, linestyle=":", label=f"kept: {epoch}")
    right.set_xlabel("epoch (0: the top model)")
    right.set_title("fine-tuned model", fontsize=11, color=INK)
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    save_png(figure, path)


def new_figure(width: float, height: float, columns: int) -> "tuple[Figure, Any]":
    """A figure of so many inches, and its axes side by side."""
    # No pyplot: it keeps global state and looks for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def save_png(figure: "Figure", path: Path) -> None:
    """Write a figure at 80 dots per inch."""
    figure.savefig(path, dpi=80, metadata={"Software": None})


def short_name(name: str) -> str:
    """A class name on one line of at most 18 characters, that matplotlib draws as it stands."""
    line = " ".join(name.split())
    line = line if len(line) <= 18 else f"{line[:17]}…"
    known = _drawable()
    # matplotlib warns of each character that its font lacks; a dollar sign would start its mathematics.
    return "".join(each if ord(each) in known else "□" for each in line).replace("$", r"\$")


@cache
def _drawable() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
