"""What Dagster sees of the stages: before a run, and of a materialization."""

import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg

from tests.conftest import Pipeline

GPU = {"bottleneck_features", "fine_tuned_model"}


def test_definitions(pipeline: Pipeline):
    defs = pipeline.definitions()
    graph = defs.resolve_asset_graph()
    assert len(graph.get_all_asset_keys()) == 8
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert key.path[0] == node.group_name == "cells"
        assert node.description and node.kinds
        assert node.pools == ({"gpu"} if key.path[1] in GPU else set())
        assert ("tl_dagster/device" in node.tags) == (key.path[1] in GPU)
        assert (
            node.metadata["dagster/code_references"].code_references[0].file_path.endswith(f"stages/{key.path[1]}.py")
        )
    schema = graph.get(dg.AssetKey(["cells", "dataset"])).metadata["dagster/column_schema"]
    assert "problem" in {column.name for column in schema.columns}


def test_materializations(pipeline: Pipeline):
    result = pipeline.run()
    for event in result.get_asset_materialization_events():
        materialization = event.materialization
        metadata = materialization.metadata
        assert {"reused", "rows_computed", "rows_reused", "seconds", "dagster/row_count", "path"} <= set(metadata)
        assert materialization.tags["dagster/data_version"]
        for name, value in metadata.items():
            if isinstance(value, dg.MarkdownMetadataValue) and name != "why":
                assert value.value.startswith("![") and len(value.value) < 100_000
    (evaluation,) = result.asset_materializations_for_node("cells__evaluation")
    assert isinstance(evaluation.metadata["fine_tuned_model_accuracy"], dg.FloatMetadataValue)
    assert "Confusion matrices" in evaluation.metadata
    assert "fine-tuned model" in Path(evaluation.metadata["report"].value).read_text()


def _loaded(pipeline: Pipeline, *stages: str) -> set[str]:
    """Run the pipeline, or only some stages of it, in a process of its own; return the heavy libraries it imported."""
    code = f"""
import sys, dagster as dg
from pathlib import Path
from tl_dagster import ArtifactIOManager, Declaration, build_definitions
defs = dg.Definitions.merge(
    build_definitions(Declaration.model_validate({pipeline.settings!r}), Path(".")),
    dg.Definitions(resources={{"artifacts": ArtifactIOManager(root={str(pipeline.store.root)!r})}}),
)
selection = [dg.AssetKey(["cells", stage]) for stage in {stages!r}] or None
with dg.DagsterInstance.ephemeral() as instance:
    assert defs.resolve_job_def("cells").execute_in_process(instance=instance, asset_selection=selection).success
print(*(name for name in ("torch", "timm", "albumentations", "cv2", "matplotlib") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_reuse_loads_no_torch(pipeline: Pipeline):
    assert pipeline.run().success
    assert _loaded(pipeline) == set()
    assert all(held.reused for held in pipeline.held().values())
    # The artifact is written anew, with its figures, from features that are all in the cache.
    artifact = pipeline.held()["bottleneck_features"].artifact.path
    shutil.rmtree(artifact)
    loaded = _loaded(pipeline, "bottleneck_features")
    assert artifact.exists() and "matplotlib" in loaded and not loaded & {"torch", "timm"}
