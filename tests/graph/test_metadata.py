"""Metadata of assets for Dagster's UI."""

from pathlib import Path

from tl_dagster import Declaration
from tl_dagster.graph.metadata import static_metadata
from tl_dagster.graph.stages.dataset import Dataset


def test_no_secret_of_a_url_is_in_the_settings_that_are_shown():
    url = "https://me:5ec4e7@host.example/photos.zip?signature=5ec4e7"
    declared = Declaration.model_validate({"name": "p", "source": {"kind": "archive", "path": url}})
    shown = static_metadata(Dataset(declared, Path()))["settings"].value["source"]
    assert shown["path"] == "https://host.example/photos.zip?…" and shown["kind"] == "archive"
