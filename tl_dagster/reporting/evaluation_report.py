"""The report of an evaluation: its content is in the artifact; it is rendered for each pipeline that has it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tl_dagster.evaluation.results import METRICS, EvaluationResults
from tl_dagster.reporting.findings import class_table, comparison_sentences, headline, model_table, model_title
from tl_dagster.reporting.report import Picture, Section, Table, render_report

__all__ = [
    "CONFUSION",
    "CURVES",
    "MISTAKES",
    "RELIABILITY",
    "ROC",
    "SIZE",
    "SUSPECTS",
    "ReportContent",
    "ReportHead",
    "render_evaluation",
    "write_content",
]

CONTENT = "report.json"
CONFUSION, RELIABILITY, ROC = "Confusion matrices", "Reliability", "ROC curves"
CURVES, SIZE = "Learning curves", "Accuracy against training images"
MISTAKES, SUSPECTS = "Worst mistakes", "Label suspects"
MOST_CLASSES = 20

CAPTIONS = {
    CONFUSION: "each row is a true class; its cells count the test images by predicted class.",
    RELIABILITY: "a calibrated model is right as often as it is confident; below the dotted line it is overconfident.",
    ROC: "the true positive rate against the false positive rate, at every threshold.",
    CURVES: "the log-loss on the validation images decides which model is selected.",
    SIZE: "where the curve still rises, more images would help. Seeded draws of 5, 10, 20, 50 and 100 % of each class.",
    MISTAKES: "true class → predicted class with its probability, the most confident first.",
    SUSPECTS: "images whose label is contradicted by a classifier that was fitted without them; worth a second look.",
}
MEASURES = (
    "Intervals: 1,000 bootstrap draws of the test images, whole groups at a time. Balanced: the mean recall of the "
    "classes. Calibration error: the mean gap between confidence and accuracy in 15 bins. AUC: each class against the "
    "rest, the mean."
)


@dataclass(frozen=True)
class ReportContent:
    """The content of the report beside the results, the same for every pipeline that has this evaluation.

    Attributes:
        figures: title → file in the artifact, in their order.
        notes: title → a sentence that is added to the figure's caption, or stands alone without a figure.
        reasons: sentences that say why the other models were not taken.
        strategy: the transfer strategy in a sentence.
        quadrants: the transfer strategy's figure in the artifact, if there is one.
        provenance: (name, text) rows on how the models were made.
    """

    figures: Mapping[str, str]
    notes: Mapping[str, str]
    reasons: Sequence[str]
    strategy: str
    quadrants: str | None
    provenance: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ReportHead:
    """The head of one pipeline's report, beside the content.

    Attributes:
        pipeline: its name.
        byline: short facts: description, date, run, commit.
        settings: (field, value) rows of what is declared.
        all_settings: the whole declaration with its defaults, as YAML.
        links: (text, address relative to the report) of the files that belong to it.
    """

    pipeline: str
    byline: Sequence[str] = ()
    settings: Sequence[tuple[str, str]] = ()
    all_settings: str = ""
    links: Sequence[tuple[str, str]] = ()


def write_content(folder: Path, content: ReportContent) -> None:
    """Write the content of the report into an evaluation artifact."""
    (folder / CONTENT).write_text(json.dumps(asdict(content), indent=1))


def render_evaluation(folder: Path, head: ReportHead) -> str:
    """Return the report of an evaluation artifact as HTML.

    Args:
        folder: the artifact's.
        head: what the pipeline adds.
    """
    results = EvaluationResults.from_json(json.loads((folder / METRICS).read_text()))
    content = ReportContent(**json.loads((folder / CONTENT).read_text()))
    return render_report(
        f"{head.pipeline}: evaluation",
        head.byline,
        [*headline(results), *content.reasons],
        [
            Section("Models", table=model_table(results), note=MEASURES),
            Section("Is the difference real?", comparison_sentences(results)),
            _strategy_section(folder, content),
            _figure_section("How good", folder, content, (CONFUSION, RELIABILITY, ROC)),
            _class_section(results),
            _figure_section("Where it goes wrong", folder, content, (MISTAKES, SUSPECTS)),
            _figure_section("How it was trained", folder, content, (CURVES, SIZE)),
            Section("How it came about", table=Table(content.provenance)),
            Section("Settings", table=Table(head.settings), details=head.all_settings),
            Section("Files", links=head.links),
        ],
    )


def _class_section(results: EvaluationResults) -> Section:
    selected, count = model_title(list(results.models)[-1]), len(results.classes)
    note = f"The {MOST_CLASSES} of least F1, of {count:,} classes." if count > MOST_CLASSES else ""
    return Section(f"Per class ({selected})", table=class_table(results, MOST_CLASSES), note=note)


def _strategy_section(folder: Path, content: ReportContent) -> Section:
    figures = []
    if content.quadrants is not None:
        caption = "the size of the set, and how similar it is to what the backbone was trained on."
        figures.append(Picture("The set's place", folder / content.quadrants, caption))
    return Section("Transfer strategy", [content.strategy], figures=figures)


def _figure_section(heading: str, folder: Path, content: ReportContent, titles: Sequence[str]) -> Section:
    """Return a section of the figures that exist; of the others, the notes alone."""
    texts = [content.notes[title] for title in titles if title in content.notes and title not in content.figures]
    figures = [
        Picture(
            title, folder / content.figures[title], " ".join(filter(None, [CAPTIONS[title], content.notes.get(title)]))
        )
        for title in titles
        if title in content.figures
    ]
    return Section(heading, texts, figures=figures)
