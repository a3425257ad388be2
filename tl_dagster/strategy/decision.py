"""The transfer strategy's decision: a cell of the lecture's table, and what follows from it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["CELLS", "Cell", "Decision", "read_decision", "write_decision"]

DECISION = "decision.json"


@dataclass(frozen=True)
class Cell:
    """A cell of the lecture's table.

    Attributes:
        quadrant: the lecture's sentence.
        depth: what is unfrozen: "none", "top" or "all".
        epochs: passes over the training images.
        learning_rate: peak, of the highest unfrozen stage.
    """

    quadrant: str
    depth: str
    epochs: int
    learning_rate: float


CELLS: Mapping[str, Cell] = {
    "features-high": Cell(
        "small and similar: train a linear classifier on the features of a higher layer", "none", 10, 1e-4
    ),
    "features-low": Cell(
        "small and different: train a linear classifier on the features of a lower layer", "none", 10, 1e-4
    ),
    "fine-tune-top": Cell("large and similar: fine-tune the top layers", "top", 10, 1e-4),
    "fine-tune-all": Cell("large and different: fine-tune the whole network", "all", 10, 5e-5),
}


@dataclass(frozen=True)
class Decision:
    """The depth and schedule of fine-tuning, and the taps that the top model is trained on.

    Attributes:
        cell: "features-high", "features-low", "fine-tune-top" or "fine-tune-all".
        quadrant: the lecture's sentence.
        taps: declared names of the taps that the top model reads, in declared order.
        depth: "none", "top" or "all".
        epochs: passes over the training images.
        learning_rate: peak, of the highest unfrozen stage.
        evidence: the numbers behind it (JSON-serialisable).
    """

    cell: str
    quadrant: str
    taps: list[str]
    depth: str
    epochs: int
    learning_rate: float
    evidence: dict[str, Any]


def write_decision(folder: Path, decision: Decision) -> None:
    """Write a decision into the folder of a transfer_strategy artifact."""
    (folder / DECISION).write_text(json.dumps(asdict(decision), indent=1))


def read_decision(folder: Path) -> Decision:
    """Return the decision of a transfer_strategy artifact."""
    return Decision(**json.loads((folder / DECISION).read_text()))
