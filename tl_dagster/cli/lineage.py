"""``tl-dagster lineage``: what an image went into, what a model was made from, what a prediction rests on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tl_dagster.runtime.errors import InputError

if TYPE_CHECKING:
    from tl_dagster.features.image_lineage import ImageLineage
    from tl_dagster.store.artifacts import Artifact, ArtifactStore

__all__ = ["command"]

SHORT = 12  # digits of a fingerprint
SHOWN = 5  # classes of a prediction


@click.command(short_help="Show what an image went into, a model was made from, or a prediction rests on.")
@click.argument("reference", metavar="IMAGE|MODEL")
@click.argument("image", metavar="[IMAGE]", required=False)
@click.option("--forget", is_flag=True, help="Delete all that an image went into: artifacts, features, reports.")
@click.option("--dry-run", is_flag=True, help="With --forget: only count.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(reference: str, image: str | None, forget: bool, dry_run: bool, as_json: bool) -> None:
    """Show where IMAGE lies, its views and features, and every artifact and champion that it went into.

    IMAGE is a file, an image id (or the first digits of it), or the end of an address. Of a MODEL, or any other
    artifact (PIPELINE/ASSET, a fingerprint, or its folder), show what it was made from: data, settings, versions.

    Of a MODEL, or a PIPELINE's model in service, and an IMAGE (a file or an address), show the prediction and the
    training images that look most like it to the backbone.
    """
    from tl_dagster.features.image_lineage import find_image, trace_image
    from tl_dagster.store.artifacts import ArtifactStore

    store = ArtifactStore()
    if image:
        if forget:
            raise InputError("--forget is for one image, which is given without a model")
        summary = _summarize_prediction(store, reference, image)
        click.echo(json.dumps(summary, indent=1)) if as_json else _echo(_describe_prediction(summary))
        return
    artifact = _find_artifact(store, reference)
    if artifact and forget:
        raise InputError("--forget is for images; to delete a model: tl-dagster prune --artifacts")
    if artifact:
        summary = _summarize_artifact(store, artifact)
        click.echo(json.dumps(summary, indent=1)) if as_json else _echo(_describe_artifact(summary))
        return
    lineage = trace_image(store, find_image(store, reference))
    if not lineage.rows and not lineage.views:
        raise InputError(f"no image '{reference}' is in the datasets of {store.root}: was its source ingested?")
    if forget:
        _echo(_forget(store, lineage, dry_run))
        return
    summary = _summarize_image(store, lineage)
    click.echo(json.dumps(summary, indent=1)) if as_json else _echo(_describe_image(summary))


def _echo(lines: Iterator[str]) -> None:
    for line in lines:
        click.echo(line)


def _find_artifact(store: "ArtifactStore", reference: str) -> "Artifact | None":
    """Return the artifact of a folder, of PIPELINE/ASSET, or of the first digits of a fingerprint."""
    folder = Path(reference)
    if (folder / "artifact.json").is_file():
        return store.find(folder.parent.name, folder.name)
    pipeline, _, asset = reference.partition("/")
    if pipeline in store.layout.pipelines() and (current := store.get_current(pipeline, asset)):
        return current.artifact
    found = [path.parent for path in store.layout.all_artifacts() if path.parent.name.startswith(reference)]
    if len(reference) < 6 or not found:
        return None
    if len(found) > 1:
        raise InputError(f"{len(found)} artifacts begin with '{reference}': give more digits")
    return store.find(found[0].parent.name, found[0].name)


def _summarize_prediction(store: "ArtifactStore", reference: str, image: str) -> dict[str, Any]:
    from dataclasses import asdict

    from tl_dagster.evaluation.prediction_lineage import trace_prediction

    model = _find_model(store, reference)
    traced = trace_prediction(store, model, image)
    return {"image": image, "model": str(model.path), **asdict(traced)}


def _find_model(store: "ArtifactStore", reference: str) -> "Artifact":
    """Return the model in service of a pipeline, its newest one while none is, or the model that is named."""
    from tl_dagster.cli.pipelines import nothing_of
    from tl_dagster.graph.champions import find_in_service
    from tl_dagster.store.artifacts import MODEL

    if reference in store.layout.pipelines():
        found = find_in_service(store, reference) or _find_artifact(store, f"{reference}/{MODEL}")
    else:
        found = _find_artifact(store, reference)
    if found is None:
        raise nothing_of(store, reference)
    if not (found.path / "model.json").is_file():
        raise InputError(f"{found.stage} is no model: give PIPELINE, PIPELINE/top_model or PIPELINE/{MODEL}")
    return found


def _describe_prediction(summary: dict[str, Any]) -> Iterator[str]:
    yield f"prediction for {summary['image']} by {summary['model']}"
    for name, probability in [*summary["probabilities"].items()][:SHOWN]:
        yield f"    {probability:.3f}  {name}"
    if (rest := len(summary["probabilities"]) - SHOWN) > 0:
        yield f"    and {rest} more classes"
    yield f"nearest of {summary['training_images']:,} training images, by the backbone's features"
    for each in summary["nearest"]:
        yield f"    {each['distance']:.2f}  {each['label']}  {each['uri']}"


def _summarize_artifact(store: "ArtifactStore", artifact: "Artifact") -> dict[str, Any]:
    from tl_dagster.store.lineage import find_above, find_holders, list_artifacts, list_service

    holders = find_holders(store)
    return {
        "artifact": str(artifact.path),
        "made_from": [
            {
                "asset": each.stage,
                "fingerprint": each.fingerprint,
                "rows": each.summary.rows,
                "settings": dict(each.settings),
                "feature_columns": list(each.summary.feature_columns),
                "origin": dict(each.origin),
                "pipelines": holders.get((each.stage, each.fingerprint), []),
            }
            for each in find_above(list_artifacts(store), artifact)
        ],
        "service": [
            {"pipeline": pipeline, "from": begin.time, "until": end.time if end else None}
            for pipeline, begin, end in list_service(store, {artifact.fingerprint})
        ],
    }


def _describe_artifact(summary: dict[str, Any]) -> Iterator[str]:
    from tl_dagster.runtime.settings import flatten

    yield summary["artifact"]
    for each in summary["made_from"]:
        held = f"; current in {', '.join(each['pipelines'])}" if each["pipelines"] else ""
        yield f"{each['asset']} {each['fingerprint'][:SHORT]}: {each['rows']:,} rows{held}"
        if each["origin"]:
            yield f"    written by {', '.join(f'{name} {value}' for name, value in each['origin'].items())}"
        for name, value in flatten(each["settings"]):
            yield f"    {name}: {json.dumps(value, ensure_ascii=False)}"
    yield from _describe_service(summary["service"])


def _describe_service(service: list[dict[str, Any]]) -> Iterator[str]:
    for each in service:
        until = f"until {each['until']}" if each["until"] else "and is"
        model = f" {each['model'][:SHORT]}" if "model" in each else ""
        yield f"in service{model}: {each['pipeline']}, from {each['from']} {until}"


def _summarize_image(store: "ArtifactStore", lineage: "ImageLineage") -> dict[str, Any]:
    from tl_dagster.store.lineage import find_holders, list_service

    holders = find_holders(store)

    def held(artifact: "Artifact") -> list[str]:
        return holders.get((artifact.stage, artifact.fingerprint), [])

    models = {each.fingerprint for each in lineage.artifacts}
    return {
        "id": lineage.id,
        "datasets": [
            {
                "fingerprint": row.dataset.fingerprint,
                "uri": row.uri,
                "label": row.label,
                "problem": row.problem,
                "pipelines": held(row.dataset),
            }
            for row in lineage.rows
        ],
        "views": [
            {
                "fingerprint": row.splits.fingerprint,
                "split": row.split,
                "views": len(row.keys),
                "pipelines": held(row.splits),
            }
            for row in lineage.views
        ],
        "features": [{"column": column.title, "rows": rows} for column, rows in lineage.columns],
        "artifacts": [
            {"asset": each.stage, "fingerprint": each.fingerprint, "pipelines": held(each)}
            for each in lineage.artifacts
        ],
        "service": [
            {
                "pipeline": pipeline,
                "model": begin.champion,
                "from": begin.time,
                "until": end.time if end else None,
            }
            for pipeline, begin, end in list_service(store, models)
        ],
    }


def _describe_image(summary: dict[str, Any]) -> Iterator[str]:
    def held(row: dict[str, Any]) -> str:
        return f"  (current in {', '.join(row['pipelines'])})" if row["pipelines"] else ""

    yield f"image {summary['id']}"
    for row in summary["datasets"]:
        state = f"not used: {row['problem']}" if row["problem"] else f"labelled '{row['label']}'"
        yield f"dataset {row['fingerprint'][:SHORT]}: {row['uri']}, {state}{held(row)}"
    for row in summary["views"]:
        yield f"augmented_splits {row['fingerprint'][:SHORT]}: {row['split']}, {row['views']} views{held(row)}"
    for row in summary["features"]:
        yield f"features: {row['rows']:,} rows of {row['column']}"
    for row in summary["artifacts"]:
        if row["asset"] not in ("dataset", "augmented_splits"):
            yield f"{row['asset']} {row['fingerprint'][:SHORT]}{held(row)}"
    yield from _describe_service(summary["service"])


def _forget(store: "ArtifactStore", lineage: "ImageLineage", dry_run: bool) -> Iterator[str]:
    from tl_dagster.cli.prune import describe
    from tl_dagster.features.image_lineage import forget_image
    from tl_dagster.graph.champion_events import record_decision
    from tl_dagster.graph.champions import withdraw
    from tl_dagster.graph.history import open_instance, require_no_runs
    from tl_dagster.store.lineage import find_holders, list_service

    holders = find_holders(store)
    pipelines = sorted({name for each in lineage.artifacts for name in holders.get((each.stage, each.fingerprint), [])})
    periods = list_service(store, {each.fingerprint for each in lineage.artifacts})
    service = [pipeline for pipeline, _, end in periods if end is None]
    with open_instance() as instance:
        if not dry_run:
            require_no_runs(instance)
        for pipeline in service if not dry_run else ():
            reason = f"image {lineage.id[:SHORT]} was forgotten, which this model was made from"
            yield f"{pipeline}: {record_decision(instance, store, pipeline, withdraw(store, pipeline, reason))}"
        freed = forget_image(store, lineage, dry_run=dry_run)
    yield f"image {lineage.id[:SHORT]}: {describe(freed, artifacts=True, dry_run=dry_run)}"
    if dry_run and service:
        yield f"taken out of service would be the models of: {', '.join(service)}"
    if former := len(periods) - len(service):
        yield f"one cannot roll back any more to models that were in service before: {former} times"
    for uri in sorted({row.uri for row in lineage.rows}):
        yield f"delete it from the source too, or the next run has it again: {uri}"
    for pipeline in pipelines:
        yield f"then retrain: tl-dagster run {pipeline}"
