"""Dagster's own UI, in a real browser: the lineage, the asset checks, and a rollback of the champion."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.harness.daemon import Daemon
from benchmarks.harness.projects import Project
from tl_dagster.graph.stages import STAGES
from tl_dagster.store.artifacts import ArtifactStore, ArtifactSummary, Materialization
from tl_dagster.store.registry import ChampionRegistry, Verdict

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture
def ui(project):
    """The address of `dagster dev` on a project with two declared pipelines."""
    with Daemon(Project(project, "first", dict(os.environ))) as daemon:
        yield f"http://127.0.0.1:{daemon.port}"


@pytest.fixture
def page():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser.new_page(viewport={"width": 1600, "height": 900})
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_lineage(ui, page):
    page.goto(f"{ui}/locations/tl_dagster/asset-groups/first/lineage")
    for stage in (each for each in STAGES if each.name not in ("scratch_baseline", "strategy_verification")):
        shortened = re.compile(f"^{stage.name[:7]}")  # long names are cut in the middle
        page.get_by_text(shortened).first.wait_for(timeout=30_000)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_check_with_its_table_and_thumbnails(project, photos, ui, page):
    (photos / "functional" / "<script>alert(1)<|script>.png").write_bytes(b"no image")
    run = [Path(sys.executable).parent / "tl-dagster", "run", "first"]
    assert subprocess.run(run, cwd=project, check=False).returncode == 0
    alerts = []
    page.on("dialog", lambda dialog: alerts.append(dialog.message))
    page.goto(f"{ui}/assets/first/dataset?view=checks&checkDetail=readable")
    page.get_by_text("files that cannot be used: 1 of 61").first.wait_for(timeout=30_000)
    page.get_by_text("<script>alert(1)<|script>.png").first.wait_for()
    page.get_by_text("[Show Markdown]").first.click()
    sheet = page.get_by_role("img", name="Set aside")
    sheet.wait_for()
    assert sheet.evaluate("image => image.naturalWidth") > 100
    assert not alerts


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_champion_is_rolled_back(project, ui, page):
    """Materialize `champion` alone with `put_in_service: previous`, as a person does; no model is trained for it."""
    store = ArtifactStore()
    for asset in ("dataset", "top_model", "evaluation", "fine_tuned_model"):
        built = store.build(asset, "b" * 64, lambda folder: ArtifactSummary(rows=1, computed=1))
        store.set_current("first", asset, Materialization(built, reused=False, computed=1, reused_rows=0))
    store.build("fine_tuned_model", "a" * 64, lambda folder: ArtifactSummary(rows=1, computed=1))
    registry = ChampionRegistry(store.layout.registry("first"))
    for model in ("a" * 64, "b" * 64):
        verdict = Verdict(kind="promoted", champion=model, challenger=model, reason="for the test")
        registry.append(registry.decisions(), verdict)

    page.goto(f"{ui}/assets/first/champion")
    page.wait_for_load_state("networkidle")
    page.get_by_role("button", name="Materialize").first.click(modifiers=["Shift"], timeout=60_000)
    page.get_by_role("button", name="Confirm").click(timeout=30_000)  # Dagster did not see these artifacts being made
    page.get_by_text("Launchpad (configure assets)").wait_for(timeout=30_000)
    page.locator(".CodeMirror").first.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("ops: {first__champion: {config: {put_in_service: previous, reason: forgets cells}}}")
    page.get_by_text("No errors").wait_for(timeout=30_000)
    page.get_by_role("button", name="Materialize").last.click()
    for _ in range(120):
        if len(registry.decisions()) == 3:
            break
        time.sleep(0.5)
    last = registry.decisions()[-1]
    assert (last.kind, last.champion, last.reason) == ("rolled back", "a" * 64, "by hand: forgets cells")
    page.goto(f"{ui}/assets/first/champion")
    page.get_by_text("by hand: forgets cells").first.wait_for(timeout=30_000)
