"""The character encodings of text tables."""

import codecs
from pathlib import Path

__all__ = ["explain_encoding"]

SAMPLE = 2**20  # bytes that a guess is made from
MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def explain_encoding(path: Path, declared: str | None) -> str:
    """Return what is wrong with a text table that cannot be decoded, and which encoding it may have.

    Args:
        path: the table.
        declared: the declared encoding, if there is one.
    """
    wrong = f"it is not {declared or 'UTF-8'}"
    guess = _guess(path)
    return f"{wrong}; set source.encoding" + (f", perhaps to {guess}" if guess else " to its encoding")


def _guess(path: Path) -> str | None:
    """Return the likely encoding of a file; None where nothing fits, or the file is compressed."""
    import charset_normalizer

    with path.open("rb") as file:
        sample = file.read(SAMPLE)
    if sample[:2] in MARKS:
        return MARKS[sample[:2]]
    best = charset_normalizer.from_bytes(sample).best()
    return best.encoding if best else None
