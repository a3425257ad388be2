"""Artifacts: what their folders say of them."""

import json

from tl_dagster.store.artifacts import ArtifactSummary


def test_settings_are_kept_without_secrets(store):
    declared = {"source": {"path": 'https://me:5ec4e7@host.example/a.tar?sig=5ec"4e7'}, "taps": ["stage1"], "size": 224}
    artifact = store.build("dataset", "f" * 64, lambda folder: ArtifactSummary(rows=1, computed=1), settings=declared)
    saved = (artifact.path / "artifact.json").read_text()
    assert "5ec" not in saved and artifact.settings == json.loads(saved)["settings"]
    assert artifact.settings["taps"] == ["stage1"] and artifact.settings["size"] == 224
    assert artifact.settings["source"]["path"].startswith("https://host.example/a.tar?…")
