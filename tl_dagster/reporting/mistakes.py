"""The sheet of the worst mistakes: each image beside the heat map of the wrong class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

from tl_dagster.reporting.fonts import Letters
from tl_dagster.reporting.sheets import GAP, INK, LINE, save_jpeg, tile

__all__ = ["MOST_MISTAKES", "Mistake", "mistakes_sheet", "worst_mistakes"]

MOST_MISTAKES = 12
SIDE, COLUMNS = 150, 2
MOST_BYTES = 72_000
HEAT = 0.55  # opacity of the hottest colour


@dataclass(frozen=True)
class Mistake:
    """An image that was predicted wrongly.

    Attributes:
        uri: of the image.
        label: its class.
        predicted: the predicted class.
        probability: of the predicted class.
        seen: uint8 (S, S, 3), the network's input; None if unknown.
        heat: float32 (S, S) from 0 to 1, the evidence for the predicted class; None if unknown.
    """

    uri: str
    label: str
    predicted: str
    probability: float
    seen: np.ndarray | None = None
    heat: np.ndarray | None = None


def worst_mistakes(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the row numbers of the wrong predictions of highest probability, the highest first; twelve at most.

    Args:
        truth: (n,) class numbers.
        probabilities: (n, classes).
    """
    wrong = np.flatnonzero(probabilities.argmax(1) != truth)
    worst: np.ndarray = wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:MOST_MISTAKES]
    return worst


def mistakes_sheet(path: Path, mistakes: Sequence[Mistake]) -> None:
    """Draw mistakes in two columns: the image, its heat map where there is one, and "label → predicted".

    Args:
        path: the JPEG file, 72 kB at most.
        mistakes: at least one; a crossed square replaces an image that cannot be read.
    """
    pair = any(mistake.heat is not None for mistake in mistakes)
    width = SIDE * (2 if pair else 1) + 2 * GAP
    height = SIDE + 2 * LINE + 2 * GAP
    columns = min(COLUMNS if pair else 2 * COLUMNS, len(mistakes))
    sheet = Image.new("RGB", (columns * width, -(-len(mistakes) // columns) * height), "white")
    draw, letters = ImageDraw.Draw(sheet), Letters(12)
    for number, mistake in enumerate(mistakes):
        left, top = GAP + number % columns * width, GAP + number // columns * height
        sheet.paste(tile(mistake.uri, SIDE), (left, top))
        if mistake.seen is not None and mistake.heat is not None:
            sheet.paste(_overlay(mistake.seen, mistake.heat), (left + SIDE, top))
        for row, line in enumerate((mistake.label, f"→ {mistake.probability:.0%} {mistake.predicted}")):
            letters.draw(draw, (left, top + SIDE + 2 + row * LINE), letters.fit(line, width - 2 * GAP), INK)
    save_jpeg(sheet, path, MOST_BYTES)


def _overlay(seen: np.ndarray, heat: np.ndarray) -> Image.Image:
    """Return the network's input in grey, with the heat over it."""
    colors = colormaps["inferno"](heat)[..., :3] * 255
    cover = HEAT * heat[..., None]
    grey = seen.mean(2, keepdims=True)  # colours shall mean heat only
    blended = (grey * (1 - cover) + colors * cover).round().astype(np.uint8)
    return Image.fromarray(blended).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
