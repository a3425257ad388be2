"""Views to draw: where an image lies, and which of its views is meant."""

from dataclasses import dataclass

import pandas as pd

from tl_dagster.data.manifest import image_uris

__all__ = ["View", "views_to_draw"]


@dataclass(frozen=True)
class View:
    """One view to draw: where the image is, which view of it, and its identity (the cache's key)."""

    uri: str
    image_id: str
    index: int
    key: str


def views_to_draw(table: pd.DataFrame, manifest: pd.DataFrame) -> list[View]:
    """Views by where their images lie now.

    Args:
        table: rows of augmented_splits.
        manifest: the dataset's images.
    """
    places = image_uris(manifest).to_dict()
    rows = zip(table["id"], table["view"], table["key"], strict=True)
    return [View(places[identity], identity, int(view), key) for identity, view, key in rows]
