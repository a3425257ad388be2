"""The test of the transfer strategy: the other cells of its table are trained too."""

import json
from pathlib import Path
from typing import Any

from tl_dagster.declaration import Declaration
from tl_dagster.graph.stage import Stage, StageContext, require_same
from tl_dagster.graph.stages.fine_tuned_model import FineTunedModel
from tl_dagster.graph.stages.top_model import TopModel
from tl_dagster.graph.stages.transfer_strategy import TransferStrategy
from tl_dagster.store.artifacts import Artifact, ArtifactSummary, Materialization
from tl_dagster.strategy.decision import CELLS, read_decision
from tl_dagster.strategy.settings import TransferStrategy as Declared

__all__ = ["StrategyVerification"]

RESULTS, PICTURE = "verification.json", "verification.png"
CHAIN: tuple[type[Stage], ...] = (TransferStrategy, TopModel, FineTunedModel)


class StrategyVerification(Stage):
    """The cells' models are artifacts like all others: what the pipeline trained is reused, and the other way round."""

    name = "strategy_verification"
    version = 1
    description = (
        "Every cell of the transfer strategy's table, trained: the chosen one against the one with the best test "
        "accuracy. It changes no decision."
    )
    kinds = frozenset({"pytorch", "matplotlib"})
    inputs = ("dataset", "bottleneck_features", "transfer_strategy")
    gpu = True

    @classmethod
    def is_enabled(cls, declaration: Declaration) -> bool:
        """Only where it is declared."""
        return declaration.transfer_strategy.verify

    def settings(self) -> dict[str, Any]:
        """Return what the cells' models are trained with."""
        top_model, fine_tuning = (
            getattr(self.declaration, name).model_dump(mode="json") for name in ("top_model", "fine_tuning")
        )
        recipes = {kind.name: kind.version for kind in CHAIN}
        return {"top_model": top_model, "fine_tuning": {**fine_tuning, "depth": "auto"}, "recipes": recipes}

    @classmethod
    def describe_result(cls, summary: ArtifactSummary) -> str:
        """Return the chosen cell beside the best one."""
        chosen, best = summary.metadata["chosen"], summary.metadata["best"]
        return f"chosen {chosen}, best {best}: {summary.metrics['regret_points']:.1f} points of test accuracy below it"

    def versions(self, context: StageContext) -> dict[str, str]:
        """Where the images lie does not count."""
        return {name: context.inputs[name].data_version for name in ("bottleneck_features", "transfer_strategy")}

    def run(self, context: StageContext) -> Materialization:
        """Verify once for the same strategy and settings."""
        require_same(context.inputs["transfer_strategy"], "bottleneck_features", context.inputs["bottleneck_features"])
        return self.find_or_build(context, self.fingerprint(context), lambda folder: self._verify(context, folder))

    def _verify(self, context: StageContext, folder: Path) -> ArtifactSummary:
        from tl_dagster.reporting.quadrants import accuracies

        chosen = read_decision(context.inputs["transfer_strategy"].path).cell
        cells = [cell for cell in CELLS if cell != "features-low" or len(self.declaration.backbone.taps) > 1]
        rows = [{"cell": cell, **self._trained(cell, context)} for cell in cells]
        best = max(rows, key=lambda row: row["test_accuracy"])  # of equals the first: the one with less to train
        own = next(row for row in rows if row["cell"] == chosen)
        regret = 100 * (best["test_accuracy"] - own["test_accuracy"])
        results = {"chosen": chosen, "best": best["cell"], "regret_points": regret, "cells": rows}
        (folder / RESULTS).write_text(json.dumps(results, indent=1))
        accuracies(folder / PICTURE, rows, chosen)
        return ArtifactSummary(
            rows=len(rows),
            computed=len(rows),
            metrics={
                "regret_points": regret,
                **{f"{row['cell'].replace('-', '_')}_test_accuracy": row["test_accuracy"] for row in rows},
            },
            metadata={"chosen": chosen, "best": best["cell"]},
            figures={"Predicted and actual best": PICTURE},
            tables={"Cells": rows},
        )

    def _trained(self, cell: str, context: StageContext) -> dict[str, Any]:
        """Return one cell's accuracies, log-losses and seconds of training."""
        context.progress.log(f"verifying {cell}")
        artifacts: dict[str, Artifact] = dict(context.inputs)
        for kind in CHAIN:
            stage = kind(self._declared(cell), self.root)
            inputs = {name: artifacts[name] for name in stage.inputs}
            artifacts[stage.name] = stage.run(StageContext(context.store, inputs, context.progress, None)).artifact
        decision = read_decision(artifacts["transfer_strategy"].path)
        seconds = sum(
            artifacts[kind.name].summary.metrics.get("training_seconds", 0.0) for kind in (TopModel, FineTunedModel)
        )
        model = artifacts[FineTunedModel.name].path
        return {
            "taps": ", ".join(decision.taps),
            **_scores(model, "validation"),
            **_scores(model, "test"),
            "seconds": round(float(seconds), 1),
        }

    def _declared(self, cell: str) -> Declaration:
        # A declared depth would be the same in all cells.
        tuning = self.declaration.fine_tuning.model_copy(update={"depth": "auto"})
        forced = Declared.model_validate({"strategy": cell})
        return self.declaration.model_copy(update={"transfer_strategy": forced, "fine_tuning": tuning})


def _scores(model: Path, split: str) -> dict[str, float]:
    import numpy as np

    from tl_dagster.models.calibration import validate
    from tl_dagster.models.predictions import read_predictions

    _, truth, probabilities, _ = read_predictions(model, split)
    loss, accuracy = validate(probabilities, truth, np.arange(len(truth)))
    return {f"{split}_accuracy": accuracy, f"{split}_log_loss": loss}
