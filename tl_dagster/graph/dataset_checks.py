"""Results of the checks of a dataset's classes and pixels: what the source names and the dataset does not show."""

from typing import TYPE_CHECKING, Any

from tl_dagster.data.manifest import usable
from tl_dagster.declaration import Checks
from tl_dagster.graph.checks import are_acknowledged
from tl_dagster.graph.stage import CheckResult
from tl_dagster.reporting.tables import MOST_ROWS, table_rows
from tl_dagster.runtime.errors import printable

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["classes", "contrast"]

NAMED = 3  # in a sentence; the table has the others
DARK, BRIGHT = 64, 192  # of 255: below or above, an image without contrast has its usual causes
DARK_CAUSE = "10, 12 or 14 bits in a file of 16 (scale them to 16), or an image without light"
BRIGHT_CAUSE = "a fourth band that is taken for transparency (save three bands), or an image of white"
EIGHT_BITS = ("JPEG", "MPO", "BMP", "DIB", "PCX")  # formats without 16 bits and transparency


def classes(manifest: "pd.DataFrame", skipped: "pd.DataFrame") -> CheckResult:
    """Check that each class that the source names has a usable image, and that no names of two classes look alike.

    Args:
        manifest: the dataset.
        skipped: what is not looked at; see :mod:`tl_dagster.data.skipped`.
    """
    from tl_dagster.data.labels import lost_classes, names_alike

    lost, images = lost_classes(manifest, skipped), usable(manifest)
    alike = {"class": names_alike(images["label"]), "group": names_alike(images["group"])}
    table = [
        {"what": "class", "name": row.label, "why": f"files: {row.files:,}; {row.reason}"} for row in lost.itertuples()
    ]
    for what, pairs in alike.items():
        table += [{"what": what, "name": name, "why": f"looks like '{other}'"} for name, other in pairs]
    sentences = [_describe_lost(lost)] if len(lost) else []
    sentences += [_describe_alike(what, pairs) for what, pairs in alike.items() if pairs]
    return CheckResult(
        passed=not sentences,
        description="; ".join(sentences) or "each class that the source names has usable images",
        blocking=bool(lost["missing"].any()),
        table=table[:MOST_ROWS],
        metrics={"lost_classes": len(lost), "names_alike": sum(map(len, alike.values()))},
    )


def _describe_lost(lost: "pd.DataFrame") -> str:
    named = [_describe_class(row) for row in lost.head(NAMED).itertuples()]
    return (
        f"classes that the source names and of which no image can be used: {_enumerate(named, len(lost))}; repair the "
        "files, or move such folders out of the source (a `pattern` may name the classes instead)"
    )


def _describe_class(row: Any) -> str:
    return f"'{row.label}' ({f'files: {row.files:,}, the first: ' if row.files else ''}{row.reason})"


def _describe_alike(what: str, pairs: list[tuple[str, str]]) -> str:
    named = _enumerate([f"'{name}' and '{other}'" for name, other in pairs[:NAMED]], len(pairs))
    return (
        f"names that differ by case, blanks or the form of characters alone: {what} {named}; if they mean the same, "
        "give them one name"
    )


def _enumerate(named: list[str], count: int) -> str:
    return printable(", ".join(named)) + (f" and {count - len(named):,} more" if count > len(named) else "")


def contrast(images: "pd.DataFrame", settings: Checks) -> CheckResult:
    """Check for images that show almost nothing once they are decoded, and name the usual causes.

    Args:
        images: usable rows of the manifest.
        settings: the least standard deviation of their brightness, and images that are right as they are.
    """
    flat = images[images["contrast"] < settings.contrast].sort_values(["contrast", "uri"])
    flat = flat[~are_acknowledged(flat["id"], flat["uri"], settings.acknowledged)]
    columns = {"file": "uri", "label": "label", "brightness": "brightness", "contrast": "contrast"}
    causes = _usual_causes(flat)
    table = table_rows({**{name: flat[column] for name, column in columns.items()}, "usual cause": causes})
    description = (
        f"{len(flat):,} of {len(images):,} images show almost nothing (contrast below checks.contrast = "
        f"{settings.contrast:g} of 255), usually: {'; '.join(causes.value_counts().index)}"
        if len(flat)
        else f"each image has a contrast of {settings.contrast:g} of 255 or more"
    )
    share = len(flat) / max(len(images), 1)
    return CheckResult(flat.empty, description, table=table, metrics={"low_contrast_share": share})


def _usual_causes(flat: "pd.DataFrame") -> "pd.Series":
    """Return why each image may show almost nothing (str), by its brightness and format."""
    dark, grey = flat["brightness"] < DARK, flat["brightness"].between(DARK, BRIGHT)
    causes = dark.map({True: DARK_CAUSE, False: BRIGHT_CAUSE}).astype("str")
    causes = causes.mask(flat["format"].isin(EIGHT_BITS), "wrongly exposed, or empty")
    return causes.mask(grey, "an empty scene")
