"""The leaderboard of backbones as a table and a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tl_dagster.evaluation.leaderboard import Configuration, Entry
from tl_dagster.evaluation.simultaneous import SimultaneousIntervals
from tl_dagster.reporting.figures import FIRST, INK, SOFT, new_figure, save_png, style_axes
from tl_dagster.store.artifacts import TableRows

__all__ = ["draw_leaderboard", "leaderboard_rows"]

MOST_SHOWN = 40  # configurations in the picture
UNKNOWN = "not known"


def leaderboard_rows(entries: Sequence[tuple[Configuration, Entry]], compared: SimultaneousIntervals) -> TableRows:
    """Return a row for each configuration.

    Args:
        entries: at least one, the best first.
        compared: their intervals, in the same order.
    """
    return [
        {
            "backbone": configuration.backbone,
            "tap": configuration.tap,
            "pooling": configuration.pooling,
            "accuracy": round(entry.accuracy, 4),
            "95 % interval": f"{compared.interval[number, 0]:.3f} to {compared.interval[number, 1]:.3f}",
            "points behind the best": _describe_gap(compared, number),
            "may be the best": "yes" if compared.may_be_best[number] else "no",
            "log-loss": round(entry.log_loss, 4),
            "features": entry.width,
            "GFLOP": UNKNOWN if entry.gflop is None else f"{entry.gflop:.2f}",
            "MB of weights": round(entry.megabytes, 1),
            "ms per image": UNKNOWN if entry.milliseconds is None else f"{entry.milliseconds:.1f}",
        }
        for number, (configuration, entry) in enumerate(entries)
    ]


def _describe_gap(compared: SimultaneousIntervals, number: int) -> str:
    low, high = 100 * compared.behind[number]
    gap = 100 * (compared.accuracy.max() - compared.accuracy[number])
    return f"{gap:.1f} ({low:+.1f} to {high:+.1f})"


def draw_leaderboard(
    path: Path, entries: Sequence[tuple[Configuration, Entry]], compared: SimultaneousIntervals
) -> None:
    """Draw the accuracy of each configuration with its interval; those that may be the best are filled.

    Args:
        path: the PNG file.
        entries: at least one, the best first; of many the best ones.
        compared: their intervals, in the same order.
    """
    shown = entries[:MOST_SHOWN]
    count = len(shown)
    places = np.arange(count)[::-1]
    figure, (axis,) = new_figure(8.0, 1.2 + 0.26 * count, 1)
    low, high = compared.interval[:count].T
    axis.hlines(places, low, high, color=SOFT, linewidth=1.5)
    best = compared.may_be_best[:count]
    for chosen, label, face in ((best, "may be the best", FIRST), (~best, "surely worse", "white")):
        if chosen.any():
            dots = compared.accuracy[:count][chosen]
            axis.plot(dots, places[chosen], "o", color=FIRST, markerfacecolor=face, markersize=6, label=label)
    axis.set_yticks(places, [f"{each.backbone}  {each.tap}  {each.pooling}" for each, _ in shown], fontsize=9)
    axis.set_ylim(-0.7, count - 0.3)
    axis.set_xlabel("accuracy, cross-validated on training and validation images; intervals hold for all at once")
    axis.grid(axis="x", color=SOFT, alpha=0.3)
    axis.tick_params(colors=INK)
    style_axes(axis, loc="lower left" if count > 3 else "best")
    save_png(figure, path)
