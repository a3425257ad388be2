"""Taps at modules and nodes, the part above a boundary, and that parts give what the whole gives."""

import pytest
import torch

from tests.backbones.test_backbones import LECTURE
from tl_dagster.backbones.building import load_backbone
from tl_dagster.backbones.description import describe_backbone
from tl_dagster.backbones.settings import Backbone
from tl_dagster.backbones.splitting import lower_module, upper_module
from tl_dagster.backbones.taps import build_extractor, pool
from tl_dagster.backbones.weights import locate_weights


@pytest.mark.parametrize("name", [*LECTURE, "timm/tf_efficientnet_lite0"])
def test_upper_module_continues_where_the_boundary_ends(name, store):
    backbone = Backbone(name=name, weights="random:0")
    info = describe_backbone(backbone)
    boundary = info.module(info.frozen_through(backbone.taps, "top"))
    taps = [(info.module("penultimate"), "avg")]
    size = info.preprocess["size"]
    with torch.no_grad():
        whole = build_extractor(load_backbone(info, locate_weights(backbone, info)), [(boundary, "none"), *taps])
        below, expected = whole(torch.rand(2, 3, size, size))
        upper = upper_module(load_backbone(info, locate_weights(backbone, info)), boundary, taps, 64)
        shape = info.map_shape(info.frozen_through(backbone.taps, "top"), below.shape[1])
        (found,) = upper(below.reshape(2, *shape))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_network_with_optional_inputs_is_left_whole(store):
    backbone = Backbone(name="timm/vit_tiny_patch16_224", weights="random:0")
    info = describe_backbone(backbone)
    model, taps = load_backbone(info, locate_weights(backbone, info)), [(info.classifier, "avg")]
    assert upper_module(model, info.module("lower"), taps, info.size) is None  # its attention mask is an input, too


@pytest.mark.parametrize("taps", [["stage4", "penultimate"], ["layer4.1.add", "lower", "layer4", "flatten"]])
def test_modules_and_nodes_can_be_tapped_and_exported(taps, store):
    backbone = Backbone(name="torchvision/resnet18", weights="random:0", image_size=64, taps=taps)
    info = describe_backbone(backbone)
    model = load_backbone(info, locate_weights(backbone, info))
    network = build_extractor(model, [(info.module(tap), "none") for tap in taps]).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        outputs = dict(zip(taps, network(images), strict=True))
        exported = torch.export.export(network, (images,)).module()(images)
        expected = model(images)
    torch.testing.assert_close(list(outputs.values()), list(exported))
    assert {tap: output.shape[1] for tap, output in outputs.items()} == {
        tap: info.width(tap, "none", 64) for tap in taps
    }
    assert torch.equal(outputs[taps[-1]], expected)
    if "layer4" in taps:
        assert torch.equal(outputs["layer4.1.add"].relu(), outputs["layer4"])
        assert info.is_below("layer3.1.relu", "layer4.1.add") and not info.is_below("layer4", "layer4.1.add")


@pytest.mark.parametrize(
    ("name", "path", "overwritten"),
    [
        ("squeezenet1_1", "features.0", True),  # by a ReLU
        ("resnet18", "layer2.1.bn2", True),  # by an addition
        ("efficientnet_b0", "features.3.1.block", True),  # by an addition, behind layers that give what they are given
        ("resnet18", "layer2", False),
    ],
)
def test_a_network_in_parts_gives_what_hooks_give(store, name, path, overwritten):
    backbone = Backbone(name=f"torchvision/{name}", weights="random:0", image_size=64)
    info, images = describe_backbone(backbone), torch.rand(2, 3, 64, 64)
    model, taps = load_backbone(info, locate_weights(backbone, info)), [(path, "none"), (info.module("lower"), "avg")]
    with torch.no_grad():
        ends, hooked = (
            lower_module(model, taps, 64)(images),
            build_extractor(load_backbone(info, locate_weights(backbone, info)), taps)(images),
        )
    assert all(torch.equal(*pair) for pair in zip(ends, hooked, strict=True))
    assert (upper_module(model, path, [(info.classifier, "avg")], 64) is None) == overwritten


def test_a_node_is_the_same_whatever_is_tapped_beside_it(store):
    backbone = Backbone(name="torchvision/resnet18", weights="random:0", image_size=64)
    info, images = describe_backbone(backbone), torch.rand(2, 3, 64, 64)
    taps = [("layer2.1.add", "avg"), (info.classifier, "avg")]
    with torch.no_grad():
        alone, beside = (
            build_extractor(load_backbone(info, locate_weights(backbone, info)), some)(images)[0]
            for some in (taps[:1], taps)
        )
    assert torch.equal(alone, beside) and alone.min() < 0


def test_grid_pooling_averages_quarters():
    quarters = torch.arange(2 * 3 * 4.0).reshape(2, 3, 2, 2)
    expected = quarters.flatten(2).transpose(1, 2).flatten(1)
    maps = quarters.repeat_interleave(3, 2).repeat_interleave(3, 3) + torch.tensor([-1.0, 0, 1]).repeat(2)
    tokens = torch.cat([torch.full((2, 5, 3), 99.0), maps.flatten(2).transpose(1, 2)], 1)  # a class token, registers
    for values in (maps, maps.permute(0, 2, 3, 1), tokens):
        torch.testing.assert_close(pool(values, "grid2x2"), expected)
    assert torch.equal(pool(expected, "grid2x2"), expected)


class Masked(torch.nn.Module):
    """A network with an optional input, as transformers have them: traced, it takes the way with that input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.layer(images if mask is None else images * mask.view(1, 1, 8, 8))


def test_a_network_that_cannot_be_traced_says_nothing(capfd):
    assert upper_module(Masked().eval(), None, [("layer", "avg")], 8) is None
    assert capfd.readouterr().err == ""
