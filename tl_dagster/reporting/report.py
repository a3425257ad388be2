"""The HTML report of an evaluation: one self-contained file."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["write_report"]

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; } .wide { overflow-x: auto; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid #8884; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; background: white; border-radius: .5rem; }
small { opacity: .75; }
"""


def write_report(
    path: Path,
    title: str,
    lead: str,
    models: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[str, Path],
    facts: Sequence[tuple[str, str]],
) -> None:
    """Write the report.

    Args:
        path: the HTML file.
        title: its heading; escaped, like every text here.
        lead: a sentence under it.
        models: name → metrics (see :func:`tl_dagster.training.metrics.measure`).
        pictures: caption → PNG file.
        facts: label and text of how it came about.
    """
    head = (
        "<tr><th>model</th><th>test accuracy</th><th>95 % interval</th>"
        "<th>balanced</th><th>macro-F1</th><th>log-loss</th></tr>"
    )
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{m['accuracy']:.4f}</td>"
        f"<td>{m['accuracy_low']:.4f} – {m['accuracy_high']:.4f}</td>"
        f"<td>{m['balanced_accuracy']:.4f}</td><td>{m['macro_f1']:.4f}</td><td>{m['log_loss']:.4f}</td></tr>"
        for name, m in models.items()
    )
    shown = "".join(
        f'<h2>{escape(caption)}</h2><img alt="{escape(caption)}" src="data:image/png;base64,'
        f'{base64.b64encode(file.read_bytes()).decode()}">'
        for caption, file in pictures.items()
    )
    known = "".join(f"<tr><td>{escape(label)}</td><td>{escape(text)}</td></tr>" for label, text in facts)
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1><p>{escape(lead)}</p>"
        f'<div class="wide"><table>{head}{rows}</table></div>{shown}'
        f'<h2>How it came about</h2><div class="wide"><table>{known}</table></div></body></html>',
        encoding="utf-8",
    )
