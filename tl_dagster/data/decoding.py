"""One loader for every image: bytes → RGB pixels, and the resize that a backbone expects.

Pillow decodes: its resampling filters are the ones that ImageNet weights were evaluated with.
"""

import ctypes
import hashlib
import io
import logging
import re
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL import _imaging as core

from tl_dagster.data.files import read
from tl_dagster.runtime.errors import InputError, printable

__all__ = [
    "DECODER_VERSION",
    "ImageInfo",
    "Resize",
    "image_id",
    "inspect_image",
    "is_image",
    "read_verified",
    "thumbnail",
]

# Part of every feature key: bumped whenever a decoded or resized pixel may differ.
DECODER_VERSION = 2
# More than this is a decompression bomb: a small file that fills the memory. This much takes about 1 GB.
MAX_PIXELS = 120_000_000
LARGE, ONE_LARGE = MAX_PIXELS // 2, Lock()  # threads decode images of more pixels one at a time
HEAVY = ("WEBP", "JPEG2000", "AVIF")  # their decoders take twice as much
# Of the formats that Pillow opens: what cameras and people save. Others run a program (EPS) or are guessed from little.
FORMATS = (
    *("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "AVIF", "TIFF", "PPM", "JPEG2000", "ICO", "PCX", "SGI", "TGA"),
    "HEIF",  # where a plugin reads it
)
# Those whose first bytes no other file has.
SIGNED = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "JPEG2000", "BMP", "HEIF")
# EXIF's orientation → Image.Transpose that turns the pixels upright.
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
SIDEWAYS = {TURNS[value] for value in (5, 6, 7, 8)}
QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)  # a filter as `warnings` stores it
# JPEG halves, quarters or eighths while decoding, down to this many times the size that is needed.
REDUCED_TO = 2
LONGEST = 16  # times the shorter side: what is cropped reaches no further from the centre
HASH_SIDE = 64  # pixels that the perceptual hash sees


@dataclass(frozen=True)
class ImageInfo:
    """Size, format, statistics and perceptual hash of an image, or the reason why it cannot be used.

    Attributes:
        width: in pixels, upright.
        height: in pixels, upright.
        format: Pillow's name of the format, such as "JPEG".
        brightness: mean luma, 0 to 255.
        contrast: standard deviation of luma.
        perceptual: 256-bit DCT hash of the luma (ImageHash's ``phash``), 64 hex digits.
        problem: why the image cannot be used; None: it can.
    """

    width: int = 0
    height: int = 0
    format: str = ""
    brightness: float = 0.0
    contrast: float = 0.0
    perceptual: str = ""
    problem: str | None = None


def image_id(content: bytes) -> str:
    """Return an image's identity: the SHA-256 (64 hex digits) of the file's bytes."""
    return hashlib.sha256(content).hexdigest()


def is_image(head: bytes) -> bool:
    """Return whether a file is an image by its first bytes (16 or more), as Pillow's decoders recognise theirs."""
    Image.init()
    tests = [Image.OPEN[name][1] for name in SIGNED if name in Image.OPEN]
    return any(accepts is not None and bool(accepts(head)) for accepts in tests)


def inspect_image(content: bytes) -> ImageInfo:
    """Decode an image, and return its size, statistics and perceptual hash, or the problem.

    Args:
        content: the file's bytes.
    """
    import imagehash

    if not content:
        return ImageInfo(problem="the file is empty")
    try:
        rgb, size, kind = _decode(content, HASH_SIDE)
        grey = rgb.convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS)
    except Exception as error:
        # Pillow's decoders raise a dozen kinds of error on a broken file; all mean the same: reject it.
        return ImageInfo(problem=_reason(error))
    counts, levels = np.array(grey.histogram()) / HASH_SIDE**2, np.arange(256)
    brightness = float(counts @ levels)
    contrast = float(counts @ (levels - brightness) ** 2) ** 0.5
    perceptual = np.packbits(imagehash.phash(grey, hash_size=16).hash).tobytes().hex()
    return ImageInfo(*size, kind, round(brightness, 3), round(contrast, 3), perceptual)


def read_verified(uri: str, expected: str) -> bytes:
    """Return an image's bytes, verified to be those that were ingested.

    Args:
        uri: its address.
        expected: its image id.

    Raises:
        InputError: the file is gone or its bytes changed since the dataset was ingested.
    """
    try:
        content = read(uri)
    except OSError as error:
        raise InputError(
            f"{printable(uri)}: {error.strerror or error}; materialize `dataset` again to see what is there now"
        ) from error
    if image_id(content) != expected:
        raise InputError(f"{printable(uri)} changed since it was ingested; materialize `dataset` again")
    return content


def thumbnail(content: bytes, size: int) -> Image.Image:
    """Return the whole image in a square of ``size`` pixels, centred on white (mode RGB).

    Raises:
        OSError: it cannot be decoded; a decoder's other errors are raised as this one.
    """
    try:
        image, _, _ = _decode(content, size)
    except Exception as error:
        raise OSError(_reason(error)) from error
    width, height = (max(1, round(length * size / max(image.size))) for length in image.size)
    square = Image.new("RGB", (size, size), "white")
    square.paste(image.resize((width, height), Image.Resampling.BICUBIC), ((size - width) // 2, (size - height) // 2))
    return square


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

    def __call__(self, content: bytes) -> np.ndarray:
        """Decode and resize: bytes → uint8 pixels of shape (size, size, 3)."""
        side = self.size if self.mode == "squash" else round(self.size / self.crop_fraction)
        image, _, _ = _decode(content, side)
        filter_ = Image.Resampling[self.interpolation.upper()]
        if self.mode == "squash":
            if image.size != (self.size, self.size):
                image = image.resize((self.size, self.size), filter_)
            return np.asarray(image)
        shorter, longer = sorted(image.size)
        if longer > LONGEST * shorter:  # a strip would fill the memory when its shorter side is enlarged
            image = _centre(image, *(min(length, LONGEST * shorter) for length in image.size))
        scale = side / shorter
        width, height = (max(side, round(length * scale)) for length in image.size)
        if (width, height) != image.size:
            image = image.resize((width, height), filter_)
        return np.asarray(_centre(image, self.size, self.size))


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _decode(content: bytes, side: int) -> tuple[Image.Image, tuple[int, int], str]:
    """Return upright RGB pixels, at a reduced scale where that is enough for ``side``; the full size; the format.

    Each step releases the one before: memory has room for two copies of the largest image.
    """
    image = _open(content)
    with ONE_LARGE if image.width * image.height > LARGE else nullcontext():
        kind, size = image.format or "", image.size
        reduced = _reduce_jpeg(image, side)
        image.load()
        if not reduced:
            size = image.size  # TIFF is turned by loading it; an icon tells its true size only then
        turn = _turn(image)
        image = _eight_bits(image)
        image = _on_white(image)
        if turn is not None:
            image = image.transpose(Image.Transpose(turn))
        return image, size[::-1] if turn in SIDEWAYS else size, kind


def _open(content: bytes) -> Image.Image:
    Image.init()
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # up to twice this Pillow only warns
    if list(warnings.filters[:1]) != [QUIET]:  # not `catch_warnings`: it is not safe in threads
        warnings.filterwarnings("ignore", module=r"PIL\.")
        logging.getLogger("PIL").setLevel(logging.CRITICAL)
    _silence_libtiff()
    image = Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])
    if image.format in HEAVY and image.width * image.height > MAX_PIXELS // 2:
        raise Image.DecompressionBombError(f"{image.width * image.height} pixels, over {MAX_PIXELS // 2}")
    return image


@cache
def _silence_libtiff() -> None:
    """Keep libtiff from writing to standard error; what it says of a broken file is Pillow's error too."""
    libtiff = ctypes.CDLL(core.__file__)  # finds the functions of what it is linked to
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if setter := getattr(libtiff, name, None):  # not where libtiff is part of Pillow's own file
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)


def _reduce_jpeg(image: Image.Image, side: int) -> bool:
    """Make a JPEG decode at a reduced scale, with at least twice the pixels needed; return whether it does."""
    least = REDUCED_TO * side
    shorter = min(image.size)
    if image.format not in ("JPEG", "MPO") or image.mode not in ("L", "RGB") or shorter < 2 * least:
        return False
    image.draft(image.mode, (image.width * least // shorter, image.height * least // shorter))
    return True


def _turn(image: Image.Image) -> int | None:
    try:
        return TURNS.get(image.getexif().get(0x0112))  # type: ignore[arg-type]
    except Exception:
        return None  # the EXIF data are damaged; the pixels are not


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16 bits to 8, where Pillow itself would clip; pixels without a defined white are refused."""
    clear = image.info.get("transparency")
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        raise ValueError("pixels of 32 bits have no defined white; save it with 8 or 16")
    if image.mode != "I" and not image.mode.startswith("I;"):
        if isinstance(clear, tuple) and max(clear) > 255:  # Pillow keeps the upper bytes, but not of this colour
            image.info["transparency"] = tuple(value >> 8 for value in clear)
        return image
    values = np.asarray(image).astype(np.uint32)
    values += 128  # in place: the largest image has no room for a third copy
    values //= 257
    if getattr(image, "tag_v2", {}).get(262) == 0:  # TIFF's "white is zero": Pillow applies it up to 8 bits only
        values = 255 - values
    eight = Image.fromarray(values.astype(np.uint8))
    if isinstance(clear, int):
        eight.info["transparency"] = (clear + 128) // 257
    return eight


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image if image.mode == "RGBA" and "transparency" not in image.info else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: Exception) -> str:
    """Return the problem of an image that raised an error: one line, at most 200 characters."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of a format that is not read"
    message = " ".join(str(error).split())
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {message.partition(', could be')[0]}"
    if isinstance(error, ValueError) and message.startswith("pixels of 32"):
        return message
    return f"cannot be decoded: {message or type(error).__name__}"[:200]
