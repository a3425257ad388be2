"""Contact sheets: thumbnails with captions, as one JPEG small enough for Dagster's event log."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from tl_dagster.data.decoding import thumbnail
from tl_dagster.data.files import read
from tl_dagster.reporting.fonts import Letters
from tl_dagster.runtime.errors import InputError

__all__ = ["GAP", "INK", "LINE", "MOST_TILES", "contact_sheet", "save_jpeg", "tile"]

MOST_TILES = 24
COLUMNS, SIDE, GAP, LINE = 6, 104, 8, 13
MOST_BYTES = 65_000
INK = "#1f2933"


def contact_sheet(path: Path, tiles: Sequence[tuple[str, str]]) -> None:
    """Draw at most :data:`MOST_TILES` thumbnails.

    Args:
        path: the JPEG file.
        tiles: (URI, caption) of each image, the caption on two lines at most; a crossed square replaces an image
            that cannot be decoded.
    """
    tiles = tiles[:MOST_TILES]
    rows = -(-len(tiles) // COLUMNS)
    height = SIDE + 2 * LINE + GAP
    columns = min(COLUMNS, len(tiles))
    sheet = Image.new("RGB", (columns * (SIDE + GAP) + GAP, rows * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    letters = Letters(10)
    for number, (uri, caption) in enumerate(tiles):
        left, top = GAP + number % COLUMNS * (SIDE + GAP), GAP + number // COLUMNS * height
        sheet.paste(tile(uri, SIDE), (left, top))
        for row, line in enumerate(letters.wrap(caption, SIDE)):
            letters.draw(draw, (left, top + SIDE + row * LINE), line, INK)
    save_jpeg(sheet, path, MOST_BYTES)


def tile(uri: str, side: int) -> Image.Image:
    """Return an image in a square of ``side`` pixels; a crossed square if it cannot be decoded."""
    try:
        return thumbnail(read(uri), side)
    except (OSError, InputError):
        crossed = Image.new("RGB", (side, side), "#e4e7eb")
        draw = ImageDraw.Draw(crossed)
        draw.line((0, 0, side, side), "#9aa5b1")
        draw.line((0, side, side, 0), "#9aa5b1")
        return crossed


def save_jpeg(sheet: Image.Image, path: Path, most_bytes: int) -> None:
    """Write a sheet at the highest quality within a size in bytes; scaled down if even the lowest exceeds it."""
    for scale in (1.0, 0.8, 0.6, 0.4):
        size = [max(1, round(length * scale)) for length in sheet.size]
        scaled = sheet if scale == 1 else sheet.resize((size[0], size[1]))
        for quality in (80, 70, 60, 50, 40, 30):
            buffer = io.BytesIO()
            scaled.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
            if buffer.tell() <= most_bytes:
                path.write_bytes(buffer.getvalue())
                return
    path.write_bytes(buffer.getvalue())
