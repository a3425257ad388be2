"""Sources of labelled images: each lists what it has as a table of uri, label, group and split.

Nothing is decoded here. A new source is a settings model in :mod:`tl_dagster.spec` and one function below.
"""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tl_dagster.errors import InputError, nearest
from tl_dagster.spec import Bins, FolderSource, ManifestSource

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SPLITS", "list_images", "signature"]

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def list_images(source: FolderSource | ManifestSource, root: Path) -> "pd.DataFrame":
    """List a source's images, sorted by uri.

    Args:
        source: the declared source.
        root: the project's root, that relative paths start from.

    Returns:
        Columns ``uri`` (absolute path), ``label`` (class name), ``group``, ``split`` (train, validation, test) and
        ``confidence`` (probability that the label is right); the last three None where the source gives none.

    Raises:
        InputError: the source is missing, empty, or has a single class.
    """
    frame = _folder(source, root) if isinstance(source, FolderSource) else _manifest(source, root)
    if frame.empty:
        raise InputError(f"{_location(source, root)} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    classes = sorted(frame["label"].unique())
    if len(classes) < 2:
        raise InputError(
            f"{_location(source, root)} has a single class, '{classes[0]}'; a classifier needs at least two: "
            "one sub-folder (or label) for each class"
        )
    return frame.assign(confidence=frame["confidence"].astype(float)).sort_values("uri", ignore_index=True)


def signature(source: FolderSource | ManifestSource, root: Path) -> list[tuple[str, int, int]]:
    """Path, size and mtime (ns) of a source's images and table, for noticing a change without reading them.

    Raises:
        InputError: as :func:`list_images`.
    """
    paths = [*list_images(source, root)["uri"]]
    if isinstance(source, ManifestSource):
        paths.append(str(_location(source, root)))
    return [(path, stat.st_size, stat.st_mtime_ns) for path in paths if (stat := _stat(path))]


def _stat(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except OSError:
        return None


def _location(source: FolderSource | ManifestSource, root: Path) -> Path:
    if isinstance(source, ManifestSource) and source.package:
        spec = importlib.util.find_spec(source.package)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(
                f"source.package: '{source.package}' is not installed here; "
                f"pip install {source.package.replace('_', '-')}"
            )
        return Path(next(iter(spec.submodule_search_locations)), source.path)
    return (root / Path(source.path).expanduser()).absolute()


def _folder(source: FolderSource, root: Path) -> "pd.DataFrame":
    import pandas as pd

    folder = _location(source, root)
    if not folder.is_dir():
        raise InputError(f"source.path: no folder {folder}; give a folder with one sub-folder of images per class")
    children = _subfolders(folder)
    given = {child.name: SPLITS[child.name.lower()] for child in children if child.name.lower() in SPLITS}
    # Only when every sub-folder is named like a split, and one of them train, are they splits: a class may be called
    # "test".
    classes: list[tuple[Path, str | None]]
    if len(given) == len(children) and "train" in given.values():
        classes = [(label, given[part.name]) for part in children for label in _subfolders(part)]
    else:
        classes = [(label, None) for label in children]
    rows = [(str(path), label.name, None, split, None) for label, split in classes for path in _images(label)]
    return pd.DataFrame(rows, columns=["uri", "label", "group", "split", "confidence"])


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
    )


def _manifest(source: ManifestSource, root: Path) -> "pd.DataFrame":
    import pandas as pd

    path = _location(source, root)
    table = _read_table(source, path)
    for field in ("uri", "label", "group", "split"):
        column = getattr(source, field)
        if column is not None and column not in table.columns:
            raise InputError(f"source.{field}: {path} has no column '{column}': {nearest(column, table.columns)}")
    missing = table[source.uri].isna() | table[source.label].isna()
    if missing.any():
        line = int(missing.to_numpy().argmax())
        raise InputError(
            f"{path}: row {line + 1} has an empty '{source.uri}' or '{source.label}'; fill it in or remove the row"
        )
    base = (root / source.root).absolute() if source.root else path.parent
    return pd.DataFrame(
        {
            "uri": [os.path.normpath(base / str(uri)) for uri in table[source.uri]],
            "label": _binned(table[source.label], source.bins, path)
            if source.bins
            else table[source.label].astype(str),
            "group": [None if value != value else str(value) for value in table[source.group]]
            if source.group
            else None,
            "split": _given_splits(table[source.split], path) if source.split else None,
            "confidence": _confidences(table[source.label], source.bins, path)
            if source.bins and source.bins.soft_targets
            else None,
        }
    )


def _read_table(source: ManifestSource, path: Path) -> "pd.DataFrame":
    import pandas as pd

    if not path.is_file():
        raise InputError(f"source.path: no file {path}; give a CSV, TSV or Parquet table of images and labels")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(
            path,
            sep=r"\s+" if source.separator == "whitespace" else source.separator,
            names=source.columns,
            header=None if source.columns else "infer",
            index_col=False,
            dtype=str,  # or one empty cell would turn group 1 into group 1.0, and move its images
            keep_default_na=False,
            na_values=[""],
        )
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a table: {error}; check `separator` and `columns`") from error


def _binned(values: "pd.Series", bins: Bins, path: Path) -> "pd.Series":
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.isna().any():
        bad = values[numbers.isna()].iloc[0]
        raise InputError(
            f"{path}: label '{bad}' is not a number, and `bins` cuts numbers; remove `bins` or mend the row"
        )
    return pd.Series([bins.names[sum(value >= edge for edge in bins.edges)] for value in numbers], index=values.index)


def _confidences(values: "pd.Series", bins: Bins, path: Path) -> "pd.Series":
    """The probability of a row's own class, from that of the second of two."""
    import pandas as pd

    values = pd.to_numeric(values)  # that they are numbers was seen when they were binned
    outside = values[~values.between(0, 1)]
    if len(outside):
        raise InputError(
            f"{path}: {outside.iloc[0]} is no probability, and bins.soft_targets takes the column as one; remove it"
        )
    second = values >= bins.edges[0]
    return values.where(second, 1 - values).astype(float)


def _given_splits(values: "pd.Series", path: Path) -> list[str | None]:
    named = [None if value != value or value == "" else str(value).strip().lower() for value in values]
    for name in named:
        if name is not None and name not in SPLITS:
            raise InputError(f"{path}: split '{name}': {nearest(name, SPLITS)}")
    return [None if name is None else SPLITS[name] for name in named]
