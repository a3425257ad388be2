"""Metadata of assets for Dagster's UI."""

from pathlib import Path

import pandas as pd

from tests.conftest import Pipeline
from tl_dagster import Declaration
from tl_dagster.graph.metadata import static_metadata
from tl_dagster.graph.stages import STAGES
from tl_dagster.graph.stages.dataset import Dataset


def test_no_secret_of_a_url_is_in_the_settings_that_are_shown():
    url = "https://me:5ec4e7@host.example/photos.zip?signature=5ec4e7"
    declared = Declaration.model_validate({"name": "p", "source": {"kind": "archive", "path": url}})
    shown = static_metadata(Dataset(declared, Path()))["settings"].value["source"]
    assert shown["path"] == "https://host.example/photos.zip?…" and shown["kind"] == "archive"


def test_columns_name_columns_that_exist_above(pipeline: Pipeline):
    definitions = pipeline.definitions(owners=["me@host.example", "team:vision"], tags={"domain": "energy"})
    nodes = {
        key.path[-1]: definitions.resolve_asset_graph().get(key)
        for key in definitions.resolve_asset_graph().get_all_asset_keys()
    }
    assert all(node.owners == ["me@host.example", "team:vision"] for node in nodes.values())
    assert all(node.tags["domain"] == "energy" for node in nodes.values())
    assert nodes["fine_tuned_model"].tags["tl_dagster/device"] == "gpu"
    tables = {stage.name: stage for stage in STAGES if stage.columns}
    assert {"dataset", "augmented_splits", "bottleneck_features", "top_model", "fine_tuned_model"} < {*tables}
    for stage in tables.values():
        for column in stage.columns.values():
            for asset, above in column.origins:
                assert asset in stage.inputs and above in tables[asset].columns, (stage.name, above)


def test_a_run_and_what_it_wrote_name_each_other(pipeline: Pipeline):
    result = pipeline.run(upto="top_model")
    (event,) = result.asset_materializations_for_node("cells__top_model")
    lineage = event.metadata["dagster/column_lineage"].value.deps_by_column
    assert [(dep.asset_key.path, dep.column_name) for dep in lineage["id"]] == [
        (["cells", "bottleneck_features"], "id")
    ]
    assert event.metadata["written by"].value["run"] == result.run_id
    assert event.metadata["path"].value == str(pipeline.held()["top_model"].artifact.path)
    again = pipeline.run(upto="top_model")
    (event,) = again.asset_materializations_for_node("cells__top_model")
    assert event.metadata["written by"].value["run"] == result.run_id  # which computed it
    written = pd.read_parquet(pipeline.held()["top_model"].artifact.path / "predictions.parquet")
    assert {"id", "label", "split", "p0", "predicted"} <= {*written.columns}
