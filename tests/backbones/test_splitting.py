"""Backbones split for fine-tuning: what is trained is what the whole network does with its present parameters."""

import pytest
import torch

from tl_dagster.backbones import splitting
from tl_dagster.backbones.description import describe_backbone
from tl_dagster.backbones.frozen import FrozenBackbone, build_resize
from tl_dagster.backbones.settings import Backbone
from tl_dagster.backbones.splitting import KEPT_BIASES, split_backbone
from tl_dagster.backbones.weights import Weights
from tl_dagster.training.fine_tuning import frozen_digest


def load(name: str) -> FrozenBackbone:
    """A backbone with random weights, at its own size."""
    settings = Backbone(name=name, weights="random:0", image_size=224)
    info = describe_backbone(settings)
    mean, std = info.preprocess["mean"], info.preprocess["std"]
    return FrozenBackbone(info, Weights(None, "random:0"), build_resize(info, settings), mean, std, "fp32")


def test_modules_that_are_used_below_and_above_stay_frozen(store):
    backbone = load("timm/coat_tiny")
    split = split_backbone(backbone, backbone.load(), [("penultimate", "avg")], "stage1")
    trained = {name for name, each in split.upper.named_parameters() if each.requires_grad}
    assert split.reads_images and any("parallel_blocks" in name for name in trained)
    assert not any("serial_blocks1" in name or "cpe1" in name for name in trained)
    before = frozen_digest(split.upper)
    split.upper(torch.rand(2, 3, 224, 224))[0].square().sum().backward()
    with torch.no_grad():
        for each in split.upper.parameters():
            each -= 0 if each.grad is None else each.grad.sign()
    assert frozen_digest(split.upper) == before


@pytest.mark.parametrize("whole", [False, True])
def test_attention_biases_that_a_network_keeps_are_trained(store, monkeypatch, whole):
    if whole:
        monkeypatch.setattr(splitting, "upper_module", lambda *_: None)
    backbone = load("timm/efficientvit_m0")
    model = backbone.load()
    for module in model.modules():  # blocks begin as the identity, through which no gradient reaches their attention
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    assert any(hasattr(module, KEPT_BIASES) for module in model.modules())
    split = split_backbone(backbone, model, [("penultimate", "avg")], "stage2")
    assert split.reads_images == whole
    shape = (2, 3, 224, 224) if whole else (2, *backbone.info.outputs[backbone.info.module("stage2")])
    images = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    biases = [
        each for name, each in split.upper.named_parameters() if "attention_biases" in name and each.requires_grad
    ]
    before = split.upper(images)[0]
    for _ in range(2):  # the second step must not meet the first one's graph
        split.upper(images)[0].square().sum().backward()
    assert any(each.grad.abs().sum() > 0 for each in biases)  # a map of one pixel attends to itself alone
    with torch.no_grad():
        for each in biases:
            each += torch.randn(each.shape, generator=torch.Generator().manual_seed(1))
        assert not torch.equal(split.upper(images)[0], before)
