"""Views: the same on any worker, in any order."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tl_dagster import InputError
from tl_dagster.data.augmentation import MIRRORED, Augmenter
from tl_dagster.data.settings import Augmentation

PIXELS = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)


def test_same_on_any_worker_and_order():
    drawn = Augmenter(Augmentation(views=8))
    tasks = [(f"image{n}", view) for n in range(6) for view in range(8)]
    serial = {task: Augmenter(Augmentation(views=8)).draw(PIXELS, *task).tobytes() for task in reversed(tasks)}
    with ThreadPoolExecutor(4) as pool:
        parallel = dict(zip(tasks, pool.map(lambda task: drawn.draw(PIXELS, *task).tobytes(), tasks), strict=True))
    assert serial == parallel
    assert len(set(serial.values())) == 6 * 7 + 1  # view 0 is the plain image


def test_dihedral_views_are_the_eight_symmetries():
    drawn = Augmenter(Augmentation(preset="dihedral", views=8))
    assert len({drawn.draw(PIXELS, "a", view).tobytes() for view in range(8)}) == 8
    assert drawn.identity("a", 3) == Augmenter(Augmentation(preset="dihedral", views=8, seed=9)).identity("a", 3)


def test_each_ingredient_changes_the_identity_and_view_0_never():
    base, changes = Augmentation(), [Augmentation(seed=1), Augmentation(transforms=[{"VerticalFlip": {}}])]
    for other in changes:
        assert Augmenter(other).identity("a", 1) != Augmenter(base).identity("a", 1)
        assert Augmenter(other).identity("a", 0) == Augmenter(base).identity("a", 0)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"HorizontalFlop": {}}, "did you mean 'HorizontalFlip'"),
        ({"HorizontalFlip": {"q": 1}}, "HorizontalFlip: .*q"),
        ({"CenterCrop": {"height": 8, "width": 8}}, "end with a Resize"),
    ],
)
def test_bad_transforms(step, words):
    with pytest.raises(InputError, match=words):
        Augmenter(Augmentation(transforms=[step])).draw(PIXELS, "a", 1)


def test_the_mirror_image_is_the_same_view_whatever_the_augmentation():
    lecture, dihedral = Augmenter(Augmentation(test_views="mirrored")), Augmenter(Augmentation(preset="dihedral"))
    assert (lecture.draw(PIXELS, "a", MIRRORED) == PIXELS[:, ::-1]).all()
    assert (dihedral.draw(PIXELS, "a", MIRRORED) == PIXELS[:, ::-1]).all()
    assert lecture.identity("a", MIRRORED) == dihedral.identity("a", MIRRORED) == dihedral.identity("a", 4)
