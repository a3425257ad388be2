"""One loader for every image: bytes → RGB pixels, and the resize that a backbone expects.

Pillow decodes: its resampling filters are the ones that ImageNet weights were evaluated with.
"""

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tl_dagster.data.files import read, shown
from tl_dagster.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

__all__ = ["DECODE_RECIPE", "Look", "Resize", "image_id", "look", "read_verified", "thumbnail"]

# Part of every feature key: another number whenever a decoded or resized pixel may differ.
DECODE_RECIPE = 2
# More than this is a decompression bomb: a small file that fills the memory.
MAX_PIXELS = 180_000_000
# JPEG halves, quarters or eighths while decoding, down to this many times the size that is needed.
REDUCED_TO = 2
HASH_SIDE = 64  # pixels that the perceptual hash sees


@dataclass(frozen=True)
class Look:
    """What decoding an image once tells.

    Attributes:
        width: in pixels, upright.
        height: in pixels, upright.
        format: Pillow's name of the format, such as "JPEG".
        brightness: mean luma, 0 to 255.
        contrast: standard deviation of luma.
        perceptual: 256-bit DCT hash of the luma (ImageHash's ``phash``), 64 hex digits.
        problem: why it cannot be used; None: it can.
    """

    width: int = 0
    height: int = 0
    format: str = ""
    brightness: float = 0.0
    contrast: float = 0.0
    perceptual: str = ""
    problem: str | None = None


def image_id(content: bytes) -> str:
    """An image's identity: SHA-256 (64 hex digits) of the file's bytes."""
    return hashlib.sha256(content).hexdigest()


def look(content: bytes) -> Look:
    """Decode an image once, to learn its size, its statistics, its perceptual hash and whether it is whole.

    Args:
        content: the file's bytes.
    """
    import imagehash
    import numpy as np
    from PIL import Image

    if not content:
        return Look(problem="the file is empty")
    try:
        image = _open(content)
        kind, size = image.format or "", _upright(image)
        rgb = _rgb(_reduced(image, HASH_SIDE))
        grey = rgb.convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS)
    except Exception as error:
        # Pillow's decoders raise a dozen kinds of error on a broken file; each means the same: set it aside.
        return Look(problem=_reason(error))
    values = np.asarray(grey, dtype=np.float32)
    perceptual = str(imagehash.phash(grey, hash_size=16))
    return Look(*size, kind, round(float(values.mean()), 3), round(float(values.std()), 3), perceptual)


def read_verified(uri: str, expected: str) -> bytes:
    """Read an image and make sure it is still the one that was ingested.

    Args:
        uri: where it is.
        expected: its image id.

    Raises:
        InputError: the file is gone or its bytes changed since the dataset was ingested.
    """
    try:
        content = read(uri)
    except OSError as error:
        raise InputError(
            f"{shown(uri)}: {error.strerror or error}; materialize `dataset` again to see what is there now"
        ) from error
    if image_id(content) != expected:
        raise InputError(f"{shown(uri)} changed since it was ingested; materialize `dataset` again")
    return content


def thumbnail(content: bytes, size: int) -> "Image.Image":
    """The whole image in a square of ``size`` pixels, centred on white.

    Raises:
        OSError: it cannot be decoded; a decoder's other errors are passed on as this one.
    """
    from PIL import Image, ImageOps

    try:
        image = _rgb(_reduced(_open(content), size))
    except Exception as error:
        raise OSError(_reason(error)) from error
    return ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC, color="white")


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

        side = self.size if self.mode == "squash" else round(self.size / self.crop_fraction)
        image = _rgb(_reduced(_open(content), side))
        filter_ = Image.Resampling[self.interpolation.upper()]
        if self.mode == "squash":
            if image.size != (self.size, self.size):
                image = image.resize((self.size, self.size), filter_)
            return np.asarray(image)
        scale = side / min(image.size)
        width, height = (max(side, round(length * scale)) for length in image.size)
        if (width, height) != image.size:
            image = image.resize((width, height), filter_)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))


def _open(content: bytes) -> "Image.Image":
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # a limit of our own, that says what is wrong
    image = Image.open(io.BytesIO(content))
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"too large: {image.width} x {image.height} pixels, over {MAX_PIXELS:,}")
    return image


def _reduced(image: "Image.Image", side: int) -> "Image.Image":
    """A JPEG that decodes at a reduced scale, its shorter side still at least twice what is needed."""
    least = REDUCED_TO * side
    shorter = min(image.size)
    if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB") and shorter >= 2 * least:
        image.draft(image.mode, (image.width * least // shorter, image.height * least // shorter))
    return image


def _upright(image: "Image.Image") -> tuple[int, int]:
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else image.size


def _rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _grey(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return image.convert("RGB")


def _grey(image: "Image.Image") -> "Image.Image":
    """16 bits to 8, where Pillow itself would clip; what has no known white cannot be scaled."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError("pixels of 32 bits have no defined white; save it with 8 or 16")
    return Image.fromarray((values.astype(np.float32) / 257).round().astype(np.uint8))


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of a format that is not read"
    said = " ".join(str(error).split())
    if isinstance(error, ValueError) and said.startswith(("too large", "pixels of 32")):
        return said
    return f"cannot be decoded: {said or type(error).__name__}"[:200]
