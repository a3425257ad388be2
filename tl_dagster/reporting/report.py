"""The HTML report of an evaluation: one self-contained file, without scripts."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

__all__ = ["Picture", "Section", "Table", "write_report"]

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem 1rem 4rem;
  overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1rem 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
.lead { font-size: 1.15rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .35rem .55rem; border-bottom: 1px solid #8884; text-align: right; white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
table.texts td { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
table.texts td:first-child { white-space: nowrap; opacity: .75; }
tr.best td { font-weight: 600; }
figure { margin: 1rem 0 1.75rem; }
figure img { display: block; box-sizing: border-box; max-width: 100%; height: auto; background: #fff; padding: .5rem;
  border: 1px solid #8883; border-radius: .5rem; }
figcaption, .note { font-size: .9rem; opacity: .8; margin-top: .35rem; }
"""


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        rows: its cells, row after row.
        head: names of the columns; without them it is a list of names and texts.
        best: the row to stress.
    """

    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()
    best: int | None = None


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        title: what it is.
        file: PNG or JPEG.
        caption: how to read it.
    """

    title: str
    file: Path
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        text: paragraphs under it.
        table: and a table.
        figures: and pictures.
        note: small print at its end.
    """

    title: str
    text: Sequence[str] = ()
    table: Table | None = None
    figures: Sequence[Picture] = ()
    note: str = ""


def write_report(path: Path, title: str, lead: Sequence[str], sections: Sequence[Section]) -> None:
    """Write the report.

    Args:
        path: the HTML file.
        title: its heading; escaped, like every text here.
        lead: paragraphs under it: what a reader in a hurry reads.
        sections: the rest.
    """
    said = "".join(f'<p class="lead">{escape(paragraph)}</p>' for paragraph in lead)
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head><body>\n<h1>{escape(title)}</h1>{said}\n"
        f"{''.join(_section(section) for section in sections)}</body></html>\n",
        encoding="utf-8",
    )


def _section(section: Section) -> str:
    paragraphs = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in section.text)
    table = _table(section.table) if section.table else ""
    figures = "".join(_picture(picture) for picture in section.figures)
    note = f'<p class="note">{escape(section.note)}</p>' if section.note else ""
    return f"<section><h2>{escape(section.title)}</h2>{paragraphs}{table}{figures}{note}</section>\n"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.head)
    rows = "".join(_row(row, best=number == table.best) for number, row in enumerate(table.rows))
    kind = "" if table.head else ' class="texts"'
    return f'<div class="wide"><table{kind}>{f"<tr>{head}</tr>" if head else ""}{rows}</table></div>'


def _row(cells: Sequence[str], *, best: bool) -> str:
    shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f'<tr class="best">{shown}</tr>' if best else f"<tr>{shown}</tr>"


def _picture(picture: Picture) -> str:
    kind = "jpeg" if picture.file.suffix == ".jpg" else "png"
    content = base64.b64encode(picture.file.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(picture.title)}" src="data:image/{kind};base64,{content}">'
        f"<figcaption>{escape(picture.title)}: {escape(picture.caption)}</figcaption></figure>"
    )
