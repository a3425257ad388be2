"""Near-identical images by their features."""

import numpy as np

from tl_dagster.evaluation.near_identical import find_near_identical

RANDOM = np.random.default_rng(0)


def test_copies_are_found_nearest_first():
    training = RANDOM.normal(size=(500, 64)).astype(np.float16)
    held_out = RANDOM.normal(size=(100, 64)).astype(np.float16)
    held_out[7] = training[3] + 0.1 * RANDOM.normal(size=64)
    held_out[9] = training[400]
    rows, places, distance = find_near_identical(training, held_out)
    assert rows.tolist() == [9, 7] and places.tolist() == [400, 3]
    assert distance[0] < distance[1] < 0.5


def test_copies_are_found_when_all_are_copies():
    training = RANDOM.normal(size=(500, 64))
    held_out = training[:100] + 0.1 * RANDOM.normal(size=(100, 64))
    assert len(find_near_identical(training, held_out)[0]) == 100
    assert len(find_near_identical(training, held_out[:1])[0]) == 1
    assert len(find_near_identical(training, RANDOM.normal(size=(1, 64)))[0]) == 0


def test_the_inputs_are_not_changed():
    training = RANDOM.normal(size=(50, 8)).astype(np.float32)
    before = training.copy()
    find_near_identical(training, training[:10])
    assert (training == before).all()
