"""The HTML report of an evaluation: one self-contained file, without scripts."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["Picture", "Section", "Table", "write_report"]

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        rows: the texts of the cells, row by row.
        head: names of the columns; without them the table is a list of names and texts.
        best: number of the row in bold type.
    """

    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()
    best: int | None = None


@dataclass(frozen=True)
class Picture:
    """A picture with its caption.

    Attributes:
        title: name of the picture.
        file: PNG or JPEG.
        caption: explanation for the reader.
    """

    title: str
    file: Path
    caption: str

    def data_uri(self) -> str:
        """Return the file's content as a ``data:`` URI, so that the report needs no other file."""
        kind = "jpeg" if self.file.suffix == ".jpg" else "png"
        return f"data:image/{kind};base64,{base64.b64encode(self.file.read_bytes()).decode()}"


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: heading.
        text: paragraphs under the heading.
        table: shown after the text.
        figures: shown after the table.
        note: small print at the end.
    """

    title: str
    text: Sequence[str] = ()
    table: Table | None = None
    figures: Sequence[Picture] = ()
    note: str = ""


def write_report(path: Path, title: str, lead: Sequence[str], sections: Sequence[Section]) -> None:
    """Render the report to a file.

    Args:
        path: the HTML file, written as UTF-8.
        title: its heading; escaped, like every text here.
        lead: paragraphs under the heading: the summary.
        sections: the rest, in order.
    """
    html = _environment().get_template(TEMPLATE).render(title=title, lead=lead, sections=sections)
    path.write_text(html, encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("tl_dagster.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
