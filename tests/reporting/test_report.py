"""The report: escaped, self-contained, legible on a phone; with two classes and with a thousand."""

import json
import shutil

import numpy as np
import pytest

from tests.evaluation.test_bootstrap import predictions
from tl_dagster.evaluation.comparison import assess
from tl_dagster.evaluation.metrics import confusion
from tl_dagster.evaluation.results import METRICS, EvaluationResults
from tl_dagster.reporting import evaluation_report
from tl_dagster.reporting.curves import EpochHistory, L2Path, learning_curves, reliability, roc, training_size
from tl_dagster.reporting.figures import confusion_matrix

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<script>alert(1)</script>$x_" + "long" * 40
HISTORY = [
    {"epoch": 0.0, "validation_log_loss": 1.0},
    {"epoch": 1.0, "training_loss": 1.0, "validation_log_loss": 0.9},
]


def evaluation(classes, images):
    """Class numbers, probabilities and results of three models."""
    truth, good = predictions(images, len(classes))
    models = {"scratch_convnet": np.full_like(good, 1 / len(classes)), "top_model": good, "fine_tuned_model": good}
    measured, comparisons = assess(truth, models, np.arange(images))
    for model in measured.values():
        model |= {"validation_log_loss": 0.5, "training_seconds": None, "confusion": [(0, 1, images)]}
    point = {"fraction": 0.1, "accuracy": 0.5, "lowest": 0.4, "highest": 0.6, "repeats": 3}
    content = {"classes": classes, "images": images, "groups": images, "best": "top_model", "models": measured}
    content |= {"comparisons": comparisons, "learning_curve": [point | {"images": count} for count in (5, 100)]}
    return truth, models, EvaluationResults.from_json(content)


def draw(folder, classes, images):
    """Pictures and report of three models; returns the report."""
    truth, models, results = evaluation(classes, images)
    titled = {name: (truth, probabilities) for name, probabilities in models.items()}
    confusion_matrix(folder / "c.png", {name: confusion(*model) for name, model in titled.items()}, classes)
    reliability(folder / "r.png", titled)
    roc(folder / "o.png", titled, classes)
    learning_curves(folder / "l.png", L2Path([(0.1, 0.5, 0.8)], 0.1), EpochHistory(HISTORY, 1))
    training_size(folder / "s.png", results.learning_curve, {"top_model": 0.7})
    titles = ("CONFUSION", "RELIABILITY", "ROC", "CURVES", "SIZE")
    content = evaluation_report.ReportContent(
        figures={getattr(evaluation_report, title): f"{name}.png" for title, name in zip(titles, "crols", strict=True)},
        notes={evaluation_report.MISTAKES: HOSTILE},
        reasons=[HOSTILE],
        strategy=HOSTILE,
        quadrants="c.png",
        provenance=[(HOSTILE, HOSTILE)],
    )
    evaluation_report.write_content(folder, content)
    (folder / METRICS).write_text(json.dumps(results.to_json()))
    rows = [(HOSTILE, HOSTILE)]
    head = evaluation_report.ReportHead(HOSTILE, [HOSTILE], settings=rows, all_settings=HOSTILE * 3, links=rows)
    (folder / "report.html").write_text(evaluation_report.render_evaluation(folder, head))
    return folder / "report.html"


@pytest.mark.parametrize(("classes", "images"), [(2, 100), (7, 1), (1000, 300)])
def test_self_contained_and_escaped(tmp_path, classes, images):
    report = draw(tmp_path, [f"{HOSTILE} {number}" for number in range(classes)], images)
    html = report.read_text()
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "http://" not in html and "https://" not in html
    assert html.count("<tr><td>&lt;script&gt;") <= 22  # classes, facts and settings: of many classes the worst
    assert all(picture.stat().st_size < 75_000 for picture in tmp_path.glob("*.png"))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_in_a_browser(tmp_path):
    from playwright.sync_api import sync_playwright

    report = draw(tmp_path, [f"{HOSTILE} {number}" for number in range(30)], 100)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
            messages, requests = [], []
            page.on("console", lambda message, messages=messages: messages.append(message.text))
            page.on("request", lambda request, requests=requests: requests.append(request.url))
            page.goto(report.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
            assert not messages and [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
        browser.close()
