"""The report of a pipeline: its own name, settings and links, also where another pipeline has the same evaluation."""

from pathlib import Path

from PIL import Image

from tests.conftest import Pipeline
from tl_dagster import Declaration
from tl_dagster.graph import report
from tl_dagster.graph.stage import RunInfo
from tl_dagster.store.artifacts import Artifact, ArtifactSummary


def test_pipelines_that_share_an_evaluation_have_their_own_reports(pipeline: Pipeline, photos: Path):
    depth = {"fine_tuning": {"depth": "none", "epochs": 1}}
    assert pipeline.run(**depth, description="First <b>one</b>").success
    assert pipeline.run(
        **depth, name="others", source={"kind": "folder", "path": str(photos.parent / "photos")}
    ).success
    shared = {pipeline.held(name)["evaluation"].artifact.fingerprint for name in ("cells", "others")}
    (fingerprint,) = shared
    reports = [pipeline.store.layout.report(name, fingerprint).read_text() for name in ("cells", "others")]
    run = pipeline.instance.get_runs()[-1]
    assert "<h1>cells: evaluation</h1>" in reports[0] and "<h1>others: evaluation</h1>" in reports[1]
    assert "First &lt;b&gt;one&lt;/b&gt;" in reports[0] and run.run_id[:8] in reports[0]
    assert "<td>splits.test</td><td>0.3</td>" in reports[0]  # of the settings that were declared
    links = [part.split('"')[0] for part in reports[0].split('<a href="')[1:]]
    folder = pipeline.store.layout.reports / "cells"
    assert len(links) > 4 and all((folder / link).exists() for link in links)
    # Nothing was tuned: the two models are one, and drawn once.
    assert "Nothing was fine-tuned" in reports[0]
    figures = pipeline.held()["evaluation"].artifact
    sizes = {name: Image.open(figures.path / file).width for name, file in figures.summary.figures.items()}
    assert sizes["Learning curves"] < 400 and sizes["Confusion matrices"] < 400


def test_no_secret_of_a_url_is_in_a_report(store, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(report, "render_evaluation", lambda folder, head: shown.append(head) or "")
    url = "https://me:5ec4e7@host.example/" + "photos " * 30 + "/all.zip?signature=5ec4e7"
    declared = Declaration.model_validate({"name": "p", "source": {"kind": "archive", "path": url.replace(" ", "-")}})
    evaluation = Artifact("evaluation", "0" * 64, "0" * 64, tmp_path, ArtifactSummary(0, 0), {}, {})
    report.write_report(declared, store, evaluation, {}, RunInfo("run", None))
    assert "host.example" in str(shown) and "5ec4e7" not in str(shown)
