"""One loader for every image."""

import io

import numpy as np
import pytest
from PIL import Image

from tl_dagster import InputError
from tl_dagster.data.decoding import Resize, image_id, probe, read_verified

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


def test_exif_orientation_is_applied():
    upright = Image.new("RGB", (20, 10))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert probe(encoded(turned, "JPEG", exif=exif)).width == 20


def test_crop_takes_the_centre():
    image = Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (10, 0, 30, 20))
    assert (Resize(20, "crop", 1.0, "bilinear")(encoded(image)) == 255).all()


def test_a_changed_file_is_not_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(content := encoded(Image.new("RGB", (4, 4))))
    assert read_verified(str(path), image_id(content)) == content
    path.write_bytes(content + b" ")
    with pytest.raises(InputError, match="changed since it was ingested"):
        read_verified(str(path), image_id(content))
