"""The sheet of mistakes: the surest first, and drawn whatever became of the files."""

import numpy as np
from PIL import Image

from tl_dagster.reporting.mistakes import MOST_BYTES, Mistake, mistakes_sheet, worst_mistakes


def test_the_surest_mistakes_come_first():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9]])
    assert worst_mistakes(np.array([0, 0, 0, 0]), probabilities).tolist() == [3, 1, 2]
    assert len(worst_mistakes(np.array([0, 1, 1, 1]), probabilities)) == 0
    assert len(worst_mistakes(np.zeros(50, int), np.tile([0.3, 0.7], (50, 1)))) == 12


def test_gone_images_and_long_names(photos, tmp_path):
    seen, heat = np.full((64, 64, 3), 128, np.uint8), np.zeros((64, 64), np.float32)
    heat[:32] = 1
    path = str(next(photos.rglob("*.png")))
    mistakes = [Mistake(path, "a" * 200, "<b>$x", 0.97, seen, heat)] + [Mistake("/no", "a", "b", 0.9)] * 11
    mistakes_sheet(tmp_path / "m.jpg", mistakes)
    assert (tmp_path / "m.jpg").stat().st_size <= MOST_BYTES
    hot, cold = (np.asarray(Image.open(tmp_path / "m.jpg"))[y, 8 + 150 + 75].astype(int) for y in (40, 130))
    assert np.ptp(hot) > 40 > 20 > np.ptp(cold)
    mistakes_sheet(tmp_path / "plain.jpg", [Mistake("/no", "a", "b", 0.9)])
    assert Image.open(tmp_path / "plain.jpg").width < 200
