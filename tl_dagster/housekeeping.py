"""What may be deleted from a store: features of images that left every dataset."""

import json
from typing import TYPE_CHECKING

from tl_dagster.artifacts import ArtifactStore
from tl_dagster.features.cache import Column
from tl_dagster.stages.augmented_splits import AugmentedSplits, read_views
from tl_dagster.stages.dataset import Dataset, read_manifest

if TYPE_CHECKING:
    pass

__all__ = ["prune_features"]


def prune_features(store: ArtifactStore, *, dry_run: bool = False) -> tuple[int, int]:
    """Delete the cached features of images that no pipeline's dataset holds any more.

    Rows of present images stay, also those of settings that are not in use now. An image that comes back is computed
    anew. Nothing else should use the store meanwhile.

    Args:
        store: whose feature cache is pruned.
        dry_run: only count.

    Returns:
        Rows and bytes that are (or would be) freed.
    """
    import pandas as pd

    present: set[str] = set()
    for pipeline in (store.root / "refs").glob("*"):
        if held := store.read_ref(pipeline.name, Dataset.name):
            present |= set(read_manifest(held.artifact.path)["id"])
    artifacts = [path.parent for path in (store.root / "artifacts" / AugmentedSplits.name).glob("*/artifact.json")]
    views: list[pd.DataFrame] = [read_views(path)[["id", "key"]].drop_duplicates("key") for path in artifacts]
    if not views:
        return 0, 0
    known = pd.concat(views).drop_duplicates("key")
    gone = {bytes.fromhex(key) for key in known.loc[~known["id"].isin(present), "key"]}
    rows = freed = 0
    for described in (store.root / "features").glob("*/recipe.json"):
        column = Column(store.root / "features", json.loads(described.read_text()))
        dropped, size = column.drop(gone, dry_run=dry_run)
        rows, freed = rows + dropped, freed + size
    return rows, freed
