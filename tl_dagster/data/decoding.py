"""One loader for every image: bytes → RGB pixels, and the resize that a backbone expects.

Pillow decodes: its resampling filters are the ones that ImageNet weights were evaluated with.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tl_dagster.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

__all__ = ["DECODE_RECIPE", "Probe", "Resize", "image_id", "probe", "read_verified"]

# Part of every feature key: another number whenever a decoded or resized pixel may differ.
DECODE_RECIPE = 1
# Pillow refuses more than twice this many pixels as a decompression bomb.
MAX_PIXELS = 200_000_000


@dataclass(frozen=True)
class Probe:
    """What decoding an image once tells: its size in pixels, format, and what is wrong with it (None: nothing)."""

    width: int
    height: int
    format: str
    problem: str | None


def image_id(content: bytes) -> str:
    """An image's identity: SHA-256 (64 hex digits) of the file's bytes."""
    return hashlib.sha256(content).hexdigest()


def probe(content: bytes) -> Probe:
    """Decode an image fully, to learn its size and whether it is whole.

    Args:
        content: the file's bytes.
    """
    if not content:
        return Probe(0, 0, "", "the file is empty")
    try:
        image = _open(content)
        kind = image.format or ""
        rgb = _rgb(image)
    except Exception as error:
        # Pillow's decoders raise a dozen kinds of error on a broken file; each means the same: set it aside.
        return Probe(0, 0, "", f"cannot be decoded: {type(error).__name__}: {error}"[:200].replace("\n", " "))
    return Probe(rgb.width, rgb.height, kind, None)


def read_verified(path: str, expected: str) -> bytes:
    """Read an image and make sure it is still the one that was ingested.

    Args:
        path: the file.
        expected: its image id.

    Raises:
        InputError: the file is gone or its bytes changed since the dataset was ingested.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror or error}; materialize `dataset` again to see what is there now"
        ) from error
    if image_id(content) != expected:
        raise InputError(f"{path} changed since it was ingested; materialize `dataset` again")
    return content


@dataclass(frozen=True)
class Resize:
    """The deterministic geometry between a decoded image and the network's square input.

    Attributes:
        size: pixels of the square.
        mode: "crop": the shorter side is resized to ``size / crop_fraction`` and the centre cut out, as in
            ImageNet evaluation; "squash": the whole image is resized to the square.
        crop_fraction: what the weights were evaluated with.
        interpolation: Pillow's name of the filter.
    """

    size: int
    mode: Literal["crop", "squash"]
    crop_fraction: float
    interpolation: str

    def __call__(self, content: bytes) -> "np.ndarray":
        """Decode and resize: bytes → uint8 pixels of shape (size, size, 3)."""
        import numpy as np
        from PIL import Image

        image = _rgb(_open(content))
        filter_ = Image.Resampling[self.interpolation.upper()]
        if self.mode == "squash":
            if image.size != (self.size, self.size):
                image = image.resize((self.size, self.size), filter_)
            return np.asarray(image)
        side = round(self.size / self.crop_fraction)
        scale = side / min(image.size)
        width, height = (max(side, round(length * scale)) for length in image.size)
        if (width, height) != image.size:
            image = image.resize((width, height), filter_)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))


def _open(content: bytes) -> "Image.Image":
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    return Image.open(io.BytesIO(content))


def _rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):  # 16-bit grey: Pillow would clip instead of scaling
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return image.convert("RGB")
