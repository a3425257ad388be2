"""What an image went into, what a model was made from, and that an image which was forgotten is nowhere any more."""

import json
from contextlib import nullcontext

import pytest
from click.testing import CliRunner

from tests.conftest import Pipeline
from tl_dagster.cli.main import group
from tl_dagster.features.image_lineage import find_image, trace_image
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.digests import digest_file


@pytest.fixture
def call(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tl_dagster.graph.history.open_instance", lambda: nullcontext(pipeline.instance))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(group, ["lineage", *arguments], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    return run


def test_an_image_and_a_model(pipeline: Pipeline, call):
    pipeline.run()
    photo = sorted(pipeline.photos.rglob("*.png"))[0]
    identity = digest_file(photo)
    found = json.loads(call(str(photo), "--json"))
    assert found["id"] == identity == find_image(pipeline.store, identity[:10])
    assert find_image(pipeline.store, f"defective/{photo.name}") == identity
    held = {each["asset"]: each["pipelines"] for each in found["artifacts"]}
    assert list(held)[:3] == ["dataset", "augmented_splits", "bottleneck_features"]
    assert {"top_model", "fine_tuned_model", "evaluation"} <= {name for name, by in held.items() if by == ["cells"]}
    (views,) = found["views"]
    assert max(each["rows"] for each in found["features"]) == views["views"]
    model = pipeline.held()["fine_tuned_model"].artifact
    assert [each["model"] for each in found["service"]] == [model.fingerprint]
    assert identity in call(f"defective/{photo.name}")

    made = json.loads(call("cells/fine_tuned_model", "--json"))
    assert [each["asset"] for each in made["made_from"]][:3] == ["dataset", "augmented_splits", "bottleneck_features"]
    assert made == json.loads(call(model.fingerprint[:10], "--json")) == json.loads(call(str(model.path), "--json"))
    assert made["service"][0]["until"] is None


def test_a_prediction(pipeline: Pipeline, call):
    pipeline.run()
    views = pipeline.features().views
    plain = views[views["view"] == 0].set_index("id")
    photos = {digest_file(path): path for path in pipeline.photos.rglob("*.png")}
    trained, tested = (plain.index[plain["split"] == split][0] for split in ("train", "test"))
    own = json.loads(call("cells", str(photos[trained]), "--json"))
    assert own["nearest"][0]["id"] == trained and own["nearest"][0]["distance"] < 0.02  # itself
    assert own["training_images"] == (plain["split"] == "train").sum()

    said = call("cells/top_model", str(photos[tested]))
    assert "defective" in said and "nearest of" in said
    other = json.loads(call("cells/top_model", str(photos[tested]), "--json"))
    assert abs(sum(other["probabilities"].values()) - 1) < 1e-6
    distances = [each["distance"] for each in other["nearest"]]
    assert len(distances) == 5 and distances == sorted(distances) and distances[0] > 0.1
    assert {plain.loc[each["id"], "split"] for each in other["nearest"]} == {"train"}
    for arguments, problem in (
        (["cells/dataset", str(photos[tested])], "dataset is no model"),
        (["cell", str(photos[tested])], "did you mean 'cells'"),
        (["cells", "nothing.png"], "nothing.png cannot be read"),
        (["cells", str(photos[tested]), "--forget"], "--forget is for one image"),
    ):
        with pytest.raises(InputError, match=problem):
            call(*arguments)


def test_a_forgotten_image_is_nowhere(pipeline: Pipeline, call):
    pipeline.run()
    photo = sorted(pipeline.photos.rglob("*.png"))[0]
    identity = digest_file(photo)
    model = pipeline.held()["fine_tuned_model"].artifact
    report = pipeline.held()["evaluation"].artifact.fingerprint
    counted = call(identity, "--forget", "--dry-run")
    assert "would be deleted" in counted and model.path.is_dir()

    said = call(identity, "--forget")
    assert "no model (decision 2: rolled back image" in said
    assert f"delete it from the source too, or the next run has it again: {photo}" in said
    assert "tl-dagster run cells" in said
    assert not model.path.exists()
    assert not pipeline.store.layout.report("cells", report).exists()
    rest = trace_image(pipeline.store, identity)
    assert (rest.rows, rest.views, rest.columns, rest.artifacts) == ([], [], [], [])

    photo.unlink()
    assert pipeline.run().success  # the first model is judged as such again
    assert pipeline.held()["champion"].artifact.summary.metadata["reason"].startswith("the first champion")
    assert trace_image(pipeline.store, identity).artifacts == []


def test_a_pipeline_of_which_no_model_was_judged(pipeline: Pipeline, call):
    pipeline.run(upto="augmented_splits")
    photo = sorted(pipeline.photos.rglob("*.png"))[0]
    assert [each["asset"] for each in json.loads(call(str(photo), "--json"))["artifacts"]] == [
        "dataset",
        "augmented_splits",
    ]


def test_what_is_not_there_is_said(pipeline: Pipeline, call):
    for arguments in (["nothing.png"], ["0123456789"], ["0" * 64], [__file__]):
        with pytest.raises(InputError, match="no image"):
            call(*arguments)
    pipeline.run()
    with pytest.raises(InputError, match="give a file, its id or its address"):
        call("functional/missing.png")
    with pytest.raises(InputError, match="--forget is for images"):
        call("cells/top_model", "--forget")
