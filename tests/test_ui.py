"""Dagster's own UI, in a real browser: the lineage, and the asset checks."""

import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from benchmarks.harness.daemon import free_port
from tl_dagster.graph.stages import STAGES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture
def ui(project):
    """The address of Dagster's UI on a project with two declared pipelines."""
    port = free_port()
    command = [
        Path(sys.executable).parent / "dagster-webserver",
        "-w",
        "workspace.yaml",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    server = subprocess.Popen(command, cwd=project, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{url}/server_info", timeout=1)  # noqa: S310
            break
        except OSError:
            time.sleep(0.5)
    yield url
    server.terminate()
    server.wait()


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
