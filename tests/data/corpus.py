"""Hostile and unusual image files, each made here, with what must become of it: used with these pixels, or set aside.

Every file shows a picture of its own (a smooth field seeded by its name), so that none is a copy of another.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

Make = Callable[[np.ndarray], bytes]
Edit = Callable[[bytes], bytes]
WIDTH, HEIGHT = SIZE = (56, 40)
UNKNOWN, BROKEN, LARGE, DEEP, ANY = "not an image", "cannot be decoded", "too large", "32 bits", ""


@dataclass(frozen=True)
class Case:
    """A file's bytes from its picture; when it is used its pixels (``want``), else a word of the reason (``aside``)."""

    make: Make
    want: Callable[[np.ndarray], np.ndarray] = lambda p: p
    tolerance: int = 0
    aside: str | None = None
    size: tuple[int, int] = SIZE


def picture(name: str, size: tuple[int, int]) -> np.ndarray:
    coarse = np.random.default_rng(zlib.crc32(os.fsencode(name))).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def content(name: str) -> bytes:
    return CASES[name].make(picture(name, CASES[name].size))


def pixels(name: str) -> np.ndarray:
    return CASES[name].want(picture(name, CASES[name].size))


def write(folder: Path, classes: tuple[str, ...]) -> dict[str, Path]:
    """Write every file, taking turns between the classes' folders; returns their paths by name."""
    paths = {name: folder / classes[number % len(classes)] / name for number, name in enumerate(CASES)}
    for name, path in paths.items():
        path.write_bytes(content(name))
    return paths


# What Pillow writes.


def shown(p: np.ndarray, mode: str) -> Image.Image:
    """The picture in a mode: 16 colours in a palette, or half transparent, where the mode has those."""
    image = Image.fromarray(p).convert("L" if mode == "LA" else "RGB")
    if mode in ("RGBA", "LA"):
        image.putalpha(128)
    return image.quantize(16) if mode == "P" else image.convert(mode)


def seen(p: np.ndarray, mode: str) -> np.ndarray:
    rgb = np.asarray(shown(p, mode).convert("RGB"))
    return np.round((rgb * 128.0 + 255 * 127) / 255).astype(np.uint8) if mode in ("RGBA", "LA") else rgb


def save(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_(kind: str, mode: str = "RGB", more: bool = False, **options) -> Make:
    """``more``: two other frames or pages follow."""

    def make(p: np.ndarray) -> bytes:
        others = {"save_all": True, "append_images": [shown(255 - p, mode), shown(p[::-1], mode)]} if more else {}
        return save(shown(p, mode), kind, **others, **options)

    return make


def row(kind: str, mode: str = "RGB", tolerance: int = 0, size: tuple[int, int] = SIZE, **options) -> Case:
    return Case(as_(kind, mode, **options), lambda p: seen(p, mode), tolerance, size=size)


def jpeg(mode: str = "RGB", tolerance: int = 6, size: tuple[int, int] = SIZE, **options) -> Case:
    return row("JPEG", mode, tolerance, size, **{"quality": 95, "subsampling": 0, **options})


def clear(kind: str, index: int, transparency: int | bytes) -> Case:
    """One colour of the palette is transparent."""

    def want(p: np.ndarray) -> np.ndarray:
        return np.where(np.asarray(shown(p, "P"))[:, :, None] == index, 255, seen(p, "P")).astype(np.uint8)

    return Case(as_(kind, "P", transparency=transparency), want)


def orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def turned(kind: str, value: int, tolerance: int = 0, size: tuple[int, int] = SIZE, **options) -> Case:
    """Stored so that the EXIF orientation turns it upright."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose: the inverse of what a viewer does

    def make(p: np.ndarray) -> bytes:
        image = Image.fromarray(p)
        image = image.transpose(Image.Transpose(back[value])) if value in back else image
        return save(image, kind, exif=orientation(value), **options)

    return Case(make, tolerance=tolerance, size=size)


# What is edited, or written by hand because Pillow does not write it.


def edited(case: Case, edit: Edit, aside: str | None = None) -> Case:
    return Case(lambda p: edit(case.make(p)), case.want, case.tolerance, aside)


def put(at: int, data: bytes) -> Edit:
    return lambda d: d[:at] + data + d[at + len(data) :]


def with_exif(block: bytes) -> Case:
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block
    return edited(jpeg(), lambda d: d[:2] + segment + d[2:])


def unmarked(d: bytes) -> bytes:
    """A CMYK JPEG without its Adobe marker."""
    at = d.index(b"\xff\xee")
    return d[:at] + d[at + 2 + int.from_bytes(d[at + 2 : at + 4], "big") :]


def raw(data: bytes, aside: str = UNKNOWN) -> Case:
    return Case(lambda p: data, aside=aside)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunk(name: bytes, data: bytes, aside: str | None = None) -> Case:
    return edited(row("PNG"), lambda d: d[:33] + chunk(name, data) + d[33:], aside)


def png(size: tuple[int, int], bits: int, colour: int, rows: bytes, extra: bytes = b"", interlace: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def adam7(p: np.ndarray) -> bytes:
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(b"\0" + line.tobytes() for y, x, dy, dx in passes for line in p[y::dy, x::dx])
    return png(SIZE, 8, 2, rows, interlace=1)


def samples(bits: int, mode: str, key: bool = False) -> Case:
    """A PNG of 8 or 16 bits; ``key``: the colour of the first pixel is transparent."""

    def make(p: np.ndarray) -> bytes:
        values = np.asarray(shown(p, mode)).reshape(HEIGHT, WIDTH, -1).astype(">u2")
        if bits == 16:  # the lower byte is not the upper one
            values = np.minimum(values * 257.0 + 1, 65535).astype(">u2")
        rows = b"".join(b"\0" + line.astype(">u2" if bits == 16 else "u1").tobytes() for line in values)
        return png(SIZE, bits, {"L": 0, "RGB": 2, "LA": 4}[mode], rows, chunk(b"tRNS", values[0, 0].tobytes()) * key)

    def want(p: np.ndarray) -> np.ndarray:
        rgb = seen(p, mode)
        return np.where((rgb == rgb[0, 0]).all(axis=2, keepdims=True) & key, 255, rgb).astype(np.uint8)

    return Case(make, want, tolerance=int(mode == "LA"))


def tiff(p: np.ndarray, dtype: str, scale: int = 1, photometric: int = 1) -> bytes:
    """One strip of the grey picture, times ``scale``, in numpy's dtype."""
    order, kind, width = dtype[0], {"u": 1, "i": 2, "f": 3}[dtype[1]], int(dtype[2]) * 8
    grey = np.asarray(shown(p if photometric else 255 - p, "L"))
    data = (grey.astype(dtype) * scale).astype(dtype).tobytes()
    tags = [(256, WIDTH), (257, HEIGHT), (258, width), (259, 1), (262, photometric), (273, 8), (277, 1), (278, HEIGHT)]
    tags += [(279, len(data)), (339, kind)]
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def grey_tiff(dtype: str, scale: int = 1, photometric: int = 1, aside: str | None = None) -> Case:
    light = (lambda p: seen(p, "L")) if photometric else (lambda p: 255 - seen(255 - p, "L"))
    return Case(lambda p: tiff(p, dtype, scale, photometric), light, aside=aside)


def pgm(most: int) -> Case:
    def make(p: np.ndarray) -> bytes:
        values = (np.asarray(shown(p, "L")) * (most / 255)).astype(">u2")
        return f"P5 {WIDTH} {HEIGHT} {most}\n".encode() + values.tobytes()

    return Case(make, lambda p: seen(p, "L"))


def bmp(bits: int, compression: int, data: bytes, size: tuple[int, int] = SIZE) -> bytes:
    """With a palette of greys up to 8 bits."""
    colours = 1 << bits if bits <= 8 else 0
    palette = b"".join(bytes((v * 255 // (colours - 1),) * 3 + (0,)) for v in range(colours))
    head = struct.pack("<2sIHHI", b"BM", 54 + len(palette) + len(data), 0, 0, 54 + len(palette))
    body = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, compression, len(data), 0, 0, colours, 0)
    return head + body + palette + data


def bmp4(p: np.ndarray) -> bytes:
    values = np.asarray(shown(p, "L"))[::-1] >> 4
    return bmp(4, 0, (values[:, ::2] << 4 | values[:, 1::2]).tobytes())


def bmp_rle(p: np.ndarray) -> bytes:
    lines = (b"".join(bytes((1, value)) for value in line) + b"\0\0" for line in np.asarray(shown(p, "L"))[::-1])
    return bmp(8, 1, b"".join(lines) + b"\0\1")


def ico(inner: bytes) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 32, 32, 0, 0, 1, 32, len(inner), 22) + inner


def lab(p: np.ndarray) -> bytes:
    light = shown(p, "L")
    neutral = Image.new("L", light.size, 128)
    return save(Image.merge("LAB", (light, neutral, neutral)), "TIFF")


def lightness(p: np.ndarray) -> np.ndarray:
    """sRGB of a neutral CIE L*."""
    light = seen(p, "L") * (100 / 255)
    y = np.where(light > 8, ((light + 16) / 116) ** 3, light / 903.3)
    return np.round(255 * np.where(y > 0.0031308, 1.055 * y ** (1 / 2.4) - 0.055, 12.92 * y)).astype(np.uint8)


BOMB = zlib.compress(bytes(50_000_000))
HUGE_PNG = png((60_000, 60_000), 8, 2, bytes(100))
NAMES = ["new\nline.png", "a|b.png", "<script>alert(1)<\u2215script>.png", "'\"`$(x).png", "-rf.png", "%00%2e.png"]
NAMES += [os.fsdecode(b"latin-\xe9\xff.png"), "日本語 \u202e\U0001f31e.png", f"{'long' * 62}.png", "no suffix"]
JUNK = [b"text\n" * 40, b"<!DOCTYPE html><html>404 Not Found</html>", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n" * 9]
JUNK += [b"PK\3\4" + bytes(200), b"\x7fELF\2\1\1" + bytes(200), bytes(5000), b"II*\0\x08\0\0\0\x01\0\0\x01\x04\0\x01"]
JUNK += [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n"]  # Pillow runs Ghostscript
EXIFS = [b"II*\0\x08\0\0\0\0\0" + bytes(65_000), b"II*\0\xff\xff\xff\x7f", bytes(range(256)) * 9, b""]
EXIFS += [b"MM\0*\0\0\0\x08\0\x03\x01\x12\0\x05\xff\xff\xff\xff\0\0\0\x09"]
PLAIN = {"bmp": "BMP", "tga": "TGA", "pcx": "PCX", "sgi": "SGI", "ppm": "PPM", "jp2": "JPEG2000", "png": "PNG"}

CASES: dict[str, Case] = {
    **{f"exif-{value}.jpg": turned("JPEG", value, 6, quality=95, subsampling=0) for value in (*range(9), 999)},
    **{f"exif-{value}.png": turned("PNG", value) for value in (3, 6)},
    "exif-5.webp": turned("WEBP", 5, lossless=True),
    "exif-6.tif": turned("TIFF", 6),
    "exif-8-lzw.tif": turned("TIFF", 8, compression="tiff_lzw"),
    "exif-7.avif": turned("AVIF", 7, 8, quality=95, subsampling="4:4:4"),
    "exif-6-large.jpg": turned("JPEG", 6, 6, (2000, 1500), quality=90),
    "exif-late.png": edited(row("PNG"), lambda d: d[:-12] + chunk(b"eXIf", orientation(1)[6:]) + d[-12:]),
    **{f"exif-bad-{number}.jpg": with_exif(block) for number, block in enumerate(EXIFS)},
    "exif-bad.png": with_chunk(b"eXIf", b"nonsense" * 9),
    **{f"rgb.{suffix}": row(kind) for suffix, kind in PLAIN.items()},
    **{f"grey.{suffix}": row(PLAIN[suffix], "L") for suffix in ("png", "bmp", "ppm", "tga", "jp2")},
    **{f"bits.{suffix}": row(PLAIN[suffix], "1") for suffix in ("png", "bmp", "ppm")},
    **{f"half.{suffix}": row(PLAIN[suffix], "RGBA", 1) for suffix in ("png", "tga", "jp2")},
    **{f"palette.{suffix}": row(PLAIN[suffix], "P") for suffix in ("png", "bmp", "tga", "pcx")},
    **{name: row("PNG") for name in NAMES},
    **{f"{size[0]}x{size[1]}.png": row("PNG", size=size) for size in ((1, 1), (1, 5000), (5000, 1))},
    "png-named.jpg": row("PNG"),
    "jpeg-named.PNG": jpeg(),
    "UPPER.JPEG": jpeg(),
    "palette-clear.png": clear("PNG", 3, 3),
    "palette-alphas.png": clear("PNG", 2, b"\xff\xff\0"),
    **{f"samples-{bits}-{mode}.png": samples(bits, mode) for bits in (8, 16) for mode in ("L", "RGB", "LA")},
    **{f"clear-{bits}-{mode}.png": samples(bits, mode, key=True) for bits in (8, 16) for mode in ("L", "RGB")},
    "interlaced.png": Case(adam7),
    "animated.png": row("PNG", more=True),
    "bad-profile.png": row("PNG", icc_profile=b"not a profile"),
    "bad-idat-length.png": edited(row("PNG"), put(33, b"\0\xff\xff\xff")),  # here and below all pixels are there
    "bad-idat-crc.png": edited(row("PNG"), lambda d: d[:-16] + bytes(4) + d[-12:]),  # Pillow does not look at it
    "no-end.png": edited(row("PNG"), lambda d: d[:-12]),
    "grey16-little.tif": grey_tiff("<u2", 257),
    "grey16-big.tif": grey_tiff(">u2", 257),
    "white-is-zero.tif": grey_tiff("<u1", photometric=0),
    "white-is-zero-16.tif": grey_tiff("<u2", 257, photometric=0),
    "pages.tif": row("TIFF", more=True),
    **{f"{way}.tif": row("TIFF", compression=f"tiff_{way}") for way in ("lzw", "adobe_deflate")},
    "fax.tif": row("TIFF", "1", compression="group4"),
    "jpeg.tif": row("TIFF", tolerance=5, compression="jpeg", quality=95),
    "half.tif": row("TIFF", "RGBA", 1),
    "cmyk.tif": row("TIFF", "CMYK"),
    "ycbcr.tif": row("TIFF", "YCbCr"),
    "lab.tif": Case(lab, lightness, 3),
    "grey16.pgm": pgm(65535),
    "grey10.pgm": pgm(1020),
    "text.ppm": Case(lambda p: b"P3 56 40 255\n" + " ".join(map(str, p.ravel())).encode()),
    "grey.jpg": jpeg("L"),
    "cmyk.jpg": jpeg("CMYK", quality=98),  # inverted, and with Adobe's marker
    "cmyk-unmarked.jpg": edited(jpeg("CMYK", quality=98), unmarked),  # Pillow takes it for inverted all the same
    "progressive.jpg": jpeg(progressive=True),
    "restarts.jpg": jpeg(restart_marker_blocks=2),
    "garbage-after.jpg": edited(jpeg(), lambda d: d + b"garbage" * 99),
    "garbage-before.jpg": edited(jpeg(), lambda d: b"\n" + d, UNKNOWN),  # Pillow looks at the start only
    "mpo.jpg": row("MPO", tolerance=6, more=True, quality=95, subsampling=0),
    "large.jpg": jpeg(size=(4000, 3000), subsampling=2),
    "interlaced.gif": row("GIF", "P"),
    "straight.gif": row("GIF", "P", interlace=False),
    "animated.gif": row("GIF", "P", more=True, duration=9),
    "clear.gif": clear("GIF", 3, 3),
    "lossy.webp": row("WEBP", tolerance=20, quality=95),
    "lossless.webp": row("WEBP", lossless=True),
    "half.webp": row("WEBP", "RGBA", 1, lossless=True),
    "animated.webp": row("WEBP", more=True, lossless=True, duration=9),
    "four.bmp": Case(bmp4, lambda p: (seen(p, "L") >> 4) * 17),
    "rle.bmp": Case(bmp_rle, lambda p: seen(p, "L")),
    "rgbx.bmp": Case(lambda p: bmp(32, 0, np.dstack([p[::-1, :, ::-1], p[:, :, :1]]).tobytes())),  # no alpha declared
    "rle.tga": row("TGA", compression="tga_rle"),
    "icon.ico": row("ICO", size=(32, 32), sizes=[(32, 32)]),
    "rgb.avif": row("AVIF", tolerance=8, quality=95, subsampling="4:4:4"),
    "empty.jpg": raw(b"", "empty"),
    **{f"junk-{number}.jpg": raw(data) for number, data in enumerate(JUNK)},
    "float.tif": grey_tiff("<f4", aside=DEEP),
    "int.tif": grey_tiff("<i4", aside=DEEP),
    "nan.tif": edited(grey_tiff("<f4"), put(8, b"\xff" * 400), DEEP),
    "bad-ihdr-crc.png": edited(row("PNG"), put(29, bytes(4)), UNKNOWN),
    "bad-length.png": edited(with_chunk(b"tEXt", b"k\0v"), put(33, b"\x7f\xff\xff\xff"), BROKEN),
    "bad-data.png": edited(row("PNG"), put(60, bytes(64)), BROKEN),
    "zero-wide.png": raw(png((0, 9), 8, 2, b"")),
    "bomb-ztxt.png": with_chunk(b"zTXt", b"k\0\0" + BOMB, BROKEN),
    "bomb-itxt.png": with_chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB, BROKEN),
    "bomb-iccp.png": with_chunk(b"iCCP", b"k\0\0" + BOMB, BROKEN),
    "bomb.png": raw(HUGE_PNG, LARGE),
    "bomb.ico": raw(ico(HUGE_PNG), LARGE),
    "bomb.gif": raw(b"GIF89a" + b"\xff" * 4 + bytes(3) + b"," + bytes(4) + b"\xff" * 4 + b"\0\2", LARGE),
    "bomb.bmp": raw(bmp(24, 0, b"", (60_000, 60_000)), LARGE),
    "bomb.ppm": raw(b"P6 60000 60000 255\n", LARGE),
    "bomb.jpg": edited(jpeg(), lambda d: put(d.index(b"\xff\xc0") + 5, b"\xfd\xe8\xfd\xe8")(d), LARGE),
    "bomb.tif": edited(grey_tiff("<u1"), put(8 + WIDTH * HEIGHT + 2 + 8, b"\xff\xff\xff\0"), LARGE),
    "bomb.webp": raw(b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\x3f\0\xff\x3f\0" + bytes(8), LARGE),
}
CUT = ["UPPER.JPEG", "progressive.jpg", "rgb.png", "interlaced.png", "straight.gif", "lossless.webp", "lossy.webp"]
CUT += ["grey16-big.tif", "lzw.tif", "rgb.bmp", "rle.bmp", "rgb.avif", "rgb.jp2", "rgb.ppm", "rgb.tga", "icon.ico"]
for name in CUT:
    for share in (0.1, 0.5, 0.9):
        CASES[f"cut-{share}-{name}"] = edited(CASES[name], lambda d, share=share: d[: int(len(d) * share)], ANY)
