"""Why assets ran, and would run: the cause is named, from what to what, through all assets between."""

import shutil

from tests.conftest import Pipeline
from tl_dagster.graph.causes import Cause, Explanation, explain_last, explain_now


def now(pipeline: Pipeline, **changes) -> dict[str, list[Cause]]:
    declaration = pipeline.declaration(**changes)
    explained = explain_now(pipeline.instance, pipeline.store, declaration, pipeline.store.root.parent)
    return {each.asset: list(each.causes) for each in explained if each.causes}


def last(pipeline: Pipeline, asset: str) -> Explanation:
    return explain_last(pipeline.instance, "cells", asset)


def test_from_the_first_run_on(pipeline: Pipeline):
    assert last(pipeline, "top_model").causes == ()
    assert now(pipeline)["dataset"] == [Cause("first")]
    pipeline.run()
    assert last(pipeline, "top_model").causes == [Cause("first")]
    assert now(pipeline) == {}

    other = {"top_model": {"l2": [0.3]}}
    would = now(pipeline, **other)
    assert would["top_model"] == [Cause("setting", "l2", [0.1], [0.3])]
    assert would["fine_tuned_model"] == [Cause("input", "top_model")]
    assert "bottleneck_features" not in would
    run = pipeline.run(**other)
    assert last(pipeline, "top_model").causes == [Cause("setting", "l2", [0.1], [0.3])]
    assert last(pipeline, "top_model").run_id == run.run_id
    (through,) = last(pipeline, "fine_tuned_model").causes
    assert (through.name, through.causes) == ("top_model", [Cause("setting", "l2", [0.1], [0.3])])

    pipeline.run(**other)  # nothing new: the last time that something was computed is the same
    assert last(pipeline, "top_model").run_id == run.run_id


def test_files_are_named(pipeline: Pipeline):
    pipeline.run()
    source = next((pipeline.photos / "functional").iterdir())
    (gone,) = sorted((pipeline.photos / "defective").iterdir())[:1]
    shutil.copy(source, pipeline.photos / "functional" / "new.png")
    (pipeline.photos / "functional" / "new.png").write_bytes(source.read_bytes() + b"\0")
    gone.unlink()
    new = str(pipeline.photos / "functional" / "new.png")
    kinds = {each.name: each for each in now(pipeline)["dataset"]}
    assert kinds["new"].a == kinds["gone"].a == 1
    assert kinds["new"].b[0].endswith("functional/new.png")
    pipeline.run()
    named = {each.name: each for each in last(pipeline, "dataset").causes}
    assert new.endswith(named["added"].b[0].removeprefix("file://")[-20:])
    (through,) = last(pipeline, "bottleneck_features").causes
    (dataset,) = through.causes
    assert [through.name, dataset.name] == ["augmented_splits", "dataset"]
    assert {each.name for each in dataset.causes} == {"added", "removed"}


def test_what_was_lost_is_no_change(pipeline: Pipeline):
    pipeline.run()
    shutil.rmtree(pipeline.store.layout.artifacts("top_model"))
    assert now(pipeline)["top_model"] == [Cause("lost")]
    pipeline.run()
    assert last(pipeline, "top_model").causes == [Cause("lost")]
