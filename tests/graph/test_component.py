"""The component: templates in its attributes, what Dagster adds in a defs.yaml, and errors that name their place."""

import json
import re

import dagster as dg
import pytest
import yaml
from dagster_shared.yaml_utils import parse_yaml_with_source_position

from tests.cli.test_cli import call
from tl_dagster import InputError, TransferLearning
from tl_dagster.graph.attributes import Attributes

SMALLEST = {"name": "cells", "source": {"kind": "folder", "path": "photos"}}


@pytest.fixture
def load(tmp_path, store):
    """Loads a declaration as Dagster does from a defs.yaml."""

    def load(**fields):
        path = tmp_path / "defs.yaml"
        path.write_text(yaml.dump({"type": "tl_dagster.TransferLearning", "attributes": {**SMALLEST, **fields}}))
        read = parse_yaml_with_source_position(path.read_text(), str(path))
        context = dg.ResolutionContext.default(read.source_position_tree).at_path("attributes")
        return TransferLearning.resolve_from_model(context, Attributes(read.value["attributes"])).declaration

    return load


def test_templates_in_every_kind_of_field(load, monkeypatch):
    for name, value in {"DATA": "2024_01", "TEST": "0.3", "TAPS": "['stage4', 'stage5']", "P": "0.25"}.items():
        monkeypatch.setenv(name, value)
    declared = load(
        description="007",
        source={"kind": "{{ 'folder' }}", "path": "{{ env.DATA }}"},
        splits={"test": "{{ env.TEST }}", "seed": "{{ env('SEED', '7') }}"},
        backbone={"taps": "{{ env.TAPS }}", "sha256": "{{ none }}"},
        augmentation={"transforms": [{"HorizontalFlip": {"p": "{{ env.P }}"}}]},
        schedule={"cron": "{{ '0 3 * * 1' }}"},
    )
    assert declared.source.model_dump()["path"] == "2024_01" and declared.description == "007"
    assert (declared.splits.test, declared.splits.seed) == (0.3, 7)
    assert declared.backbone.taps == ["stage4", "stage5"] and declared.backbone.sha256 is None
    assert declared.augmentation.transforms == [{"HorizontalFlip": {"p": 0.25}}]


@pytest.mark.parametrize("template", ["{{ env.NOWHERE }}", "{{ env.NOWHERE }}/photos", "{{ env('NOWHERE') }}"])
def test_a_variable_that_is_not_set_is_refused(load, template):
    with pytest.raises(Exception, match="environment variable NOWHERE is not set") as caught:
        load(source={"kind": "folder", "path": template})
    assert "defs.yaml:5: source.path: the environment" in str(caught.value) and "\n" not in str(caught.value)


def test_errors_name_file_line_and_field(load):
    with pytest.raises(InputError) as caught:
        load(splits={"seed": 1, "tets": 0.2}, fine_tuning={"epochs": "{{ 0 }}"})
    said = str(caught.value)
    # The keys of the file, in order: attributes, fine_tuning, epochs, name, source, kind, path, splits, seed, tets.
    assert re.search(r"defs\.yaml:10: splits: unknown field 'tets': did you mean 'test'\?", said)
    assert re.search(r"defs\.yaml:3: fine_tuning\.epochs: Input should be greater than or equal", said)
    assert len(said.splitlines()) == 2


def test_the_schema_has_templates_and_bounds():
    seed = Attributes.model_json_schema()["$defs"]["Splits"]["properties"]["test"]
    assert seed["if"]["pattern"] == r"\{[{%]" and seed["else"]["exclusiveMaximum"] == 1


def test_requirements_and_post_processing(project, monkeypatch):
    monkeypatch.setenv("DATA", str(project / "photos"))
    path = project / "assets" / "first" / "defs.yaml"
    written = yaml.safe_load(path.read_text())
    written["attributes"]["source"]["path"] = "{{ env.DATA }}"
    written["requirements"] = {"env": ["DATA"]}
    written["post_processing"] = {"assets": [{"target": "*", "attributes": {"tags": {"team": "vision"}}}]}
    path.write_text(yaml.dump(written))
    assert "validated successfully" in call(project, "dg", "check", "yaml", "--validate-requirements")
    listed = json.loads(call(project, "dg", "list", "defs", "--json"))
    tagged = {asset["asset_key"] for asset in listed["assets"] if "vision" in json.dumps(asset.get("tags"))}
    assert "first/evaluation" in tagged and "second/evaluation" not in tagged
    assert "tl_dagster.TransferLearning" in call(project, "dg", "list", "components")
