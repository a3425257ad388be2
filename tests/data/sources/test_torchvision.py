"""Data sets of torchvision: downloaded once from a server on 127.0.0.1, checked against their MD5, kept losslessly."""

import gzip
import hashlib
import io
import struct

import numpy as np
import pytest
from PIL import Image

from tests.data.sources.conftest import labels_of
from tl_dagster import InputError
from tl_dagster.data import files
from tl_dagster.runtime.libraries import import_torchvision

COUNTS = {"train": 6, "t10k": 4}


def idx(values: np.ndarray) -> bytes:
    """An array as the IDX files of MNIST hold it."""
    return gzip.compress(struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes())


@pytest.fixture
def fashion(server, monkeypatch):
    """FashionMNIST's class, its files made here: images of one grey each, ``COUNTS`` in its two parts."""
    resources = []
    for part, count in COUNTS.items():
        pixels = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
        parts = {"images-idx3": pixels, "labels-idx1": np.arange(count, dtype=np.uint8) % 3}
        for name, values in parts.items():
            content = idx(values)
            (server.folder / f"{part}-{name}-ubyte.gz").write_bytes(content)
            resources.append((f"{part}-{name}-ubyte.gz", hashlib.md5(content).hexdigest()))  # noqa: S324
    made = import_torchvision().datasets.FashionMNIST
    monkeypatch.setattr(made, "mirrors", [f"{server.url}/"])
    monkeypatch.setattr(made, "resources", resources)
    return made


def test_parts_labels_and_pixels(fashion, listing):
    listed = listing("torchvision", "FashionMNIST")
    assert listed["split"].value_counts().to_dict() == {"train": 6, "test": 4}
    assert labels_of(listed) == {"T-shirt/top": 4, "Trouser": 3, "Pullover": 3}
    figures = [Image.open(io.BytesIO(files.read(uri))) for uri in listed["uri"]]
    assert {picture.size for picture in figures} == {(28, 28)}
    assert sorted(picture.getextrema() for picture in figures) == sorted(
        [(grey, grey) for grey in [*range(6), *range(4)]]
    )


def test_the_second_listing_downloads_nothing(fashion, server, listing):
    before = listing("torchvision", "FashionMNIST")
    downloaded = server.gets()
    assert listing("torchvision", "FashionMNIST").equals(before) and server.gets() == downloaded > 0


def test_options_choose_one_part(fashion, listing):
    listed = listing("torchvision", "FashionMNIST", options={"train": False})
    assert len(listed) == 4 and listed["split"].isna().all()


def test_a_wrong_checksum(fashion, cache_folder, monkeypatch, listing):
    monkeypatch.setattr(fashion, "resources", [(name, "0" * 32) for name, _ in fashion.resources])
    with pytest.raises(InputError, match=r"FashionMNIST cannot be loaded: .*corrupted"):
        listing("torchvision", "FashionMNIST")
    assert not list(cache_folder.rglob("*.tar"))


def test_a_server_that_is_gone(fashion, server, listing):
    server.broken = {"ubyte.gz": (503, 99)}
    with pytest.raises(InputError, match="check the network"):
        listing("torchvision", "FashionMNIST")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("FashionMNITS", {}, "did you mean 'FashionMNIST'"),
        ("VisionDataset", {}, "cannot be loaded"),
        ("FakeData", {}, "cannot be loaded"),
        ("os", {}, "no data set 'os'"),
        ("FashionMNIST", {"trian": True}, "cannot be loaded: .*trian"),
    ],
)
def test_bad_names_and_options(fashion, listing, name, options, words):
    with pytest.raises(InputError, match=words):
        listing("torchvision", name, options=options)


def test_targets_that_are_no_classes(fashion, listing, monkeypatch):
    monkeypatch.setattr(fashion, "__getitem__", lambda self, number: (Image.new("L", (2, 2)), {"boxes": []}))
    with pytest.raises(InputError, match="not a set of images with one class each"):
        listing("torchvision", "FashionMNIST")
