"""Views drawn ahead by threads and processes: the same, in order, decoded once, and nothing left behind."""

import hashlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tl_dagster import InputError
from tl_dagster.data.augmentation import Augmenter
from tl_dagster.data.decoding import Resize
from tl_dagster.data.settings import Augmentation
from tl_dagster.data.views import View
from tl_dagster.features import loading
from tl_dagster.features.loading import Loader

RESIZE = Resize(32, "squash", 1.0, "bilinear")


@pytest.fixture(params=["threads", "processes"])
def kind(request, monkeypatch):
    if request.param == "processes":
        monkeypatch.setattr(loading, "PROCESSES_FROM", 0)
    return request.param


def wanted(photos: Path, views: int) -> list[View]:
    files = sorted(photos.glob("*/*"))[:20]
    ids = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return [View(str(file), image, view, "") for file, image in zip(files, ids, strict=True) for view in range(views)]


@pytest.mark.parametrize("views", [1, 3, 40])  # of 40 views not even one image fits a batch
def test_views_come_in_order_and_images_are_decoded_once(kind, photos, views):
    draw, listed = Augmenter(Augmentation(views=views)), wanted(photos, views)
    with Loader(RESIZE, draw, batch_size=8, workers=2) as loader:
        taken = [(len(pixels), pixels.copy()) for pixels in loader.batches(listed)]
        again = [pixels.copy() for pixels in loader.batches(listed[5:9])]
    expected = [draw.draw(RESIZE(Path(v.uri).read_bytes()), v.image_id, v.index) for v in listed]
    assert (np.concatenate([pixels for _, pixels in taken]) == np.stack(expected)).all()
    assert (np.concatenate(again) == np.stack(expected[5:9])).all()
    assert {size for size, _ in taken[:-1]} <= {8}
    if views < 40:
        assert loader.images == 20 + len({view.uri for view in listed[5:9]})
    assert loader.decode > 0


def test_a_file_that_changed_is_told_by_name(kind, photos):
    listed = wanted(photos, 1)
    Path(listed[7].uri).write_bytes(b"other")
    with (
        Loader(RESIZE, Augmenter(Augmentation()), batch_size=4, workers=2) as loader,
        pytest.raises(InputError, match=Path(listed[7].uri).name),
    ):
        list(loader.batches(listed))


def test_a_killed_worker_is_told(photos, monkeypatch):
    monkeypatch.setattr(loading, "PROCESSES_FROM", 0)
    with Loader(RESIZE, Augmenter(Augmentation()), batch_size=4, workers=2) as loader:
        batches = loader.batches(wanted(photos, 3))
        next(batches)
        os.kill(next(iter(loader._pool._processes)), signal.SIGKILL)
        with pytest.raises(InputError, match=r"set compute.workers to a smaller number"):
            list(batches)


def test_an_error_elsewhere_does_not_wait_for_what_is_queued(kind, photos):
    """A hanging test here means that views were waited for which nobody draws any more."""
    listed = wanted(photos, 3) * 50
    with pytest.raises(ZeroDivisionError), Loader(RESIZE, Augmenter(Augmentation()), batch_size=8, workers=2) as loader:
        batches = loader.batches(listed)
        next(batches)
        raise ZeroDivisionError
    batches.close()
