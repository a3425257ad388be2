"""Backbones by name, the dropped classifiers, and files that fit or do not."""

import pytest
import torch
from sklearn.datasets import load_sample_image

from tl_dagster import InputError
from tl_dagster.backbones import inspection
from tl_dagster.backbones.building import create_network, load_backbone
from tl_dagster.backbones.checkpoint_loading import load_weights
from tl_dagster.backbones.description import describe_backbone
from tl_dagster.backbones.settings import Backbone
from tl_dagster.backbones.taps import build_extractor
from tl_dagster.backbones.weights import locate_weights

LECTURE = {
    "torchvision/alexnet": (4096, 3),
    "torchvision/googlenet": (1024, 5),
    "torchvision/vgg16": (4096, 4),
    "torchvision/resnet50": (2048, 5),
}
OTHERS = {
    "timm/tf_efficientnet_lite0": (1280, 5),
    "timm/vit_tiny_patch16_224": (192, 4),
    "torchvision/squeezenet1_1": (512, 4),
}


@pytest.mark.parametrize("name", [*LECTURE, *OTHERS])
def test_by_name_with_seeded_weights(name, store):
    width, stages = {**LECTURE, **OTHERS}[name]
    backbone = Backbone(name=name, weights="random:0")
    info = describe_backbone(backbone)
    assert list(info.stages) == [f"stage{number}" for number in range(1, stages + 1)]
    model = load_backbone(info, locate_weights(backbone, info))
    size = info.preprocess["size"]
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    taps = [("penultimate", "avg"), *(("stage2", pooling) for pooling in ("avg", "avg+max", "grid2x2", "none"))]
    with torch.no_grad():
        outputs = build_extractor(model, [(info.module(tap), pooling) for tap, pooling in taps])(images)
        again = load_backbone(info, locate_weights(backbone, info))(images)
    penultimate = outputs[0]
    assert penultimate.shape == (2, width)
    assert [len(output[0]) for output in outputs] == [info.width(tap, pooling, size) for tap, pooling in taps]
    assert not any(output.requires_grad for output in outputs)
    assert torch.equal(again.flatten(1) if again.ndim == 2 else again.mean((2, 3)), penultimate)
    assert not any(parameter.requires_grad for parameter in model.parameters()) and not model.training


def test_default_weights_know_a_photograph(store):
    """The shipped file fits key by key: random or misplaced weights would not know a flower."""
    backbone = Backbone()
    info = describe_backbone(backbone)
    weights = locate_weights(backbone, info)
    assert weights.identity.startswith("57934424")
    model = create_network(info.name, 224)
    load_weights(model, info, weights)
    photo = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    photo = torch.nn.functional.interpolate(
        photo[:, :, 100:400, 150:450], size=(224, 224), mode="bicubic", antialias=True
    )
    with torch.no_grad():
        probability, best = model.eval()(photo).softmax(1).max(1)
    assert best.item() in (985, 308, 324, 301, 309, 723, 738, 883, 945, 990, 992)  # a daisy, or what sits on flowers
    assert probability > 0.1


def test_misfitting_weights_are_listed(store, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"features.0.weight": torch.zeros(1), "strange": torch.zeros(1)}, path)
    backbone = Backbone(name="torchvision/squeezenet1_1", weights=str(path))
    info = describe_backbone(backbone)
    with pytest.raises(InputError, match=r"missing .*features.0.bias.*unexpected .*strange"):
        load_backbone(info, locate_weights(backbone, info))


def test_a_trunk_serves_the_taps_below_its_end(store, tmp_path):
    state = create_network("torchvision/resnet18", 224).state_dict()
    torch.save(
        {key: value for key, value in state.items() if not key.startswith(("layer4.", "fc."))}, tmp_path / "x.pth"
    )
    backbone = Backbone(name="torchvision/resnet18", weights=str(tmp_path / "x.pth"))
    info = describe_backbone(backbone)
    weights = locate_weights(backbone, info)
    loaded = load_backbone(info, weights, ["lower", "stage4"]).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in torch.load(weights.path, weights_only=True).items())
    with pytest.raises(InputError, match=r"missing \['layer4.0.conv1.weight'.*enough for the taps stage1, .*stage4$"):
        load_backbone(info, weights, ["lower", "penultimate"])


def test_a_file_may_be_saved_inside_or_around_the_network(store, tmp_path):
    state = create_network("torchvision/squeezenet1_1", 224).state_dict()
    inside = {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
    for name, saved in (("in.pth", inside), ("around.pth", {f"module.{key}": value for key, value in state.items()})):
        torch.save(saved, tmp_path / name)
        backbone = Backbone(name="torchvision/squeezenet1_1", weights=str(tmp_path / name))
        info = describe_backbone(backbone)
        loaded = load_backbone(info, locate_weights(backbone, info)).state_dict()
        assert torch.equal(loaded["features.0.weight"], state["features.0.weight"])


def test_lower_and_higher_name_places_in_any_network(store):
    for name, lower in (("resnet18", "layer3"), ("squeezenet1_1", "features.7"), ("alexnet", "features.4")):
        info = describe_backbone(Backbone(name=f"torchvision/{name}"))
        assert (info.module("lower"), info.module("higher")) == (lower, info.module("penultimate"))
    with pytest.raises(InputError, match=r"has no tap 'layer4.1.ad': did you mean 'layer4.1.add'\? allowed: stage1"):
        describe_backbone(Backbone(name="torchvision/resnet18")).module("layer4.1.ad")
    with pytest.raises(InputError, match=r"'layer4.1.add' is not a module: allowed: stage1"):
        describe_backbone(Backbone(name="torchvision/resnet18")).frozen_through(["higher"], "above layer4.1.add")


@pytest.mark.parametrize(
    ("name", "width"), [("timm/deit_tiny_distilled_patch16_224", 192), ("timm/efficientvim_m1", 320)]
)
def test_networks_with_several_classifiers_lose_all(name, width, store):
    backbone = Backbone(name=name, weights="random:0")
    info = describe_backbone(backbone)
    model = load_backbone(info, locate_weights(backbone, info))
    assert len(info.classifiers) > 1
    assert not any(list(model.get_submodule(path).parameters()) for path in info.classifiers)
    with torch.no_grad():
        (features,) = build_extractor(model, [(info.module("penultimate"), "avg")])(
            torch.rand(2, 3, info.size, info.size)
        )
    assert features.shape == (2, width) == (2, info.width("penultimate", "avg", info.size))


def test_a_size_that_the_network_cannot_take_is_refused(store):
    with pytest.raises(
        InputError, match=r"backbone.image_size: .* does not accept images of 256 x 256 .* its own size is 224"
    ):
        describe_backbone(Backbone(name="timm/vit_tiny_patch16_224", image_size=256))


class InPlace(torch.nn.Module):
    """Overwrites what its own gradient needs."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 4, 3)

    def forward(self, images):
        outputs = self.layer(images).sigmoid()
        return outputs.mul_(2).mean((2, 3))


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_network_whose_gradients_fail_is_known(device):
    assert "inplace operation" in inspection._try_gradients(InPlace().to(device), 32)
    assert inspection._try_gradients(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).to(device), 32) == ""
