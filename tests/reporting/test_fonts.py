"""Labels in any script: an installed font draws them; without one they are escaped, never boxes that look alike."""

import warnings

import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from tl_dagster.reporting import fonts
from tl_dagster.reporting.figures import class_balance, short_name
from tl_dagster.reporting.fonts import Letters


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes one font the only installed one: it has a black square for each character given."""

    def install(characters):
        pen = TTGlyphPen(None)
        pen.moveTo((50, 0))
        for point in ((50, 800), (950, 800), (950, 0)):
            pen.lineTo(point)
        pen.closePath()
        names = {ord(each): f"glyph{number}" for number, each in enumerate(characters)}
        order = [".notdef", *names.values()]
        builder = FontBuilder(1000, isTTF=True)
        builder.setupGlyphOrder(order)
        builder.setupCharacterMap(names)
        builder.setupGlyf({name: TTGlyphPen(None).glyph() if name == ".notdef" else pen.glyph() for name in order})
        builder.setupHorizontalMetrics(dict.fromkeys(order, (1000, 0)))
        builder.setupHorizontalHeader(ascent=900, descent=-200)
        builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
        builder.setupOS2()
        builder.setupPost()
        path = tmp_path / "Squares-Regular.ttf"
        builder.save(path)
        monkeypatch.setattr(fonts, "findSystemFonts", lambda: [str(tmp_path / "none.ttf"), str(path)])

    fonts._fonts.cache_clear()
    monkeypatch.setattr(fonts, "findSystemFonts", list)
    yield install
    fonts._fonts.cache_clear()


def ink(text: str) -> int:
    sheet = Image.new("L", (200, 30), 255)
    Letters(20).draw(ImageDraw.Draw(sheet), (0, 0), text, "black")
    return int((np.asarray(sheet) < 128).sum())


def test_a_character_that_no_font_has_is_escaped(installed):
    assert short_name("猫 cat") == r"\u732b cat"
    assert short_name("猫") != short_name("犬")
    assert short_name("bell\x07$") == r"bell\x07\$"
    assert short_name("猫" * 9) == r"\u732b\u732b…"
    assert short_name("кошка ñandú ﻗﻂ") == "кошка ñandú ﻗﻂ"


def test_an_installed_font_draws_what_the_own_one_lacks(installed, tmp_path):
    installed("猫犬")
    assert short_name("猫犬 鳥") == r"猫犬 \u9ce5"
    assert ink("猫") > 200 and ink("猫猫") == 2 * ink("猫") and ink("a猫") > ink("猫")
    assert Letters(20).fit("猫" * 30, 100) == "猫猫猫猫…" and Letters(20).wrap("猫 犬", 25) == ["猫", "犬"]
    counts = pd.DataFrame({"train": [3, 4], "validation": [1, 1], "test": [1, 1]}, index=["猫", "犬"])
    with warnings.catch_warnings(action="error"):  # matplotlib warns of a glyph that it lacks
        class_balance(tmp_path / "squares.png", counts)
        class_balance(tmp_path / "letters.png", counts.set_axis(["a", "b"]))
    squares, letters = (
        (np.asarray(Image.open(tmp_path / name).convert("L")) < 60) for name in ("squares.png", "letters.png")
    )
    assert squares[:, :80].sum() > letters[:, :80].sum() + 50


def test_a_text_of_a_thousand_letters_is_cut_to_its_width(installed):
    first, second = Letters(10).wrap("long " * 200, 100)
    assert first.startswith("long long") and second.endswith("…")
    assert Letters(10).fit("", 100) == "" and Letters(10).wrap("", 100) == ["", ""]
