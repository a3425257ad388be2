"""Views to draw: where an image lies, and which of its views is meant."""

from typing import TYPE_CHECKING

from tl_dagster.data.manifest import image_uris
from tl_dagster.data.views import View
from tl_dagster.features.cache import FeatureColumn

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    SideOutput = tuple[FeatureColumn, np.ndarray]
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["View", "views_to_draw"]


def views_to_draw(table: "pd.DataFrame", manifest: "pd.DataFrame") -> list[View]:
    """Views by where their images lie now.

    Args:
        table: rows of augmented_splits.
        manifest: the dataset's images.
    """
    places = image_uris(manifest).to_dict()
    rows = zip(table["id"], table["view"], table["key"], strict=True)
    return [View(places[identity], identity, int(view), key) for identity, view, key in rows]


@dataclass(frozen=True)
class View:
    """One view to draw: where the image is, which view of it, and its identity (the cache's key)."""

    uri: str
    image_id: str
    index: int
    key: str
