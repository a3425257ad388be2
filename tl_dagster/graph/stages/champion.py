"""The model in service: a newly trained one takes its place only where it is surely better."""

from collections.abc import Mapping
from typing import Any, ClassVar

from tl_dagster.graph import champions
from tl_dagster.graph.stage import Column, Stage, StageContext, require_same
from tl_dagster.store.artifacts import CHAMPION, MODEL, ArtifactSummary, Materialization

__all__ = ["Champion"]

NEW = "new"
COMPARED = [(MODEL, name) for name in ("id", "label", "split", "p0 …", "predicted")]


class Champion(Stage):
    """Compares predictions that are there already; no network runs."""

    name = CHAMPION
    version = champions.VERSION
    description = (
        "The model in service. A newly trained model takes its place only where it is surely better on the same test "
        "images; the decisions are a history that is only appended to. To roll back, or to decide by hand, materialize "
        "this asset with `put_in_service`."
    )
    kinds = frozenset({"scipy"})
    inputs = ("dataset", "top_model", MODEL, "evaluation")
    columns: ClassVar[Mapping[str, Column]] = {
        "decision": Column("int", "Its number."),
        "time": Column("string", "When it was taken, UTC."),
        "kind": Column("string", "promoted, kept or rolled back.", COMPARED),
        "in service": Column("string", "Fingerprint of the model in service from then on.", COMPARED),
        "reason": Column("string", "Why, with the numbers.", COMPARED),
    }
    run_config: ClassVar[Mapping[str, str]] = {
        "put_in_service": "Empty: judge the newly trained model. 'previous', or the number of a decision: roll back to "
        "the model that was in service then. 'new': the newly trained model, unproved.",
        "reason": "Why, in a sentence, for the history.",
    }

    def settings(self) -> dict[str, Any]:
        """Return the declared promotion."""
        return self.declaration.promotion.model_dump(mode="json", include={"confidence", "margin"})

    @classmethod
    def describe_result(cls, summary: ArtifactSummary) -> str:
        """Return the last decision."""
        return str(summary.metadata["reason"])

    def is_gated(self, context: StageContext) -> bool:
        """A model can be taken out of service whatever the state of what was trained since."""
        return context.config.get("put_in_service") in (None, "", NEW)

    def freshness_days(self) -> float | None:
        """Return the declared days."""
        return self.declaration.promotion.freshness_days

    def run(self, context: StageContext) -> Materialization:
        """Judge the same model on the same images once."""
        wanted, store, pipeline = context.config.get("put_in_service"), context.store, self.declaration.name
        reason, run = context.config.get("reason", ""), context.run.run_id
        if wanted == NEW:
            decisions = champions.promote(store, pipeline, reason, run)
        elif wanted:
            decisions = champions.roll_back(store, pipeline, wanted, reason, run)
        else:
            for name in ("dataset", "top_model", MODEL):
                require_same(context.inputs["evaluation"], name, context.inputs[name])
            decisions = champions.judge(store, pipeline, context.inputs, self.declaration.promotion, run)
        context.progress.log(decisions[-1].reason)
        return champions.materialize_decision(store, decisions)
