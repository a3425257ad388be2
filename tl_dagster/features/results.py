"""The outcome of an extraction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["ExtractionResult"]


@dataclass(frozen=True)
class ExtractionResult:
    """The work of an extraction.

    Attributes:
        views: views forwarded.
        images: images decoded.
        seconds: where the time went: decode and augment (of all workers together), forward, write, and wait (of the
            network, for pixels).
        views_per_second: from the first batch on; 0 when there was nothing to do.
        compiled: whether the network was compiled.
        difference: median and largest relative difference to fp32 of each column whose rows are not fp32.
    """

    views: int = 0
    images: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    views_per_second: float = 0.0
    compiled: bool = False
    difference: Sequence[Mapping[str, float]] = ()
