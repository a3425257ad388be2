"""What a backbone sees: small pictures of any features, and channels chosen for the images that excite them."""

import numpy as np
import pytest
from PIL import Image

from tl_dagster.reporting.explanations import SHEET_BYTES, feature_map, strongest_channels, top_activating_images


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("width", [40, 600])  # PCA takes another solver for more than 500 features
def test_separate_classes_lie_apart(rng, tmp_path, width):
    numbers = np.arange(60 if width < 100 else 200) % 2
    features = (rng.normal(size=(len(numbers), width)) + 8 * numbers[:, None]).astype(np.float16)
    sentence = feature_map(tmp_path / "map.png", features, ["a" if number else "b" for number in numbers])
    assert sentence.startswith(f"t-SNE of the features of {len(numbers)} training images")
    assert f"100% have its label ({49 if width < 100 else 50}% by chance)" in sentence
    pixels = np.asarray(Image.open(tmp_path / "map.png").convert("RGB")).astype(int)[:, :560]
    centres = [np.argwhere(np.abs(pixels - color).sum(2) < 60).mean(0) for color in ((51, 34, 136), (204, 102, 119))]
    assert np.linalg.norm(centres[0] - centres[1]) > 150


def test_shuffled_labels_are_found_no_better_than_chance(rng, tmp_path):
    features = rng.normal(size=(400, 20))
    sentence = feature_map(tmp_path / "map.png", features, rng.choice(["a", "b"], 400).tolist())
    share, chance = (int(part.split("%")[0].split()[-1].strip("(")) for part in sentence.split(", ")[-1].split("have"))
    assert abs(share - chance) < 6


def test_many_images_of_many_classes_stay_small_and_the_same(rng, tmp_path):
    features = rng.normal(size=(5_000, 30)).astype(np.float16)
    labels = [f"class {number % 700}" for number in range(5_000)]
    assert "1,000 of 5,000 training images" in feature_map(tmp_path / "a.png", features, labels)
    feature_map(tmp_path / "b.png", features, labels)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").stat().st_size < 75_000  # base64 keeps it under 100 kB


@pytest.mark.parametrize(
    "features",
    [
        np.ones((1, 1)),
        np.array([[0.1], [0.2]]),
        np.full((50, 3), 0.1, dtype=np.float32),
        np.full((5, 0), 1.0),
        np.c_[np.arange(40.0), np.full(40, 7.0)],
        np.full((35, 4), 60_000, dtype=np.float16) * (np.arange(35) % 2)[:, None].astype(np.float16),
    ],
    ids=["one", "two", "all equal", "no columns", "a constant column", "large and alike"],
)
def test_degenerate_features_are_drawn(features, tmp_path):
    sentence = feature_map(tmp_path / "map.png", features, ["a"] * len(features))
    assert "nan" not in sentence
    drawn = np.asarray(Image.open(tmp_path / "map.png").convert("RGB"))[:, :560]
    assert drawn.min() < 100


def test_labels_are_drawn_as_they_stand(rng, tmp_path):
    labels = ["$x^{$", "_hidden", "a\nb", "蜂\x00", "שלום", "", "long " * 50, r"\$a$", "<b>"]
    feature_map(tmp_path / "map.png", rng.normal(size=(9, 5)), labels)
    assert Image.open(tmp_path / "map.png").size[0] == 688


def test_strongest_channels_are_alive_and_unlike(rng):
    values = rng.normal(size=(200, 6)).astype(np.float16)
    values[:, 0] = 3  # dead
    values[:, 2] = 0.01 * values[:, 2]
    values[[5, 9, 50, 70], 2] = [9, 8, 7, 6]
    values[:, 4] = values[:, 2] * 0.5  # the same again
    values[[11, 12, 13, 14], 5] = [20, 21, 22, 23]
    values[3, 1] = 1_000  # one outlier is no pattern
    found = strongest_channels(values, 2, 4)
    assert sorted(found) == [(2, [5, 9, 50, 70]), (5, [14, 13, 12, 11])]
    assert {channel for channel, _ in strongest_channels(values[:, [0, 2, 4]], 2, 4)} == {1, 2}


def test_an_image_is_shown_once(rng):
    values = rng.normal(size=(30, 3)).astype(np.float32)
    values[[4, 8], :] = [9.0, 1.0, 1.0]
    assert all(not {4, 8} <= set(rows) for _, rows in strongest_channels(values, 3, 5))
    assert strongest_channels(values[:1], 2, 5) == []
    assert [len(rows) for _, rows in strongest_channels(values[:3], 2, 5)] == [3, 3]


def test_the_most_exciting_image_comes_first(photos, tmp_path):
    places = [str(path) for path in sorted(photos.rglob("*.png"))]
    brightness = np.array([[np.asarray(Image.open(place)).mean()] for place in places], dtype=np.float32)
    values = np.where(brightness > np.sort(brightness, 0)[-6], brightness, 0)
    top_activating_images(tmp_path / "a.jpg", {"stage1": values}, places, ["x"] * len(places))
    sheet = np.asarray(Image.open(tmp_path / "a.jpg").convert("L"))
    shown = [sheet[8:112, 96 + 112 * column :][:, :104].mean() for column in range(5)]
    assert np.allclose(shown, np.sort(brightness[:, 0])[:-6:-1], atol=4)


def test_sheets_of_noise_stay_small(rng, tmp_path):
    places = []
    for number in range(40):
        places.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(rng.integers(0, 256, (104, 104, 3), dtype=np.uint8)).save(places[-1])
    stages = {f"stage{number}": rng.normal(size=(40, 30)).astype(np.float16) for number in range(1, 6)}
    top_activating_images(tmp_path / "a.jpg", stages, places, ["a\n$b$ " * 30] * 40)
    assert (tmp_path / "a.jpg").stat().st_size <= SHEET_BYTES
    top_activating_images(tmp_path / "one.jpg", {"s" * 80: np.ones((1, 4))}, ["/no"], ["\x00蜂"])
    assert Image.open(tmp_path / "one.jpg").width == 656
