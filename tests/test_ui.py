"""Dagster's own UI, in a real browser: runs, pictures, checks, a schedule, a backfill, a rollback of the champion."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml

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

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")


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


@pytest.fixture
def declared(project):
    """The first pipeline with a schedule and a leaderboard."""
    file = project / "assets" / "first" / "defs.yaml"
    component = yaml.safe_load(file.read_text())
    backbones = [{"name": "timm/tf_efficientnet_lite0", "image_size": 64}]
    component["attributes"] |= {
        "schedule": {"cron": "0 3 * * 1"},
        "backbone_leaderboard": {"backbones": backbones, "taps": ["lower", "higher"]},
    }
    file.write_text(yaml.safe_dump(component))


def wait_for(found: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@needs_chromium
def test_a_pipeline_from_its_first_run_to_its_leaderboard(declared, ui, page):
    instance = dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"])
    page.goto(f"{ui}/locations/tl_dagster/asset-groups/first/lineage")
    for stage in (each for each in STAGES if each.name not in ("scratch_baseline", "strategy_verification")):
        shortened = re.compile(f"^{stage.name[:7]}")  # long names are cut in the middle
        page.get_by_text(shortened).first.wait_for(timeout=60_000)
    page.get_by_role("button", name="Materialize all").first.click()
    page.get_by_text("Launched run").wait_for(timeout=60_000)
    wait_for(lambda: instance.get_runs() and instance.get_runs()[0].is_finished)
    page.goto(f"{ui}/runs")
    page.get_by_text("Success").first.wait_for(timeout=30_000)

    page.goto(f"{ui}/assets/first/evaluation")
    page.get_by_text("[Show Markdown]").first.click(timeout=30_000)
    picture = page.locator("img[src^='data:image']").first
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 100
    page.goto(f"{ui}/assets/first/evaluation?view=checks")
    for check in ("better_than_majority", "every_class_predicted", "calibrated"):
        page.get_by_text(check).first.wait_for(timeout=30_000)
    page.goto(f"{ui}/assets/first/fine_tuned_model")
    page.get_by_text("From bottleneck_features: id.").wait_for(timeout=30_000)  # the lineage of a column

    page.goto(f"{ui}/automation")
    for status in ("STOPPED", "RUNNING"):
        page.locator("a[href$='/schedules/first_schedule'] + div label").click(timeout=30_000)
        wait_for(
            lambda status=status: (
                status
                in [each.status.value for each in instance.all_instigator_state() if each.name == "first_schedule"]
            ),
            30,
        )

    page.goto(f"{ui}/assets/first/backbone_leaderboard")
    page.get_by_role("button", name="Materialize").first.click(timeout=30_000)
    for number in range(2):
        page.get_by_role("button", name="All", exact=True).nth(number).click()
    page.get_by_role("button", name="Launch backfill").click()
    key = dg.AssetKey(["first", "backbone_leaderboard"])
    wait_for(lambda: instance.get_latest_materialization_event(key))
    page.goto(f"{ui}/assets/first/backbone_leaderboard")
    page.get_by_text("best: timm/tf_efficientnet_lite0").first.wait_for(timeout=30_000)
    assert len(instance.get_materialized_partitions(key)) == 2


@needs_chromium
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


@needs_chromium
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
