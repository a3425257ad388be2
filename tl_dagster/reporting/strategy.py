"""The transfer strategy's decision as numbers, texts and a table for Dagster's UI."""

from collections.abc import Mapping
from typing import Any

from tl_dagster.store.artifacts import ArtifactSummary, TableRows
from tl_dagster.strategy.decision import Decision

__all__ = ["summarize_decision"]


def summarize_decision(decision: Decision, images: int, figures: Mapping[str, str]) -> ArtifactSummary:
    """Return the summary of a transfer_strategy artifact.

    Args:
        decision: with its evidence.
        images: training images.
        figures: title → file.
    """
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
        figures=figures,
        tables={"Probes": probes} if (probes := _rows(evidence["probes"])) else {},
    )


def _rows(probes: list[dict[str, Any]]) -> TableRows:
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
