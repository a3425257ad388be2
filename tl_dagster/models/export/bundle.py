"""The bundle: description, weights and the backbone's file in one folder, for ``ImageClassifier.load``."""

from pathlib import Path

from tl_dagster.models.classifier import ImageClassifier

__all__ = ["export"]


def export(classifier: ImageClassifier, folder: Path) -> None:
    """Write a folder that needs nothing else.

    Args:
        classifier: the model.
        folder: created where it does not exist.
    """
    classifier.save(folder, with_backbone=True)
