"""One loader for every image."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.data import corpus
from tl_dagster import InputError
from tl_dagster.data import decoding
from tl_dagster.data.decoding import Resize, image_id, inspect_image, read_verified, thumbnail

SQUASH = Resize(16, "squash", 1.0, "bicubic")


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_modes_become_rgb():
    grey = np.linspace(0, 255, 16 * 16).reshape(16, 16)
    reference = np.repeat(grey.astype(np.uint8)[:, :, None], 3, 2)
    assert (SQUASH(encoded(Image.fromarray(grey.astype(np.uint8)))) == reference).all()
    sixteen = SQUASH(encoded(Image.fromarray((grey * 257).astype(np.uint16))))
    assert np.abs(sixteen.astype(int) - reference).max() <= 1
    clear = SQUASH(encoded(Image.new("RGBA", (16, 16), (10, 20, 30, 0))))
    assert (clear == 255).all()
    assert SQUASH(encoded(Image.new("CMYK", (16, 16)), "JPEG")).shape == (16, 16, 3)


def test_look_tells_size_format_and_statistics():
    image = Image.new("L", (64, 64))
    image.paste(200, (32, 0, 64, 64))
    seen = inspect_image(encoded(image.resize((300, 200), Image.Resampling.NEAREST)))
    assert (seen.width, seen.height, seen.format, seen.problem) == (300, 200, "PNG", None)
    assert seen.brightness == pytest.approx(100, abs=1)
    assert seen.contrast == pytest.approx(100, abs=3)
    assert len(bytes.fromhex(seen.perceptual)) == 32


def test_the_perceptual_hash_outlives_encoding_and_tells_pictures_apart():
    def bits(image: Image.Image, kind: str, **options) -> np.ndarray:
        perceptual = inspect_image(encoded(image, kind, **options)).perceptual
        return np.unpackbits(np.frombuffer(bytes.fromhex(perceptual), dtype=np.uint8))

    one, other = (Image.fromarray(corpus.picture(name, (280, 200))) for name in ("one", "other"))
    same = bits(one, "PNG")
    assert (same != bits(one.resize((560, 400)), "JPEG", quality=80)).sum() <= 24
    assert (same != bits(other, "PNG")).sum() > 50


def test_exif_orientation_is_applied():
    upright = Image.new("RGB", (20, 10))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert inspect_image(encoded(turned, "JPEG", exif=exif)).width == 20


def test_crop_takes_the_centre():
    image = Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (10, 0, 30, 20))
    assert (Resize(20, "crop", 1.0, "bilinear")(encoded(image)) == 255).all()


@pytest.mark.parametrize("size", [(1, 1_000_000), (1_000_000, 1)])
def test_a_strip_is_not_enlarged_beyond_memory(size):
    image = Image.new("L", size, 100)  # whole, 224 pixels wide, it would be 200 GB
    assert (Resize(224, "crop", 0.875, "bicubic")(encoded(image)) == 100).all()


def test_a_large_jpeg_is_decoded_at_a_reduced_scale_and_looks_the_same(monkeypatch):
    image = Image.fromarray(corpus.picture("large", (2000, 1500)))
    content = encoded(image, "JPEG", quality=95)
    decoded = []
    monkeypatch.setattr(
        decoding, "_on_white", lambda image, real=decoding._on_white: decoded.append(image.size) or real(image)
    )
    reduced = Resize(64, "crop", 1.0, "bicubic")(content)
    assert decoded == [(250, 188)]
    whole = Resize(64, "crop", 1.0, "bicubic")(encoded(image))
    assert decoded[1:] == [(2000, 1500)]
    assert np.abs(reduced.astype(int) - whole).max() <= 4
    assert (inspect_image(content).width, inspect_image(content).height) == (2000, 1500)


def test_the_scale_stays_at_twice_what_is_needed(monkeypatch):
    seen = []
    monkeypatch.setattr(
        decoding, "_on_white", lambda image, real=decoding._on_white: seen.append(image.size) or real(image)
    )
    for side in (100, 101, 199, 201, 401):
        thumbnail(encoded(Image.new("RGB", (800, 1000)), "JPEG"), side)
    assert [min(size) for size in seen] == [200, 400, 400, 800, 800]


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((40, 20), (0, 26, 104, 78)),
        ((20, 40), (26, 0, 78, 104)),
        ((416, 416), (0, 0, 104, 104)),
        ((1, 9000), (51, 0, 52, 104)),
    ],
)
def test_a_thumbnail_is_the_whole_image_centred_on_white(size, box):
    tile = thumbnail(encoded(Image.new("RGB", size, "navy")), 104)
    expected = Image.new("RGB", (104, 104), "white")
    expected.paste("navy", box)
    assert (np.asarray(tile) == np.asarray(expected)).all()


@pytest.mark.parametrize("content", [b"", b"text", encoded(Image.new("RGB", (99, 99)), "BMP")[:500]])
def test_what_cannot_be_decoded_has_no_thumbnail(content):
    with pytest.raises(OSError, match=r"not an image|cannot be decoded"):
        thumbnail(content, 104)


def test_reasons_are_one_short_line(monkeypatch):
    def fails(content):
        raise RuntimeError("one\ntwo " * 99)

    monkeypatch.setattr(decoding, "_open", fails)
    problem = inspect_image(b"x").problem
    assert problem.startswith("cannot be decoded: one two") and len(problem) <= 200 and "\n" not in problem


def test_a_changed_file_is_not_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(content := encoded(Image.new("RGB", (4, 4))))
    assert read_verified(str(path), image_id(content)) == content
    path.write_bytes(content + b" ")
    with pytest.raises(InputError, match="changed since it was ingested"):
        read_verified(str(path), image_id(content))


def test_a_vanished_file_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"No such file or directory; materialize `dataset` again"):
        read_verified(str(tmp_path / "gone.png"), "0" * 64)


def test_libtiff_prints_nothing_of_a_broken_file(capfd):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "TIFF", compression="tiff_lzw")
    content = bytearray(buffer.getvalue())
    content[300:900] = b"\xff" * 600
    assert inspect_image(bytes(content)).problem == "cannot be decoded: decoder error -2"
    assert capfd.readouterr().err == ""
