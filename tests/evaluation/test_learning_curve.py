"""The learning curve rises with the data, and takes each class along."""

import numpy as np

from tl_dagster.data.sampling import sample
from tl_dagster.evaluation.learning_curve import learning_curve


def clusters(count: int, seed: int):
    random = np.random.default_rng(seed)
    labels = random.integers(4, size=count)
    return (2 * np.eye(4, 20)[labels] + random.normal(size=(count, 20))).astype(np.float16), labels


def test_more_images_more_accuracy():
    curve = learning_curve(clusters(800, 0), clusters(400, 1), 4, 0.01)
    assert [point["fraction"] for point in curve] == [0.05, 0.1, 0.2, 0.5, 1.0]
    assert curve[-1]["images"] == 800 and curve[-1]["repeats"] == 1
    assert curve[-1]["accuracy"] > curve[0]["highest"] >= curve[0]["accuracy"] > 0.4
    assert curve == learning_curve(clusters(800, 0), clusters(400, 1), 4, 0.01)


def test_one_image_of_each_class_at_least():
    labels = np.r_[np.zeros(100, int), [1], np.full(40, 2)]
    counts = np.bincount(labels[sample(labels, 0.05, 0)])
    assert counts.tolist() == [5, 1, 2]
    assert sample(labels, 1.0, 3).tolist() == list(range(141))
    assert not np.array_equal(sample(labels, 0.5, 0), sample(labels, 0.5, 1))


def test_fractions_that_are_the_same_images_are_one():
    features, _ = clusters(4, 0)
    curve = learning_curve((features, np.arange(4)), (features, np.arange(4)), 4, 0.01)
    assert [point["images"] for point in curve] == [4] and curve[0]["repeats"] == 1
