"""Which images train, validate and test, and the views of each. No pixels."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tl_dagster.backbones.description import describe_backbone
from tl_dagster.graph.stage import CheckResult, Column, Stage, StageContext
from tl_dagster.graph.stages.dataset import source_context
from tl_dagster.store.artifacts import ArtifactSummary, Materialization
from tl_dagster.store.digests import digest, digest_columns

if TYPE_CHECKING:
    import pandas as pd

    from tl_dagster.data.split_memory import SplitMemory

__all__ = ["AugmentedSplits"]

SPLIT_NAMES = ("train", "validation", "test")


class AugmentedSplits(Stage):
    """One row per view: image, split, view index, and the identity of its pixels."""

    name = "augmented_splits"
    version = 3
    description = (
        "One row per view of each image: its split, its index (0 is the plain image), and the identity of its pixels."
    )
    kinds = frozenset({"parquet"})
    inputs = ("dataset",)
    columns: ClassVar[Mapping[str, Column]] = {
        "id": Column("string", "SHA-256 of the image's bytes.", [("dataset", "id")]),
        "label": Column("string", "Its class.", [("dataset", "label")]),
        "confidence": Column(
            "float", "Probability of the label; missing where the source gives none.", [("dataset", "confidence")]
        ),
        "split": Column(
            "string", "train, validation or test.", [("dataset", name) for name in ("id", "label", "group", "split")]
        ),
        "view": Column("int", "0: the plain image; -1: its mirror image; 1, 2 …: augmented."),
        "key": Column("string", "Identity of the view's pixels, by which features are cached.", [("dataset", "id")]),
    }
    check_descriptions: ClassVar[Mapping[str, str]] = {
        "leakage": "Copies and near copies that lie in two splits, such as given ones.",
    }
    blocking_checks = frozenset({"leakage"})

    def settings(self) -> dict[str, Any]:
        """Return fractions, views and transforms, with presets written out."""
        augmentation = self.declaration.augmentation
        return {
            "splits": self.declaration.splits.model_dump(mode="json"),
            "augmentation": {**augmentation.model_dump(mode="json"), "transforms": augmentation.steps},
        }

    @classmethod
    def describe_result(cls, summary: ArtifactSummary) -> str:
        """Return the size of each split, and where it comes from."""
        sizes, origins = summary.metrics, summary.metadata.get("split_origins", {})
        parts = [
            f"{sizes[f'{split}_images']:,.0f} {split}" + (f" ({origins[split]})" if split in origins else "")
            for split in SPLIT_NAMES
        ]
        return f"{', '.join(parts)}; {summary.rows:,} views"

    def run(self, context: StageContext) -> Materialization:
        """Its data version is its content: a change that moves no view stops here.

        What was assigned before determines the splits too, so the digest of the result is in the address.
        """
        from tl_dagster.data.split_memory import SplitMemory

        source, place = self.declaration.source, source_context(context.store, self.root)
        folder = context.store.layout.split_memory(digest([source.where(place), source.grouping()])[:32])
        memory = SplitMemory(folder, partial(self._present_splits, context))
        version = digest([self.versions(context), self.settings()["splits"]])[:32]
        known = memory.find(version)
        if known and (found := context.store.find(self.name, self._address(context, known))):
            return Materialization(found, reused=True, computed=0, reused_rows=found.summary.rows)
        with memory.lock():
            images, assigned = self._assign(context, memory)
            content = digest_columns(images[["id"]].assign(split=assigned))
            memory.write(version, content)
        write = partial(self._write, images, assigned)
        return self.find_or_build(context, self._address(context, content), write)

    def _address(self, context: StageContext, assigned: str) -> str:
        return self.fingerprint(context, {**self.settings(), "assigned": assigned})

    def _present_splits(self, context: StageContext) -> "pd.Series":
        """Return the splits that the pipeline's images have now, where nothing is remembered of their source yet."""
        from tl_dagster.data.split_memory import nothing
        from tl_dagster.data.splits import read_views

        present = context.previous
        if present is None or present.artifact.settings["splits"] != self.settings()["splits"]:
            return nothing()
        return read_views(present.artifact.path).drop_duplicates("id").set_index("id")["split"]

    def _assign(self, context: StageContext, memory: "SplitMemory") -> "tuple[pd.DataFrame, pd.Series]":
        """Return the usable images in the order of their ids, and the split of each."""
        from tl_dagster.data.manifest import read_manifest, usable
        from tl_dagster.data.splits import assign_splits

        images = usable(read_manifest(context.inputs["dataset"].path)).sort_values("id", ignore_index=True)
        return images, assign_splits(images, self.declaration.splits, memory)

    def _write(self, images: "pd.DataFrame", assigned: "pd.Series", folder: Path) -> ArtifactSummary:
        from tl_dagster.data.augmentation import Augmenter
        from tl_dagster.data.splits import list_views, split_origins, write_views
        from tl_dagster.reporting.figures import class_balance
        from tl_dagster.reporting.tables import table_rows

        table = list_views(images, assigned, self.declaration.augmentation)
        augmenter = Augmenter(self.declaration.augmentation)
        augmenter.check(describe_backbone(self.declaration.backbone).input_size(self.declaration.backbone))
        table["key"] = augmenter.identities(table["id"], table["view"])
        write_views(folder, table)
        counts = images.groupby(["label", assigned]).size().unstack(fill_value=0)[list(SPLIT_NAMES)]
        class_balance(folder / "class_balance.png", counts)
        balance = {"class": counts.index.to_series(), **{name: counts[name] for name in SPLIT_NAMES}}
        rows = table_rows({**balance, "all": counts.sum(axis=1)})
        return ArtifactSummary(
            rows=len(table),
            computed=len(table),
            metrics={f"{split}_images": int(counts[split].sum()) for split in SPLIT_NAMES},
            metadata={"split_origins": split_origins(images["split"], assigned)},
            figures={"Class balance": "class_balance.png"},
            tables={"images_per_class_and_split": rows},
            data_version=digest_columns(table[["key", "split", "label", "confidence"]]),
        )

    def run_checks(self, context: StageContext, materialization: Materialization) -> dict[str, CheckResult]:
        """Check whether near copies lie in two splits; rejected copies change no split, but this."""
        from tl_dagster.data.manifest import read_manifest, read_pairs
        from tl_dagster.data.near_copies import find_leaks
        from tl_dagster.data.splits import read_views
        from tl_dagster.graph import checks

        dataset = context.inputs["dataset"].path
        views = read_views(materialization.artifact.path)
        assigned = views[views["view"] == 0].set_index("id")["split"]
        leaks = find_leaks(read_manifest(dataset), read_pairs(dataset), assigned)
        return {"leakage": checks.leakage(leaks, self.declaration.checks)}
