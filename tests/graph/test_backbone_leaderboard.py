"""The leaderboard of backbones: filled by partitions, each image forwarded once for each backbone, nothing twice."""

import dagster as dg
import pandas as pd
import pytest
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from pydantic import ValidationError

from tests.conftest import QUIET, Pipeline
from tl_dagster.features.housekeeping import prune
from tl_dagster.graph.stages.backbone_leaderboard import TABLE
from tl_dagster.graph.tags import leaderboard_job
from tl_dagster.store.artifacts import LEADERBOARD

RANDOM = {"name": "timm/resnet18", "weights": "random:0", "image_size": 64}
DECLARED = {
    "backbones": [{"name": "timm/tf_efficientnet_lite0", "image_size": 64}, RANDOM],
    "taps": ["lower", "higher"],
    "poolings": ["avg", "max"],
}
LITE, RESNET = "timm/tf_efficientnet_lite0 image_size=64", "timm/resnet18 weights=random:0 image_size=64"


def fill(pipeline: Pipeline, first: str, last: str, **changes) -> dg.ExecuteInProcessResult:
    """Materialize a range of partitions in one run, as a backfill of the UI does."""
    declared = {"backbone_leaderboard": {**DECLARED, **changes}}
    definitions = pipeline.definitions(**declared)
    dg.Definitions.validate_loadable(definitions)  # the names of jobs and assets do not collide
    job = definitions.resolve_job_def(leaderboard_job("cells"))
    tags = {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
    return job.execute_in_process(instance=pipeline.instance, run_config=QUIET, tags=tags, raise_on_error=False)


def test_partitions_fill_the_table(pipeline: Pipeline):
    assert pipeline.run(upto="augmented_splits", backbone_leaderboard=DECLARED).success
    one = fill(pipeline, f"{LITE}|higher+avg", f"{LITE}|higher+avg")
    assert one.success
    held = pipeline.store.get_current("cells", LEADERBOARD)
    assert (held.computed, [row["tap"] for row in held.artifact.summary.tables[TABLE]]) == (1, ["higher"])
    others = fill(pipeline, f"{LITE}|lower+avg", f"{LITE}|higher+max")
    assert others.success
    log = [each.message for each in pipeline.instance.all_logs(others.run_id)]
    assert not any("to forward" in line for line in log)  # the first had forwarded the images for all layers

    every = fill(pipeline, f"{LITE}|lower+avg", f"{RESNET}|higher+max")
    events = every.asset_materializations_for_node(f"cells__{LEADERBOARD}")
    accuracies = {each.partition: each.metadata["accuracy"].value for each in events}
    assert len(accuracies) == 8
    held = pipeline.store.get_current("cells", LEADERBOARD)
    rows = held.artifact.summary.tables[TABLE]
    assert len(rows) == 8 and held.computed == 4
    assert rows[0]["accuracy"] == pytest.approx(max(accuracies.values()), abs=1e-3)
    assert rows[0]["may be the best"] == "yes" and rows[0]["points behind the best"].startswith("0.0")
    assert {row["GFLOP"] for row in rows if row["backbone"] == LITE} > {rows[0]["GFLOP"]}
    assert (held.artifact.path / "leaderboard.png").read_bytes().startswith(b"\x89PNG")

    (entry, _) = held.artifact.summary.parts[0]
    measured = pd.read_parquet(
        pipeline.store.layout.artifact(entry, held.artifact.summary.parts[0][1]) / "predictions.parquet"
    )
    views = pd.read_parquet(pipeline.held()["augmented_splits"].artifact.path / "views.parquet")
    assert set(measured["id"]) == set(views[views["split"] != "test"]["id"])

    prune(pipeline.store, artifacts=True, unused=True)
    again = fill(pipeline, f"{LITE}|lower+avg", f"{RESNET}|higher+max")
    assert again.success and pipeline.store.get_current("cells", LEADERBOARD).reused


def test_a_layer_that_a_backbone_lacks_is_refused_before_any_work(pipeline: Pipeline):
    assert pipeline.run(upto="augmented_splits").success
    failed = fill(pipeline, f"{LITE}|lower+avg", f"{RESNET}|layer9.9+max", taps=["lower", "layer9.9"])
    (event,) = [each for each in failed.all_events if each.is_step_failure]
    assert "has no tap 'layer9.9'" in event.step_failure_data.user_failure_data.description
    assert pipeline.store.get_current("cells", LEADERBOARD) is None
    assert not any(pipeline.store.layout.features.glob("*/*.arrow"))


def test_what_is_given_twice_is_refused(pipeline: Pipeline):
    with pytest.raises(ValidationError, match="'timm/resnet18' is given twice"):
        pipeline.declaration(backbone_leaderboard={"backbones": ["timm/resnet18", "timm/resnet18"]})
    assert pipeline.declaration(backbone_leaderboard={}).backbone_leaderboard.images == 3000
