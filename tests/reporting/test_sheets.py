"""Contact sheets: every tile is drawn, whatever its file holds and its caption says."""

from PIL import Image

from tl_dagster.reporting.sheets import MOST_BYTES, contact_sheet


def test_broken_and_missing_images_are_crossed(photos, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    good = str(sorted(photos.rglob("*.png"))[0])
    contact_sheet(tmp_path / "sheet.jpg", [(good, "fine"), (str(broken), "a <b>\n|caption| that is long"), ("/no", "")])
    sheet = Image.open(tmp_path / "sheet.jpg")
    assert sheet.width > 3 * 104
    crossed = sheet.crop((8 + 112 + 4, 8 + 60, 8 + 112 + 20, 8 + 70)).getextrema()
    assert all(low > 120 for low, _ in crossed)


def test_many_tiles_stay_small(photos, tmp_path):
    paths = [str(path) for path in sorted(photos.rglob("*.png"))]
    contact_sheet(tmp_path / "sheet.jpg", [(path, path) for path in paths])
    assert (tmp_path / "sheet.jpg").stat().st_size <= MOST_BYTES
