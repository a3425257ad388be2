"""A run goes on with the declarations it was started with, whatever becomes of their files meanwhile."""

import shutil

import dagster as dg
import pytest
import yaml

from tl_dagster import ArtifactStore, Declaration
from tl_dagster.graph.project import find_project
from tl_dagster.graph.records import PIPELINE, parse_records, record_pipeline


def edit(path, **changes):
    declared = yaml.safe_load(path.read_text())
    declared["attributes"].update(changes)
    path.write_text(yaml.dump(declared))


EDITS = {
    "another setting": lambda path: edit(path, splits={"test": 0.5}),
    "an asset more": lambda path: edit(path, scratch_baseline={}),
    "another name": lambda path: edit(path, name="other"),
    "half-written": lambda path: path.write_text(path.read_text() + "  splits: ["),
    "unknown field": lambda path: edit(path, spltis={}),
    "removed": lambda path: shutil.rmtree(path.parent),
    "copied": lambda path: shutil.copytree(path.parent, path.parent.with_name("copy")),
    "moved": lambda path: path.parent.rename(path.parent.with_name("moved")),
}


def versions(job):
    layer = job.asset_layer
    return {key: layer.get(key).code_version for key in layer.executable_asset_keys}


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_what_a_run_loads_again_is_what_it_was_started_with(project_here, change):
    project = find_project()
    job = project.get_job("first")
    before = versions(project.repositories[0].definition.get_job("first"))
    change(project_here / "assets" / "first" / "defs.yaml")
    assert versions(job.get_definition()) == before  # as the processes of steps do
    assert versions(find_project().get_job("second").get_definition())  # a new load reads the files


def test_steps_in_processes_use_the_declaration_of_their_run(project_here, store):
    job = find_project().get_job("first")
    edit(project_here / "assets" / "first" / "defs.yaml", splits={"test": 0.5, "validation": 0.1})
    wanted = [dg.AssetKey(["first", name]) for name in ("dataset", "augmented_splits")]
    config = {"execution": {"config": {"multiprocess": {}}}}
    with dg.instance_for_test() as instance:
        done = dg.execute_job(job, instance, config, asset_selection=wanted)
        assert done.success
        pinned = instance.get_execution_plan_snapshot(done.dagster_run.execution_plan_snapshot_id).repository_load_data
    assert any(key.startswith(PIPELINE) for key in pinned.reconstruction_metadata)  # whoever loads them for this run
    held = ArtifactStore().get_current("first", "augmented_splits")
    assert held.artifact.settings["splits"]["test"] == 0.3


def test_a_record_gives_the_same_declaration(monkeypatch):
    fields = {"source": {"kind": "folder", "path": "."}, "splits": {"folds": 5}, "augmentation": {"preset": "dihedral"}}
    declared = Declaration.model_validate({"name": "cells", **fields})
    with pytest.MonkeyPatch.context() as patch:
        kept = {}
        context = type(
            "Context", (), {"add_to_pending_reconstruction_metadata": lambda _, key, text: kept.update({key: text})}
        )
        patch.setattr("tl_dagster.graph.records.DefinitionsLoadContext.get", context)
        record_pipeline("here", declared)
    assert parse_records(kept) == {"here": declared}
    assert parse_records(kept)["here"].model_dump() == declared.model_dump()
