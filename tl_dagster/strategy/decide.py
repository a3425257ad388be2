"""The decision when and how to fine-tune: the lecture's table of four quadrants, with both of its sides measured.

*Size*: images per class over the parameters per class that would be tuned, that is images over parameters.
*Similarity* to what the backbone was trained on: whether a classifier on features of lower layers loses less than one
on those of the highest (see :mod:`tl_dagster.strategy.probes`). docs/strategy.md says how the thresholds were
chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tl_dagster.runtime.errors import InputError
from tl_dagster.strategy.decision import CELLS, Decision
from tl_dagster.strategy.probes import Probe

__all__ = ["GAIN", "SIZE", "Size", "decide"]

# Training images for each 10,000 parameters of the last stage: from here on a set is large.
SIZE = 2.0
# Share of the highest tap's log-loss that lower taps must save, and standard errors that it must be: a different task.
GAIN, ERRORS = 0.1, 2.0


@dataclass(frozen=True)
class Size:
    """The size of a training set.

    Attributes:
        images: training images.
        classes: their classes.
        parameters: number that fine-tuning the last stage would tune.
    """

    images: int
    classes: int
    parameters: int

    @property
    def measure(self) -> float:
        """Return images for each 10,000 parameters: the same as images per class for 10,000 parameters per class."""
        return self.images / max(self.parameters, 1) * 10_000


def decide(
    strategy: str, taps: Sequence[str], highest: str, size: Size, probes: Sequence[Probe], evidence: Mapping[str, Any]
) -> Decision:
    """Place the set in the table.

    The probes decide: the task is different when the best candidate with lower taps saves at least a tenth of the
    highest tap's log-loss, and that is at least two standard errors. The best candidate is the one with the lowest
    log-loss.

    Args:
        strategy: as declared; "auto", or the cell to take regardless of what is measured.
        taps: as declared.
        highest: the one of them that finishes last.
        size: of the training images.
        probes: of the candidates, the highest tap first; without any, the features of the highest tap are taken.
        evidence: further evidence to record (JSON-serialisable).

    Raises:
        InputError: features-low with one tap only.
    """
    if strategy == "features-low" and len(taps) < 2:
        raise InputError(
            f"backbone.taps: strategy 'features-low' needs a lower tap beside '{highest}', such as "
            "taps: [lower, higher]; or declare another transfer_strategy.strategy"
        )
    lower = _best(probes[1:])
    large = size.measure >= SIZE
    different = lower is not None and lower.gain >= _different_from(lower)
    measured = {
        (False, False): "features-high",
        (False, True): "features-low",
        (True, False): "fine-tune-top",
        (True, True): "fine-tune-all",
    }[large and bool(probes), different]
    cell = measured if strategy == "auto" else strategy
    features = {"features-high": (highest,), "features-low": lower.taps if lower else tuple(taps)}
    best = _best(probes)
    chosen = features.get(cell, best.taps if best else (highest,))
    recorded = {"measured_cell": measured, **_evidence(size, probes, lower), **evidence}
    row = CELLS[cell]
    return Decision(cell, row.quadrant, [*chosen], row.depth, row.epochs, row.learning_rate, recorded)


def _evidence(size: Size, probes: Sequence[Probe], lower: Probe | None) -> dict[str, Any]:
    return {
        "size": {**asdict(size), "images_per_10000_parameters": size.measure, "large_from": SIZE},
        "similarity": {
            "gain_of_lower_taps": lower.gain if lower else None,
            "standard_error": lower.standard_error if lower else None,
            "different_from": _different_from(lower) if lower else GAIN,
        },
        "probes": [{**asdict(probe), "taps": list(probe.taps)} for probe in probes],
    }


def _different_from(lower: Probe) -> float:
    return max(GAIN, ERRORS * lower.standard_error)


def _best(probes: Sequence[Probe]) -> Probe | None:
    """Return the probe with the lowest log-loss, of equal ones the first; None without any."""
    return min(probes, key=lambda probe: probe.log_loss, default=None)
