"""Results of the asset checks, from a manifest, splits or features. Thresholds are declared in `checks`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tl_dagster.data.manifest import CONFLICT, COPY, diff_manifests, usable
from tl_dagster.declaration import Checks
from tl_dagster.graph.stage import CheckResult
from tl_dagster.reporting.tables import MOST_ROWS, REJECTED, table_rows
from tl_dagster.store.artifacts import ArtifactSummary, TableRows

if TYPE_CHECKING:
    import pandas as pd


__all__ = [
    "are_acknowledged",
    "class_balance",
    "drift",
    "label_conflicts",
    "label_suspects",
    "leakage",
    "near_identical",
    "per_class",
    "readable",
]

STATISTICS = ("brightness", "contrast", "width", "height", "bytes")
FEWEST = 30  # images; with fewer, distributions are not compared


def readable(manifest: "pd.DataFrame", summary: ArtifactSummary, settings: Checks, sheet: str) -> CheckResult:
    """Check for files that cannot be used; a copy of an image that is used is not counted as lost.

    Args:
        manifest: the dataset.
        summary: of its artifact; has the table of rejected files.
        settings: the share of lost files above which the check blocks.
        sheet: title of the figure that shows the files.
    """
    rejected = manifest["problem"].notna()
    copies = int(manifest["problem"].str.startswith(COPY).sum())
    lost = int(rejected.sum()) - copies
    share = lost / len(manifest)
    description = f"files that cannot be used: {lost:,} of {len(manifest):,}"
    description += f"; copies of used images, left out: {copies:,}" if copies else ""
    blocking = share > settings.set_aside
    if blocking:
        description += (
            f"; that is more than checks.set_aside = {settings.set_aside:g}: repair them, or declare a larger share"
        )
    return CheckResult(
        passed=lost == 0,
        description=description,
        blocking=blocking,
        table=summary.tables.get("set_aside_files", ()),
        picture=sheet,
        metrics={"set_aside_share": share, "copies": copies},
    )


def label_conflicts(manifest: "pd.DataFrame") -> CheckResult:
    """Check for images that carry two labels."""
    rows = manifest[manifest["problem"].str.startswith(CONFLICT).fillna(False)]
    table = table_rows({name: rows[column] for name, column in REJECTED.items()})
    images = rows["id"].nunique()
    description = f"images under two labels: {images:,}" + ("; none of their copies is used" if images else "")
    return CheckResult(passed=rows.empty, description=description, table=table, metrics={"images": images})


def per_class(counts: "pd.Series", settings: Checks) -> CheckResult:
    """Check that each class has the declared number of usable images.

    Args:
        counts: usable images by class.
        settings: the number.
    """
    few = counts[counts < settings.per_class].sort_values()
    table = [{"class": str(label), "images": int(count)} for label, count in few.head(MOST_ROWS).items()]
    description = (
        f"{len(few):,} classes have fewer than {settings.per_class} usable images"
        if len(few)
        else f"each of {len(counts):,} classes has {counts.min():,} images or more"
    )
    return CheckResult(
        passed=few.empty, description=description, table=table, metrics={"smallest_class": int(counts.min())}
    )


def class_balance(counts: "pd.Series", settings: Checks) -> CheckResult:
    """Check that the largest class is not too large compared with the smallest.

    Args:
        counts: usable images by class, the largest first.
        settings: the largest ratio.
    """
    ratio = float(counts.max() / counts.min())
    description = (
        f"each of {len(counts):,} classes has {counts.max():,} images"
        if counts.nunique() == 1
        else f"'{counts.idxmax()}' has {ratio:.1f} times the images of '{counts.idxmin()}'"
    )
    if ratio > settings.imbalance:
        description += "; declare top_model.balanced: true, or add images of the small class"
    total = int(counts.sum())
    table = [
        {"class": str(label), "images": int(count), "share": round(float(count) / total, 4)}
        for label, count in counts.head(MOST_ROWS).items()
    ]
    return CheckResult(
        passed=ratio <= settings.imbalance,
        description=description,
        table=table,
        metrics={"largest_over_smallest": ratio},
    )


def drift(before: "pd.DataFrame | None", now: "pd.DataFrame", settings: Checks) -> CheckResult:
    """Check how far the class mix and image statistics moved since the last version of the data.

    Classes by total variation distance (half the sum of the changes of share); statistics by the two-sample
    Kolmogorov-Smirnov statistic (the largest gap between the cumulative distributions).
    """
    if before is None:
        return CheckResult(passed=True, description="the first version: nothing to compare with")
    old, new = usable(before), usable(now)
    shares = [rows["label"].value_counts(normalize=True) for rows in (old, new)]
    moved = {"class mix": float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2)}
    if min(len(old), len(new)) >= FEWEST:
        # Statistics that an earlier version of the stage did not compute are not compared.
        moved.update({name: _gap(old[name], new[name]) for name in STATISTICS if name in old})
    table = _drift_table(moved, old, new)
    far = [name for name, gap in moved.items() if gap > settings.drift]
    changes = diff_manifests(before, now)
    description = ", ".join(f"{count:,} {kind}" for kind, count in changes.items() if count) or "nothing changed"
    description += f"; moved more than checks.drift = {settings.drift:g}: {', '.join(far)}" if far else ""
    metrics = {**{name.replace(" ", "_"): gap for name, gap in moved.items()}, **changes}
    return CheckResult(passed=not far, description=description, table=table, metrics=metrics)


def _drift_table(moved: Mapping[str, float], old: "pd.DataFrame", new: "pd.DataFrame") -> TableRows:
    medians = {
        name: (f"median {old[name].median():,.1f}", f"median {new[name].median():,.1f}")
        for name in moved
        if name in STATISTICS
    }
    rows = [(name, round(gap, 4), *medians.get(name, ("", ""))) for name, gap in moved.items()]
    return [dict(zip(("what", "moved", "before", "now"), row, strict=True)) for row in rows]


def leakage(pairs: "pd.DataFrame", settings: Checks) -> CheckResult:
    """Check for near copies across splits; exact ones that the source puts into several are named as left out.

    Args:
        pairs: columns split_a, uri_a, split_b, uri_b, distance (bits of the perceptual hash), used (whether both are).
        settings: the consequence: a warning, or the end of the run.
    """
    leaks, repaired = int(pairs["used"].sum()), int((~pairs["used"]).sum())
    description = (
        f"near copies in two splits: {leaks:,} pairs; the measured accuracy is too good: "
        "remove one of each pair, or give them the same group or split"
        if leaks
        else "no used image has a copy or near copy in another split"
    )
    description += (
        f"; {repaired:,} files that the source also gives in another split were left out there" if repaired else ""
    )
    table = table_rows(
        {
            "image": pairs["uri_a"],
            "split": pairs["split_a"],
            "near copy": pairs["uri_b"],
            "its split": pairs["split_b"],
            "distance in bits": pairs["distance"],
            "state": pairs["used"].map({True: "both are used", False: "the second is left out"}).astype("str"),
        }
    )
    metrics = {"pairs": leaks, "left_out": repaired}
    return CheckResult(not leaks, description, settings.leakage == "stop", table, metrics=metrics)


def near_identical(pairs: TableRows, count: int, images: int, settings: Checks, sheet: str) -> CheckResult:
    """Check for held-out images whose features nearly equal those of a training or validation image.

    Args:
        pairs: rows of the table.
        count: images in it that are not acknowledged.
        images: all held-out images.
        settings: the share that may be so.
        sheet: title of the figure that shows the pairs.
    """
    description = (
        f"nearly the same features in two splits: {count:,} of {images:,} held-out images (mirrored, cropped or "
        "retouched copies look like this); give each such pair one group, or name it in checks.acknowledged"
        if count
        else "no images of two splits have nearly the same features"
    )
    passed = count <= settings.near_identical * images
    return CheckResult(passed, description, table=pairs, picture=sheet, metrics={"images": count})


def label_suspects(rows: TableRows, count: int, images: int, settings: Checks, sheet: str) -> CheckResult:
    """Check for images whose held-out prediction contradicts their label strongly.

    Args:
        rows: rows of the table.
        count: suspects in it that are not acknowledged.
        images: all images with a prediction.
        settings: the share that may be so.
        sheet: title of the figure that shows the suspects.
    """
    description = (
        f"{count:,} of {images:,} labels are contradicted strongly by a model that has not seen them; "
        "look at the first ones: correct or remove what is wrong, and name what is right in checks.acknowledged"
        if count
        else f"none of {images:,} labels is contradicted strongly by a model that has not seen it"
    )
    passed = count <= settings.label_suspects * images
    return CheckResult(passed, description, table=rows, picture=sheet, metrics={"suspects": count})


def are_acknowledged(ids: "pd.Series", uris: "pd.Series", names: Sequence[str]) -> "pd.Series":
    """Return which images are declared as right (bool, index of ``ids``).

    Args:
        ids: image ids.
        uris: their addresses.
        names: image ids, addresses, or the ends of them from a slash on.
    """
    ends = tuple(f"/{name.lstrip('/')}" for name in names)
    return ids.isin(names) | uris.map(lambda uri: f"/{uri}".endswith(ends)).astype(bool)


def _gap(before: "pd.Series", now: "pd.Series") -> float:
    """Return the two-sample Kolmogorov-Smirnov statistic."""
    from scipy.stats import ks_2samp

    return float(ks_2samp(before, now, method="asymp").statistic)
