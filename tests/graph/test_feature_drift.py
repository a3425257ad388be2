"""Images that are new since the champion was trained, against its training images: on real photographs."""

import shutil

import numpy as np
from PIL import Image

from tests.conftest import Pipeline
from tl_dagster.graph import champions

LENIENT = {"set_aside": 0.5}


def get_check(result):
    (found,) = [each for each in result.get_asset_check_evaluations() if each.check_name == "feature_drift"]
    return found


def test_images_of_another_kind_are_noticed_and_named(pipeline: Pipeline, tmp_path):
    shutil.copy(sorted(pipeline.photos.rglob("*.png"))[1], pipeline.photos / "functional" / "copy.png")
    for number in range(2):
        (pipeline.photos / "functional" / f"broken{number}.png").write_bytes(b"")
    later = sorted(pipeline.photos.rglob("cell*.png"))[::4]
    for path in later:  # from among the others: those of other modules would be images of another kind
        path.rename(tmp_path / f"{path.parent.name}-{path.name}")
    first = get_check(pipeline.run(checks=LENIENT))
    assert first.passed and first.description == "no model is in service yet: nothing to compare with"
    if champions.find_in_service(pipeline.store, "cells") is None:
        champions.promote(pipeline.store, "cells", "whatever it is worth")
    assert get_check(pipeline.run(checks=LENIENT)).description == "no image is new since the champion was trained"

    for path in later:
        (tmp_path / f"{path.parent.name}-{path.name}").rename(path)
    alike = get_check(pipeline.run(checks=LENIENT, upto="bottleneck_features"))
    assert alike.passed and alike.metadata["new_images"].value == len(later)

    for path in later:
        path.rename(tmp_path / path.name)
    for path in sorted((pipeline.photos / "functional").glob("cell*.png"))[:10]:
        Image.fromarray(255 - np.array(Image.open(path))).save(path.with_name(f"inverted-{path.name}"))
    moved = get_check(pipeline.run(checks=LENIENT, upto="bottleneck_features"))
    assert not moved.passed and moved.metadata["p_value"].value < 0.01
    assert moved.description.startswith("10 images are new since the champion was trained")
    shown = [record.data["image"] for record in moved.metadata["table"].records]
    assert len(shown) == 10 and all("inverted-" in each for each in shown)
    held = pipeline.held()["bottleneck_features"]
    assert ("feature_drift", False) in [(each.name, each.blocking) for each in held.failed_checks]
