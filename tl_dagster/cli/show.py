"""``tl-dagster show``: the artifacts of a pipeline."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tl_dagster.cli.pipelines import nothing_of

if TYPE_CHECKING:
    from tl_dagster.store.artifacts import ArtifactStore, Materialization

__all__ = ["command", "summarize"]

SCORES = ("accuracy", "macro_f1", "log_loss", "validation_log_loss", "training_seconds")


@click.command(short_help="Show the artifacts of a pipeline.")
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(pipeline: str, as_json: bool) -> None:
    """Show the current artifact of each asset of PIPELINE, and how it came about."""
    from tl_dagster.cli.tables import print_summary
    from tl_dagster.store.artifacts import ArtifactStore

    summary = summarize(pipeline, ArtifactStore())
    if as_json:
        click.echo(json.dumps(summary, indent=1))
    else:
        print_summary(summary)


def summarize(pipeline: str, store: "ArtifactStore") -> dict[str, Any]:
    """Return what a pipeline has now: each asset's result and last work, the models, and which is best and why.

    Args:
        pipeline: its name.
        store: the store of its artifacts.

    Returns:
        ``pipeline`` (str), ``assets`` (name → ``result``, ``data_version``, ``reused``, ``computed``, ``reused_rows``,
        ``seconds``, ``metrics``, ``path``), ``splits`` (name → ``images``, ``origin``: "given", "hashed", "given and
        hashed" or None), ``strategy`` (str or None), ``failed_checks`` (a list of ``asset``, ``name``, ``description``,
        ``blocking``), ``outdated`` (asset → inputs that have changed since), ``best`` (a model's name or None),
        ``reasons`` (sentences that say why the others were not taken), ``models`` (name → metric → float or None),
        ``verified_strategies`` (rows) and ``report`` (its file or None).

    Raises:
        InputError: nothing of the pipeline was materialized yet.
    """
    from tl_dagster.graph.stages import STAGES

    current = {stage.name: store.get_current(pipeline, stage.name) for stage in STAGES}
    assets = {name: asset for name, asset in current.items() if asset}
    if not assets:
        raise nothing_of(store, pipeline)
    results = {stage.name: stage.describe_result for stage in STAGES}
    strategy = assets.get("transfer_strategy")
    verification = assets.get("strategy_verification")
    return {
        "pipeline": pipeline,
        "assets": {
            name: {"result": results[name](asset.artifact.summary), **_describe(asset)}
            for name, asset in assets.items()
        },
        "splits": _describe_splits(assets.get("augmented_splits")),
        "strategy": results["transfer_strategy"](strategy.artifact.summary) if strategy else None,
        "failed_checks": [
            {"asset": name, **asdict(check)} for name, asset in assets.items() for check in asset.failed_checks
        ],
        "outdated": _find_outdated(assets),
        **_describe_models(assets.get("evaluation")),
        "verified_strategies": verification.artifact.summary.tables["Cells"] if verification else [],
        "report": _find_report(pipeline, store, assets.get("evaluation")),
    }


def _describe(asset: "Materialization") -> dict[str, Any]:
    return {
        "data_version": asset.artifact.data_version,
        "reused": asset.reused,
        "computed": asset.computed,
        "reused_rows": asset.reused_rows,
        "seconds": asset.seconds,
        "metrics": {name: float(value) for name, value in asset.artifact.summary.metrics.items()},
        "path": str(asset.artifact.path),
    }


def _describe_splits(splits: "Materialization | None") -> dict[str, dict[str, Any]]:
    if splits is None:
        return {}
    sizes, origins = splits.artifact.summary.metrics, splits.artifact.summary.metadata.get("split_origins", {})
    return {
        split: {"images": int(sizes[f"{split}_images"]), "origin": origins.get(split)}
        for split in ("train", "validation", "test")
    }


def _find_outdated(assets: "Mapping[str, Materialization]") -> dict[str, list[str]]:
    """Return the assets that were computed from other versions than those that are there now, and of what."""
    now = {name: asset.artifact.data_version for name, asset in assets.items()}
    changed = {
        name: [read for read, version in asset.artifact.inputs.items() if now.get(read, version) != version]
        for name, asset in assets.items()
    }
    return {name: inputs for name, inputs in changed.items() if inputs}


def _describe_models(evaluation: "Materialization | None") -> dict[str, Any]:
    """Return every trained model's test metrics, the best one's name, and why the others were not taken."""
    from tl_dagster.evaluation.results import METRICS, EvaluationResults

    if evaluation is None:
        return {"best": None, "reasons": [], "models": {}}
    artifact = evaluation.artifact
    results = EvaluationResults.from_json(json.loads((artifact.path / METRICS).read_text()))
    models = {
        name: {key: model.metric(key) for key in SCORES}
        | dict(zip(("accuracy_low", "accuracy_high"), model.intervals["accuracy"], strict=True))
        for name, model in results.models.items()
    }
    return {"best": results.best, "reasons": list(artifact.summary.metadata.get("reasons", ())), "models": models}


def _find_report(pipeline: str, store: "ArtifactStore", evaluation: "Materialization | None") -> str | None:
    report = store.layout.report(pipeline, evaluation.artifact.fingerprint) if evaluation else None
    return str(report) if report and report.exists() else None
