"""Tags by which runs are found."""

import subprocess
from pathlib import Path

from tests.conftest import Pipeline
from tl_dagster.graph.automation import decide
from tl_dagster.graph.tags import COMMIT, PIPELINE, TRIGGER, run_tags


def test_a_run_is_tagged_with_pipeline_commit_and_trigger(pipeline: Pipeline, tmp_path: Path):
    assert not {COMMIT} & run_tags("cells", tmp_path / "photos").keys()  # not a repository
    for command in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c", "--allow-empty"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert pipeline.run(upto="dataset").success
    (run,) = pipeline.instance.get_runs()
    assert run.tags[PIPELINE] == "cells" and run.tags[TRIGGER] == "manual"
    assert commit.stdout.startswith(run.tags[COMMIT])
    root = pipeline.store.root.parent
    request = decide(pipeline.instance, pipeline.declaration(), root, pipeline.store)
    assert request.tags[TRIGGER] == "schedule"
