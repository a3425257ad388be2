"""Backbones, layers and poolings on equal terms: a cross-validated logistic regression on the features of each."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from tl_dagster.data.labels import class_indices, class_names
from tl_dagster.data.sampling import sample
from tl_dagster.evaluation.simultaneous import SimultaneousIntervals, compare_all
from tl_dagster.features.cache import FeatureColumn
from tl_dagster.store.digests import digest_columns
from tl_dagster.training.cross_validation import cross_validate, spread_folds

__all__ = ["Configuration", "Entry", "LeaderboardImages", "compare_entries", "measure", "read_entry", "select_images"]

FOLDS, ITERATIONS, STRENGTHS = 5, 50, (0.1, 0.01)  # as the transfer strategy's probes
ENTRY, PREDICTIONS = "entry.json", "predictions.parquet"


@dataclass(frozen=True, order=True)
class Configuration:
    """A place that features are taken from.

    Attributes:
        backbone: its title: the name, and what of its settings is not the default.
        tap: as declared.
        pooling: as declared.
    """

    backbone: str
    tap: str
    pooling: str


@dataclass(frozen=True)
class Entry:
    """The measure of a configuration.

    Attributes:
        accuracy: of the held-out predictions.
        log_loss: of them.
        l2: the chosen strength.
        width: features of an image.
        gflop: of an image, up to the tap; None where it could not be counted.
        megabytes: of the backbone's weights in float32.
        milliseconds: of an image, forward pass and decoding, for all taps of the backbone together; None: not known.
    """

    accuracy: float
    log_loss: float
    l2: float
    width: int
    gflop: float | None
    megabytes: float
    milliseconds: float | None


@dataclass(frozen=True)
class LeaderboardImages:
    """The images that all configurations are measured on.

    Attributes:
        views: the plain view of each: rows of augmented_splits.
        labels: (n,) class numbers.
        groups: (n,) str.
        folds: (n,) number of each image's fold.
    """

    views: pd.DataFrame
    labels: np.ndarray
    groups: np.ndarray
    folds: np.ndarray

    @cached_property
    def identity(self) -> str:
        """A digest of the images, labels, folds and groups."""
        rows = self.views[["key", "label"]].assign(fold=self.folds.astype(str), group=self.groups)
        return digest_columns(rows.reset_index(drop=True))

    def are_comparable(self) -> bool:
        """Return whether a class has images in two folds, so that some can be predicted from others."""
        pairs = np.unique(np.stack([self.labels, self.folds]), axis=1)[0]
        return len(np.unique(pairs)) < len(pairs)


def select_images(views: pd.DataFrame, groups: Callable[[pd.Series], np.ndarray], most: int) -> LeaderboardImages:
    """Return the images to measure on: of the training and validation splits, the same share of each class.

    The test split has no say in the choice of a backbone.

    Args:
        views: the table of augmented_splits.
        groups: image ids → the group of each.
        most: how many.
    """
    plain = views[(views["view"] == 0) & (views["split"] != "test")].sort_values("id").reset_index(drop=True)
    labels = class_indices(plain["label"], class_names(plain))
    if len(plain) > most:
        kept = sample(labels, most / len(plain), 0)
        plain, labels = plain.iloc[kept].reset_index(drop=True), labels[kept]
    own = groups(plain["id"])
    return LeaderboardImages(plain, labels, own, spread_folds(labels, own, FOLDS))


def measure(images: LeaderboardImages, column: FeatureColumn, costs: Mapping[str, float | None], folder: Path) -> Entry:
    """Measure a configuration, and write it with its predictions.

    Args:
        images: measured on.
        column: has their features.
        costs: gflop, megabytes and milliseconds of :class:`Entry`.
        folder: of the artifact.
    """
    rows = np.asarray(column.read(images.views["key"].tolist())[:], np.float32)
    found = cross_validate(rows, images.labels, images.folds, STRENGTHS, ITERATIONS)
    right = found.probabilities[found.known].argmax(1) == images.labels[found.known]
    entry = Entry(
        accuracy=float(right.mean()),
        log_loss=float(found.losses.mean()),
        l2=found.l2,
        width=rows.shape[1],
        **costs,  # type: ignore[arg-type]
    )
    (folder / ENTRY).write_text(json.dumps(asdict(entry), indent=1))
    kept = images.views["id"].iloc[found.known].reset_index(drop=True)
    table = pd.DataFrame({"id": kept, "group": images.groups[found.known], "right": right, "log_loss": found.losses})
    table.to_parquet(folder / PREDICTIONS)
    return entry


def read_entry(folder: Path) -> Entry:
    """Return what :func:`measure` wrote."""
    return Entry(**json.loads((folder / ENTRY).read_text()))


def compare_entries(folders: Sequence[Path]) -> SimultaneousIntervals:
    """Compare the configurations of some artifacts, all measured on the same images."""
    tables = [pd.read_parquet(folder / PREDICTIONS) for folder in folders]
    right = np.stack([table["right"].to_numpy() for table in tables])
    return compare_all(right, tables[0]["group"].to_numpy())
