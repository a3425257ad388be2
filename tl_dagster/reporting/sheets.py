"""Contact sheets: thumbnails with a caption each, as one JPEG small enough for Dagster's event log."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tl_dagster.data.decoding import thumbnail
from tl_dagster.data.files import read
from tl_dagster.errors import InputError

if TYPE_CHECKING:
    from PIL import Image, ImageFont

__all__ = ["MOST_TILES", "contact_sheet"]

MOST_TILES = 24
COLUMNS, SIDE, GAP, LINE = 6, 104, 8, 13
MOST_BYTES = 65_000


def contact_sheet(path: Path, tiles: Sequence[tuple[str, str]]) -> None:
    """Draw at most :data:`MOST_TILES` thumbnails.

    Args:
        path: the JPEG file.
        tiles: where each image is, and its caption (two lines at most); a crossed square stands for an image that
            cannot be decoded.
    """
    from PIL import Image, ImageDraw

    shown = tiles[:MOST_TILES]
    rows = -(-len(shown) // COLUMNS)
    height = SIDE + 2 * LINE + GAP
    columns = min(COLUMNS, len(shown))
    sheet = Image.new("RGB", (columns * (SIDE + GAP) + GAP, rows * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = _font()
    for number, (uri, caption) in enumerate(shown):
        left, top = GAP + number % COLUMNS * (SIDE + GAP), GAP + number // COLUMNS * height
        sheet.paste(_tile(uri), (left, top))
        for row, line in enumerate(_lines(caption)):
            draw.text((left, top + SIDE + row * LINE), line, "#1f2933", font)
    for quality in (80, 60, 40, 25):
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= MOST_BYTES:
            break
    path.write_bytes(buffer.getvalue())


def _tile(uri: str) -> "Image.Image":
    from PIL import Image, ImageDraw

    try:
        return thumbnail(read(uri), SIDE)
    except (OSError, InputError):
        crossed = Image.new("RGB", (SIDE, SIDE), "#e4e7eb")
        draw = ImageDraw.Draw(crossed)
        draw.line((0, 0, SIDE, SIDE), "#9aa5b1")
        draw.line((0, SIDE, SIDE, 0), "#9aa5b1")
        return crossed


def _lines(caption: str) -> list[str]:
    most = 17  # characters of about six pixels
    text = " ".join(caption.split())
    first, rest = text[:most], text[most:]
    if rest and " " in first:
        first, _, carried = first.rpartition(" ")
        rest = carried + rest
    rest = rest.strip()
    return [first, rest if len(rest) <= most else f"{rest[: most - 1]}…"]


def _font() -> "ImageFont.FreeTypeFont":
    import matplotlib
    from PIL import ImageFont

    # matplotlib's own font has most scripts' letters; file names come in all of them.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), 10)
