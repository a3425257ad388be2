"""When and how to fine-tune, measured on the cached features of the training images."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_dagster.backbones.own_classifier import own_confidence
from tl_dagster.data.labels import class_indices, class_names
from tl_dagster.data.manifest import read_groups
from tl_dagster.data.splits import read_views
from tl_dagster.features.backbone_features import BackboneFeatures, open_columns
from tl_dagster.graph.stage import Stage, StageContext
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import ArtifactSummary, Materialization
from tl_dagster.strategy.decide import DECISION, Decision, Size

if TYPE_CHECKING:
    from tl_dagster.store.artifacts import TableRows


__all__ = ["Decision", "TransferStrategy"]


PICTURE = "strategy.png"


class TransferStrategy(Stage):
    """Looks at plain training images only: neither validation nor test has a say."""

    name = "transfer_strategy"
    version = 3
    description = (
        "How large the set is and how similar to what the backbone was trained on, measured on cached features: which "
        "taps the top model reads, and how deep fine-tuning goes."
    )
    kinds = frozenset({"scikitlearn", "matplotlib"})
    inputs = ("dataset", "bottleneck_features")

    def settings(self) -> dict[str, Any]:
        """The declared strategy; verifying it changes nothing here."""
        return {"strategy": self.declaration.transfer_strategy.strategy}

    def run(self, work: StageContext) -> Materialization:
        """Measured once for the same features."""
        return self.find_or_build(work, self.fingerprint(work), lambda folder: self._measure(work, folder))

    def _measure(self, work: StageContext, folder: Path) -> ArtifactSummary:
        import numpy as np

        from tl_dagster.reporting.quadrants import quadrants
        from tl_dagster.strategy.decide import decide
        from tl_dagster.strategy.probes import fit_probes, stratified

        frozen = BackboneFeatures(self.declaration, work.store)
        views = read_views(work.inputs["bottleneck_features"].path)
        table = views[(views["split"] == "train") & (views["view"] == 0)]
        labels = class_indices(table["label"], class_names(views))
        keys = table["key"].tolist()
        columns = {
            tap: column.read(keys) for tap, column in open_columns(work.inputs["bottleneck_features"].path, work.store)
        }
        highest = _highest(frozen, list(columns))
        rows = stratified(labels, sum(column.width for column in columns.values()))
        features = {tap: column[rows] for tap, column in columns.items()}
        size = Size(len(labels), len(np.unique(labels)), _tuned_parameters(frozen, highest))
        work.progress.log(f"probing {len(rows):,} training images at {', '.join(columns)}")
        groups = read_groups(work.inputs["dataset"].path, table["id"].iloc[rows])
        probes = fit_probes(features, labels[rows], groups, highest)
        also = {"images_probed": len(rows), **own_confidence(frozen, features), "note": _note(probes, len(columns))}
        strategy = self.declaration.transfer_strategy.strategy
        decision = decide(strategy, list(columns), highest, size, probes, also)
        (folder / DECISION).write_text(json.dumps(asdict(decision), indent=1))
        quadrants(folder / PICTURE, decision)
        work.progress.log(f"{decision.cell}: {decision.quadrant}")
        return _told(decision, len(labels))


def _highest(frozen: BackboneFeatures, taps: list[str]) -> str:
    order = list(frozen.info.outputs)
    return max(taps, key=lambda tap: order.index(frozen.info.module(tap)))


def _tuned_parameters(frozen: BackboneFeatures, highest: str) -> int:
    """How many parameters lie between the boundary of depth "top" and the highest tap."""
    info, order = frozen.info, list(frozen.info.outputs)
    try:
        boundary = info.frozen_through([highest], "top")
    except InputError:  # no stage lies below: all of it would be tuned
        boundary = None
    first = -1 if boundary is None else order.index(info.module(boundary))
    last, count = order.index(info.module(highest)), 0
    for name, parameter in frozen.load().named_parameters():
        holder = name.rpartition(".")[0]
        while holder and holder not in info.outputs:
            holder = holder.rpartition(".")[0]
        place = order.index(holder) if holder else 0
        count += parameter.numel() if first < place <= last else 0
    return count


def _note(probes: list[Any], taps: int) -> str:
    if not probes:
        return (
            "no class has two training images of different groups: nothing can be cross-validated, so the features of "
            "the highest tap"
        )
    return "" if taps > 1 else "one tap: how similar the task is cannot be measured; add a lower tap to backbone.taps"


def _told(decision: Decision, images: int) -> ArtifactSummary:
    evidence = decision.evidence
    size, similarity = evidence["size"], evidence["similarity"]
    numbers = {
        "images_per_class": size["images"] / size["classes"],
        "tuned_parameters": size["parameters"],
        "size": size["images_per_10000_parameters"],
        "gain_of_lower_taps": similarity["gain_of_lower_taps"],
        "own_confidence": evidence["own_confidence"],
    }
    metadata = {
        "cell": decision.cell,
        "measured_cell": evidence["measured_cell"],
        "quadrant": decision.quadrant,
        "taps": decision.taps,
        "depth": decision.depth,
        **({"note": evidence["note"]} if evidence["note"] else {}),
    }
    if decision.cell != evidence["measured_cell"]:
        metadata["declared"] = f"{decision.cell} is declared; measured was {evidence['measured_cell']}"
    return ArtifactSummary(
        rows=images,
        computed=images,
        metrics={name: float(value) for name, value in numbers.items() if value is not None},
        metadata=metadata,
        figures={"The four quadrants": PICTURE},
        tables={"Probes": probes} if (probes := _rows(evidence["probes"])) else {},
    )


def _rows(probes: list[dict[str, Any]]) -> "TableRows":
    return [
        {
            "taps": ", ".join(each["taps"]),
            "log_loss": round(each["log_loss"], 4),
            "accuracy": round(each["accuracy"], 4),
            "gain": round(each["gain"], 4),
            "standard_error": round(each["standard_error"], 4),
            "l2": each["l2"],
        }
        for each in probes
    ]
