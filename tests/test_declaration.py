"""Declarations: what is accepted, and how the rest is refused."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from tl_dagster.backbones.description import describe_backbone
from tl_dagster.backbones.settings import Backbone
from tl_dagster.graph import checked_declaration
from tl_dagster.graph.checked_declaration import CheckedDeclaration

SMALLEST = {"name": "cells", "source": {"kind": "folder", "path": "photos"}}


def refused(**fields) -> str:
    with pytest.raises(ValidationError) as caught:
        CheckedDeclaration.model_validate({**SMALLEST, **fields})
    return str(caught.value)


def test_a_network_that_cannot_be_trained_is_refused_at_load(store, monkeypatch):
    info = replace(describe_backbone(Backbone()), untunable="RuntimeError: modified by an inplace operation")
    monkeypatch.setattr(checked_declaration, "describe_backbone", lambda backbone: info)
    assert "fine_tuning.depth: timm/tf_efficientnet_lite0 cannot be fine-tuned" in refused()
    CheckedDeclaration.model_validate({**SMALLEST, "fine_tuning": {"depth": "none"}})


def test_smallest_declaration(store):
    declared = CheckedDeclaration.model_validate(SMALLEST)
    assert declared.backbone.name == "timm/tf_efficientnet_lite0"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"splitz": {}}, "did you mean 'splits'"),
        ({"splits": {"tets": 0.2}}, "did you mean 'test'"),
        ({"splits": {"test": 0.7, "validation": 0.4}}, "leaves nothing to train on"),
        ({"splits": {"test": 1.2}}, "less than 1"),
        ({"backbone": {"name": "resnet50"}}, "write timm/NAME or torchvision/NAME"),
        ({"backbone": {"name": "torchvision/resnet51"}}, "did you mean 'resnet50'"),
        ({"backbone": {"taps": ["stage9"]}}, "allowed: stage1, stage2, stage3, stage4, stage5, penultimate"),
        ({"backbone": {"taps": ["penultimat"]}}, "did you mean 'penultimate'"),
        ({"backbone": {"weights": "in1kk"}}, "did you mean 'in1k'"),
        ({"backbone": {"precision": "fp16"}}, "'auto', 'fp32' or 'bf16'"),
        ({"fine_tuning": {"depth": "above stage5"}, "backbone": {"taps": ["stage4"]}}, "left to tune"),
        ({"fine_tuning": {"depth": "last 9 stages"}}, "5 stages up to its taps"),
        ({"fine_tuning": {"depth": "deep"}}, "'above NAME'"),
        ({"fine_tuning": {"depth": "top"}, "transfer_strategy": {"strategy": "features-high"}}, "give one"),
        ({"fine_tuning": {"fresh_augmentation": True}, "augmentation": {"preset": "dihedral"}}, "no further views"),
        ({"transfer_strategy": {"strategy": "features-low"}, "backbone": {"taps": ["stage4"]}}, "lower tap too"),
        ({"top_model": {"kind": "tree"}}, "linear or mlp"),
        ({"augmentation": {"preset": "dihedral", "views": 9}}, "8 distinct views"),
        ({"augmentation": {"transforms": [{"HorizontalFlop": {}}]}}, "did you mean 'HorizontalFlip'"),
        ({"augmentation": {"transforms": [{"CenterCrop": {"height": 8, "width": 8}}]}}, "end with a Resize"),
        ({"schedule": {"cron": "every monday"}}, "five fields"),
        ({"schedule": {"cron": "0 3 * * *", "timezone": "Europe/Berln"}}, "did you mean 'Europe/Berlin'"),
        ({"name": "Cells!"}, "String should match pattern"),
        ({"source": {"kind": "bucket"}}, "folder"),
        (
            {"source": {"kind": "manifest", "path": "x.csv", "columns": ["file", "class"], "uri": "fiel"}},
            "did you mean 'file'",
        ),
        ({"source": {"kind": "manifest", "path": "x.csv", "bins": {"edges": [1.0], "names": ["a"]}}}, "2"),
    ],
)
def test_refused(store, fields, words):
    assert words in refused(**fields)
