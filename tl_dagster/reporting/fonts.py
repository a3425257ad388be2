"""Fonts for labels in any script: matplotlib's own where it has the character, else one that is installed."""

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

import matplotlib
from matplotlib.font_manager import findSystemFonts, fontManager, get_font
from PIL import ImageDraw, ImageFont

__all__ = ["Letters", "drawable_parts", "font_families"]

OWN = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
PREFERRED = ("regular", "sans")  # words in the names of fonts for plain text
NOT_FOR_TEXT = ("lastresort", "emoji")


class FontSearch:
    """Finds a font for each character; what was found is remembered."""

    def __init__(self) -> None:
        self._found: dict[str, Path | None] = {}

    def find(self, characters: Iterable[str]) -> dict[str, Path | None]:
        """Return the font file of each character: matplotlib's own, else an installed one; None where none has it.

        No font has control characters.
        """
        wanted = set(characters)
        missing = {character for character in wanted - self._found.keys() if character.isprintable()}
        if missing:
            self._search(missing, [OWN])
        if missing:
            self._search(missing, _installed())
        self._found.update(dict.fromkeys(missing))
        return {character: self._found.get(character) for character in wanted}

    def _search(self, missing: set[str], files: Iterable[Path]) -> None:
        """Move characters that a font has from ``missing`` to those found."""
        for file in files:
            if not missing:
                return
            covered = _covered(file, missing)
            self._found.update(dict.fromkeys(covered, file))
            missing -= covered


@cache
def _fonts() -> FontSearch:
    return FontSearch()


def _installed() -> list[Path]:
    """Return the machine's font files, those for plain text first; read anew, unlike matplotlib's own list."""
    files = [Path(file) for file in findSystemFonts()]
    fit = [file for file in files if not any(word in file.name.lower() for word in NOT_FOR_TEXT)]
    return sorted(fit, key=lambda file: (-sum(word in file.name.lower() for word in PREFERRED), file.name))


def _covered(file: Path, characters: set[str]) -> set[str]:
    try:
        font = get_font(str(file))
        return {each for each in characters if font.get_char_index(ord(each))} if font.scalable else set()
    except (OSError, RuntimeError):  # not a font that FreeType reads
        return set()


def drawable_parts(text: str) -> list[str]:
    r"""Return the characters of a text on one line; one that no font has is its escape, such as ``\u732b``."""
    line = " ".join(text.split())
    fonts = _fonts().find(line)
    return [each if fonts[each] else each.encode("unicode_escape").decode() for each in line]


def font_families(text: str) -> list[str]:
    """Return the families that draw all of a text together, matplotlib's own first; they are known to matplotlib."""
    files = sorted({file for file in _fonts().find(text).values() if file not in (None, OWN)}, key=str)
    known = {Path(entry.fname) for entry in fontManager.ttflist}
    for file in files:
        if file not in known:
            fontManager.addfont(str(file))
    return ["DejaVu Sans", *(get_font(str(file)).family_name for file in files if file)]


class Letters:
    """Draws texts of one size on Pillow images, each character in a font that has it.

    Args:
        size: in pixels.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._ascent = _pillow_font(OWN, size).getmetrics()[0]

    def draw(self, draw: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, color: str) -> None:
        """Draw a text on one line.

        Args:
            draw: of the image.
            corner: left and top, in pixels.
            text: see :func:`drawable_parts` for characters that no font has.
            color: of the letters.
        """
        left, baseline = corner[0], corner[1] + self._ascent
        for run, font in self._runs(text):
            draw.text((left, baseline), run, color, font, anchor="ls")
            left += font.getlength(run)

    def fit(self, text: str, width: int) -> str:
        """Return a text on one line, cut to a width in pixels."""
        parts = drawable_parts(text)
        if self._length(parts) <= width:
            return "".join(parts)
        return f"{''.join(parts[: self._count(parts, width, '…')])}…"

    def wrap(self, text: str, width: int) -> list[str]:
        """Return a text on two lines, of which the second is cut to the width in pixels and may be empty."""
        parts = drawable_parts(text)
        count = self._count(parts, width)
        if count < len(parts) and " " in parts[:count]:
            count -= parts[:count][::-1].index(" ")
        return ["".join(parts[:count]).strip(), self.fit("".join(parts[count:]), width)]

    def _count(self, parts: Sequence[str], width: int, end: str = "") -> int:
        """Return how many characters fit a width, with an end behind them."""
        low, high = 0, min(len(parts), width)  # no letter is narrower than a pixel
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._length([*parts[:middle], end]) <= width else (low, middle - 1)
        return low

    def _length(self, parts: Sequence[str]) -> float:
        return sum(font.getlength(run) for run, font in self._runs("".join(parts)))

    def _runs(self, text: str) -> list[tuple[str, ImageFont.FreeTypeFont]]:
        parts = drawable_parts(text) if text.strip() else []
        files = _fonts().find("".join(parts))
        return [
            ("".join(run), _pillow_font(file or OWN, self._size))
            for file, run in groupby("".join(parts), lambda character: files[character])
        ]


@cache
def _pillow_font(file: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), size)
