"""The results of an evaluation as typed records, and their JSON form: the content of ``metrics.json``.

This module imports neither numpy nor pandas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

__all__ = [
    "LABEL_SUSPECTS",
    "METRICS",
    "ClassScores",
    "Comparison",
    "EvaluationResults",
    "LearningCurvePoint",
    "ModelResults",
]

# Files of an evaluation artifact.
METRICS, LABEL_SUSPECTS = "metrics.json", "label_suspects.parquet"


class _Record:
    """A dataclass that is read from a mapping; keys that it does not know are ignored."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the record of a mapping that has a key for each field."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class ClassScores(_Record):
    """A model's scores on one class.

    Attributes:
        precision: share of the images predicted as this class that belong to it.
        recall: share of the class's images that are predicted as it.
        f1: harmonic mean of precision and recall.
        support: test images of the class.
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ModelResults(_Record):
    """One model on the test split; :func:`tl_dagster.evaluation.metrics.measure` defines the metrics.

    Attributes:
        accuracy: share of the images predicted correctly.
        top5_error: None with fewer than six classes.
        balanced_accuracy: mean recall of the classes that occur.
        macro_f1: mean F1 of the classes that occur.
        log_loss: in nats.
        ece: expected calibration error.
        ece_by_chance: what it stays below in 95 % of all test splits of this size, were the model calibrated.
        auc: area under the ROC curve, mean over the classes; None where a class does not occur.
        per_class: in the order of the classes.
        intervals: metric → (low, high), the 95 % interval.
        validation_log_loss: None without validation images.
        training_seconds: None when unknown.
        confusion: (true class, predicted class, images) of each cell of the confusion matrix that is not 0.
    """

    accuracy: float
    top5_error: float | None
    balanced_accuracy: float
    macro_f1: float
    log_loss: float
    ece: float
    ece_by_chance: float
    auc: float | None
    per_class: Sequence[ClassScores]
    intervals: Mapping[str, tuple[float, float]]
    validation_log_loss: float | None
    training_seconds: float | None
    confusion: Sequence[tuple[int, int, int]]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the results of a mapping that has a key for each field."""
        nested = {
            "per_class": [ClassScores.from_json(scores) for scores in values["per_class"]],
            "intervals": {name: (low, high) for name, (low, high) in values["intervals"].items()},
            "confusion": [(row, column, images) for row, column, images in values["confusion"]],
        }
        return super().from_json({**values, **nested})

    def metric(self, name: str) -> float | None:
        """Return a metric, or the seconds of training, by the name of its field."""
        value: float | None = getattr(self, name)
        return value


@dataclass(frozen=True)
class Comparison(_Record):
    """Two models on the same test images; see :func:`tl_dagster.evaluation.bootstrap.compare`.

    Attributes:
        first: name of a model.
        second: name of the other.
        difference: the first's accuracy minus the second's.
        low: lower end of its paired 95 % interval.
        high: upper end.
        only_first: images that only the first predicts correctly.
        only_second: images that only the second predicts correctly.
        p_value: of McNemar's exact test.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True)
class LearningCurvePoint(_Record):
    """Test accuracy for a share of the training images.

    Attributes:
        fraction: share of each class.
        images: training images in a draw.
        accuracy: mean over the draws.
        lowest: the least accurate draw's.
        highest: the most accurate draw's.
        repeats: number of draws.
    """

    fraction: float
    images: int
    accuracy: float
    lowest: float
    highest: float
    repeats: int


@dataclass(frozen=True)
class EvaluationResults(_Record):
    """All models of a pipeline on the test split.

    Attributes:
        classes: class names.
        images: test images.
        groups: groups of test images, which the intervals draw.
        best: name of the model of lowest validation log-loss.
        models: name → results, from the simplest to the selected model.
        comparisons: each pair of models, the later one first.
        learning_curve: from few to all training images.
    """

    classes: Sequence[str]
    images: int
    groups: int
    best: str
    models: Mapping[str, ModelResults]
    comparisons: Sequence[Comparison]
    learning_curve: Sequence[LearningCurvePoint]

    @property
    def selected(self) -> ModelResults:
        """The results of the model that the pipeline selected: the last one."""
        return list(self.models.values())[-1]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the results that ``metrics.json`` holds."""
        nested = {
            "models": {name: ModelResults.from_json(model) for name, model in values["models"].items()},
            "comparisons": [Comparison.from_json(pair) for pair in values["comparisons"]],
            "learning_curve": [LearningCurvePoint.from_json(point) for point in values["learning_curve"]],
        }
        return super().from_json({**values, **nested})
