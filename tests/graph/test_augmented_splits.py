"""An image's split: as the user runs it, while the source grows, shrinks and moves, and when the memory is lost."""

import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from tests.conftest import copy_photos
from tests.test_bad_input import failure
from tl_dagster.data.splits import read_views


def divided(pipeline, **changes) -> pd.Series:
    """The split of each image, by its id."""
    assert pipeline.run(upto="augmented_splits", **changes).success
    views = read_views(pipeline.held()["augmented_splits"].artifact.path)
    return views[views["view"] == 0].set_index("id")["split"]


def add_photos(photos, labels, count):
    """Make the classes larger: ``count`` images each."""
    shutil.rmtree(photos.parent / f"more-{count}", ignore_errors=True)
    more = copy_photos(photos.parent / f"more-{count}", labels, count)
    for path in more.rglob("*.png"):
        shutil.move(path, photos / path.relative_to(more))


def test_no_image_moves_while_the_source_grows_and_shrinks(pipeline, photos, labels):
    first = divided(pipeline)
    address = pipeline.held()["augmented_splits"].artifact.fingerprint
    add_photos(photos, labels, 43)
    grown = divided(pipeline)
    assert (grown[first.index] == first).all() and len(grown) == 86
    shares = grown.value_counts()
    assert abs(shares["test"] - 0.3 * 86) < 2 and abs(shares["validation"] - 0.3 * 86) < 2  # within one of each class
    shutil.rmtree(photos)
    copy_photos(photos, labels, 30)
    assert divided(pipeline).equals(first)
    held = pipeline.held()["augmented_splits"]
    assert held.reused and held.artifact.fingerprint == address
    add_photos(photos, labels, 43)
    assert divided(pipeline).equals(grown)


@pytest.mark.parametrize("lost", ["memory", "place"])
def test_the_pipelines_own_splits_count_where_nothing_is_remembered(lost, pipeline, photos, labels):
    """A store of before there was a memory, and a folder that was moved."""
    add_photos(photos, labels, 31)
    add_photos(photos, labels, 32)
    first = divided(pipeline)
    add_photos(photos, labels, 40)
    if lost == "memory":
        shutil.rmtree(pipeline.store.root / "splits")
    else:
        pipeline.settings["source"]["path"] = str(photos.rename(photos.with_name("moved")))
    grown = divided(pipeline)
    assert (grown[first.index] == first).all() and len(grown) == 80


def test_another_store_divides_what_came_in_the_same_order_the_same(pipeline, photos, labels):
    steps = []
    for _ in range(2):
        shutil.rmtree(pipeline.store.root / "splits", ignore_errors=True)
        shutil.rmtree(pipeline.store.root / "refs", ignore_errors=True)
        shutil.rmtree(photos)
        copy_photos(photos, labels, 30)
        divided(pipeline)
        add_photos(photos, labels, 37)
        steps.append(divided(pipeline))
    assert steps[0].equals(steps[1])


def write_classes(folder, classes, count):
    random = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"c{label:02d}").mkdir(parents=True)
        for number in range(count):
            coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            pixels = cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / f"c{label:02d}" / f"{number}.png"), pixels)


def test_small_classes_are_in_every_split(pipeline, tmp_path):
    write_classes(tmp_path / "small", 12, 15)
    pipeline.settings["source"]["path"] = str(tmp_path / "small")
    divided(pipeline, splits={"test": 0.15, "validation": 0.15})
    (table,) = pipeline.held()["augmented_splits"].artifact.summary.tables.values()
    assert {(row["train"], row["validation"], row["test"]) for row in table} == {(11, 2, 2)}


def test_a_refused_division_is_not_remembered(pipeline, tmp_path):
    write_classes(tmp_path / "small", 3, 2)
    pipeline.settings["source"]["path"] = str(tmp_path / "small")
    _, said = failure(pipeline)
    assert "class 'c00' has 2 usable images" in said and "each split needs a group of its own, and it has 2" in said
    assert not list((pipeline.store.root / "splits").rglob("*.parquet"))
