"""An evaluation as a report: what was found, part by part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_dagster.reporting.findings import comparison, headline, model_title, paired, per_class
from tl_dagster.reporting.report import Picture, Section, Table, write_report

__all__ = [
    "CONFUSION",
    "CURVES",
    "MISTAKES",
    "RELIABILITY",
    "ROC",
    "SIZE",
    "SUSPECTS",
    "ReportContent",
    "write_evaluation",
]

CONFUSION, RELIABILITY, ROC = "Confusion matrices", "Reliability", "ROC curves"
CURVES, SIZE = "Learning curves", "Accuracy against training images"
MISTAKES, SUSPECTS = "Worst mistakes", "Label suspects"
MOST_CLASSES = 20

CAPTIONS = {
    CONFUSION: "each row is a true class, each cell how many of its test images were taken for what.",
    RELIABILITY: "a calibrated model is right as often as it is confident; points below the dotted line are too sure.",
    ROC: "how many images of a class are found, against how many others are taken for it, at every threshold.",
    CURVES: "the log-loss on the validation images decides what is kept.",
    SIZE: "where the curve still rises, more images would help. Seeded draws of 5, 10, 20, 50 and 100 % of each class.",
    MISTAKES: "true class → predicted class with its probability, the surest first.",
    SUSPECTS: "images whose label a classifier contradicts that was fitted without them; worth a second look.",
}
MEASURES = (
    "Intervals: 1,000 bootstrap draws of the test images, whole groups at a time. Balanced: the mean recall of the "
    "classes. Calibration error: the mean gap between confidence and accuracy in 15 bins. AUC: each class against the "
    "rest, the mean."
)


@dataclass(frozen=True)
class ReportContent:
    """What the report tells beside the numbers.

    Attributes:
        figures: title → file, in their order.
        notes: title → what is to be said of a picture in addition.
        strategy: the transfer strategy's sentence.
        quadrants: its picture, if there is one.
        metadata: name and text of how it all came about.
    """

    figures: Mapping[str, Path]
    notes: Mapping[str, str]
    strategy: str
    quadrants: Path | None
    metadata: Sequence[tuple[str, str]]


def write_evaluation(path: Path, title: str, found: Mapping[str, Any], told: ReportContent) -> None:
    """Write the report of an evaluation.

    Args:
        path: the HTML file.
        title: its heading.
        found: the content of metrics.json.
        told: pictures and facts.
    """
    write_report(
        path,
        title,
        headline(found),
        [
            Section("Models", table=comparison(found), note=MEASURES),
            Section("Is the difference real?", paired(found["comparisons"])),
            _strategy(told),
            _pictured("How good", told, (CONFUSION, RELIABILITY, ROC)),
            _classes(found),
            _pictured("Where it goes wrong", told, (MISTAKES, SUSPECTS)),
            _pictured("How it was trained", told, (CURVES, SIZE)),
            Section("How it came about", table=Table(told.metadata)),
        ],
    )


def _classes(found: Mapping[str, Any]) -> Section:
    last = model_title(list(found["models"])[-1])
    count = len(found["classes"])
    note = f"The {MOST_CLASSES} of least F1, of {count:,} classes." if count > MOST_CLASSES else ""
    return Section(f"Per class ({last})", table=per_class(found, MOST_CLASSES), note=note)


def _strategy(told: ReportContent) -> Section:
    if told.quadrants is None:
        return Section("Transfer strategy", [told.strategy])
    caption = "the size of the set, and how similar it is to what the backbone was trained on."
    return Section("Transfer strategy", [told.strategy], figures=[Picture("The set's place", told.quadrants, caption)])


def _pictured(title: str, told: ReportContent, wanted: Sequence[str]) -> Section:
    shown = [each for each in wanted if each in told.figures]
    said = [told.notes[each] for each in wanted if each in told.notes and each not in shown]
    captions = {each: " ".join([CAPTIONS[each], *filter(None, [told.notes.get(each)])]) for each in shown}
    return Section(title, said, figures=[Picture(each, told.figures[each], captions[each]) for each in shown])
