"""When and how to fine-tune, measured on the cached features of the training images."""

from pathlib import Path
from typing import Any

from tl_dagster.graph.engine import open_features
from tl_dagster.graph.stage import Stage, StageContext
from tl_dagster.store.artifacts import ArtifactSummary, Materialization

__all__ = ["TransferStrategy"]

PICTURE = "strategy.png"


class TransferStrategy(Stage):
    """Looks at plain training images only: neither validation nor test has a say."""

    name = "transfer_strategy"
    version = 4
    description = (
        "How large the set is and how similar to what the backbone was trained on, measured on cached features: which "
        "taps the top model reads, and how deep fine-tuning goes."
    )
    kinds = frozenset({"scikitlearn", "matplotlib"})
    inputs = ("dataset", "bottleneck_features")

    def settings(self) -> dict[str, Any]:
        """Return the declared strategy; verifying it changes nothing here."""
        return {"strategy": self.declaration.transfer_strategy.strategy}

    @classmethod
    def describe_result(cls, summary: ArtifactSummary) -> str:
        """Return the cell of the table, in its words, and which was measured when another is declared."""
        cell, measured = summary.metadata["cell"], summary.metadata["measured_cell"]
        declared = "" if cell == measured else f" (declared; measured was {measured})"
        return f"{cell}: {summary.metadata['quadrant']}{declared}"

    def run(self, context: StageContext) -> Materialization:
        """Measure once for the same features."""
        return self.find_or_build(context, self.fingerprint(context), lambda folder: self._measure(context, folder))

    def _measure(self, context: StageContext, folder: Path) -> ArtifactSummary:
        from tl_dagster.data.manifest import read_groups
        from tl_dagster.reporting.quadrants import quadrants
        from tl_dagster.reporting.strategy import summarize_decision
        from tl_dagster.strategy.decision import write_decision
        from tl_dagster.strategy.measure import measure_strategy

        engine, table = open_features(self.declaration, context)
        strategy, dataset = self.declaration.transfer_strategy.strategy, context.inputs["dataset"].path
        decision, images = measure_strategy(
            strategy, engine.features, table, lambda ids: read_groups(dataset, ids), context.progress
        )
        write_decision(folder, decision)
        quadrants(folder / PICTURE, decision)
        context.progress.log(f"{decision.cell}: {decision.quadrant}")
        return summarize_decision(decision, images, {"The four quadrants": PICTURE})
