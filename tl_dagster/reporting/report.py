"""The HTML report of an evaluation: one self-contained file, without scripts."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["Picture", "Section", "Table", "render_report"]

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
        links: (text, address relative to the report) of files.
        details: text that is folded in until the reader opens it, as it is written.
        note: small print at the end.
    """

    title: str
    text: Sequence[str] = ()
    table: Table | None = None
    figures: Sequence[Picture] = ()
    links: Sequence[tuple[str, str]] = ()
    details: str = ""
    note: str = ""


def render_report(title: str, byline: Sequence[str], lead: Sequence[str], sections: Sequence[Section]) -> str:
    """Return the report as HTML.

    Args:
        title: its heading; escaped, like every text here.
        byline: short facts under the heading, such as the date.
        lead: paragraphs under them: the summary.
        sections: the rest, in order.
    """
    html: str = _environment().get_template(TEMPLATE).render(title=title, byline=byline, lead=lead, sections=sections)
    return html


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
