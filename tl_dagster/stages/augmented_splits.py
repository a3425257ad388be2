"""Which images train, validate and test, and the views of each. No pixels."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tl_dagster.artifacts import Materialized, Outcome
from tl_dagster.data.augmentation import Views, transforms
from tl_dagster.data.manifest import usable
from tl_dagster.data.splits import assign, views
from tl_dagster.features.catalogue import look_up
from tl_dagster.stages.base import Stage, Work
from tl_dagster.stages.dataset import read_manifest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AugmentedSplits", "read_views"]

VIEWS = "views.parquet"


class AugmentedSplits(Stage):
    """One row per view: image, split, view index, and the identity of its pixels."""

    name = "augmented_splits"
    recipe = 1
    description = (
        "One row per view of each image: its split, its index (0 is the plain image), and the identity of its pixels."
    )
    kinds = frozenset({"parquet"})
    reads = ("dataset",)
    columns: ClassVar[Mapping[str, str]] = {
        "id": "string",
        "label": "string",
        "confidence": "float",
        "split": "string",
        "view": "int",
        "key": "string",
    }

    def settings(self) -> dict[str, Any]:
        """Fractions, views and transforms, with presets written out."""
        augmentation = self.declaration.augmentation
        return {
            "splits": self.declaration.splits.model_dump(mode="json"),
            "augmentation": {**augmentation.model_dump(mode="json"), "transforms": transforms(augmentation)},
        }

    def run(self, work: Work) -> Materialized:
        """Its data version is its content: a change that moves no view stops here."""
        return self.find_or_build(work, self.fingerprint(work), lambda folder: self._write(work, folder))

    def _write(self, work: Work, folder: Path) -> Outcome:
        images = usable(read_manifest(work.inputs["dataset"].path))
        table = views(images, assign(images, self.declaration.splits), self.declaration.augmentation)
        drawn = Views(self.declaration.augmentation)
        drawn.check(look_up(self.declaration.backbone).resize(self.declaration.backbone).size)
        table["key"] = [
            drawn.identity(identity, view) for identity, view in zip(table["id"], table["view"], strict=True)
        ]
        table.to_parquet(folder / VIEWS)
        plain = table[table["view"] == 0]
        counts = plain.groupby(["label", "split"]).size().unstack(fill_value=0)
        content = table[["key", "split", "label", "confidence"]].itertuples(index=False, name=None)
        rows = "\n".join(f"{key} {split} {label} {confidence}" for key, split, label, confidence in content)
        return Outcome(
            rows=len(table),
            computed=len(table),
            metrics={
                f"{split}_images": int((plain["split"] == split).sum()) for split in ("train", "validation", "test")
            },
            facts={"images_per_class_and_split": {str(label): row.to_dict() for label, row in counts.iterrows()}},
            data_version=hashlib.sha256(rows.encode()).hexdigest(),
        )


def read_views(path: Path) -> "pd.DataFrame":
    """The table of an augmented_splits artifact: a DataFrame with the columns of :class:`AugmentedSplits`."""
    import pandas as pd

    return pd.read_parquet(path / VIEWS)
