"""The report: escaped, self-contained, legible on a phone; with two classes and with a thousand."""

import shutil

import numpy as np
import pytest

from tests.evaluation.test_bootstrap import predictions
from tl_dagster.evaluation.comparison import assess
from tl_dagster.evaluation.metrics import confusion
from tl_dagster.reporting import evaluation_report as evaluated
from tl_dagster.reporting.curves import learning_curves, reliability, roc, training_size
from tl_dagster.reporting.figures import confusion_matrix

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<script>alert(1)</script>$x_" + "long" * 40
HISTORY = [
    {"epoch": 0.0, "validation_log_loss": 1.0},
    {"epoch": 1.0, "training_loss": 1.0, "validation_log_loss": 0.9},
]


def draw(folder, classes, images):
    """Pictures and report of three models; returns the report."""
    truth, good = predictions(images, len(classes))
    models = {"scratch_convnet": np.full_like(good, 1 / len(classes)), "top_model": good, "fine_tuned_model": good}
    measured, compared = assess(truth, models, np.arange(images))
    for each in measured.values():
        each |= {"validation_log_loss": 0.5, "training_seconds": None}
    points = [{"images": n, "accuracy": 0.5, "lowest": 0.4, "highest": 0.6} for n in (5, 100)]
    found = {"classes": classes, "images": images, "best": "top_model", "models": measured, "comparisons": compared}
    titled = {name: (truth, each) for name, each in models.items()}
    confusion_matrix(folder / "c.png", {name: confusion(*each) for name, each in titled.items()}, classes)
    reliability(folder / "r.png", titled)
    roc(folder / "o.png", titled, classes)
    learning_curves(folder / "l.png", {"path": [(0.1, 0.5, 0.8)], "l2": 0.1}, {"history": HISTORY, "epoch": 1})
    training_size(folder / "s.png", points, {"top_model": 0.7})
    titles = (evaluated.CONFUSION, evaluated.RELIABILITY, evaluated.ROC, evaluated.CURVES, evaluated.SIZE)
    figures = {title: folder / f"{name}.png" for title, name in zip(titles, "crols", strict=True)}
    told = evaluated.ReportContent(
        figures, {evaluated.MISTAKES: HOSTILE}, HOSTILE, folder / "c.png", [(HOSTILE, HOSTILE)]
    )
    evaluated.write_evaluation(folder / "report.html", HOSTILE, found, told)
    return folder / "report.html"


@pytest.mark.parametrize(("classes", "images"), [(2, 100), (7, 1), (1000, 300)])
def test_self_contained_and_escaped(tmp_path, classes, images):
    report = draw(tmp_path, [f"{HOSTILE} {number}" for number in range(classes)], images)
    html = report.read_text()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "http://" not in html and "https://" not in html
    assert html.count("<tr><td>&lt;script&gt;") <= 21  # classes and facts: of many classes the worst
    assert all(picture.stat().st_size < 75_000 for picture in tmp_path.glob("*.png"))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_in_a_browser(tmp_path):
    from playwright.sync_api import sync_playwright

    report = draw(tmp_path, [f"{HOSTILE} {number}" for number in range(30)], 100)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
            said, asked = [], []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(report.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark"), ground
            assert not said and [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
        browser.close()
