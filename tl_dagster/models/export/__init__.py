"""Formats that a model is exported to: each module of this package is one, with a function ``export``."""

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tl_dagster.runtime.errors import InputError, suggest

if TYPE_CHECKING:
    from tl_dagster.models.classifier import ImageClassifier

__all__ = ["export_model", "list_formats"]


def list_formats() -> list[str]:
    """Return the names of the formats, which are those of their modules."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def export_model(classifier: "ImageClassifier", folder: Path, name: str) -> None:
    """Write a model in a format.

    Args:
        classifier: the model.
        folder: created where it does not exist.
        name: of the format.

    Raises:
        InputError: there is no such format, or the folder cannot be written.
    """
    if name not in list_formats():
        raise InputError(f"no export format '{name}': {suggest(name, list_formats())}")
    import_module(f"{__name__}.{name}").export(classifier, folder)
