"""Backbones by name: taps, the dropped classifier, and the part above a boundary."""

import pytest
import torch

from tl_dagster import InputError
from tl_dagster.features.backbones import load, tail, tapped
from tl_dagster.features.catalogue import look_up
from tl_dagster.features.weights import locate
from tl_dagster.spec import Backbone

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
    info = look_up(backbone)
    assert list(info.stages) == [f"stage{number}" for number in range(1, stages + 1)]
    model = load(info, locate(backbone, info))
    size = info.preprocess["size"]
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        penultimate, pooled = tapped(model, [(info.module("penultimate"), "avg"), (info.module("stage2"), "avg+max")])(
            images
        )
        again = load(info, locate(backbone, info))(images)
    assert penultimate.shape == (2, width)
    assert pooled.shape[0] == 2 and not pooled.requires_grad
    assert torch.equal(again.flatten(1) if again.ndim == 2 else again.mean((2, 3)), penultimate)
    assert not any(parameter.requires_grad for parameter in model.parameters()) and not model.training


@pytest.mark.parametrize("name", [*LECTURE, "timm/tf_efficientnet_lite0"])
def test_tail_continues_where_the_boundary_ends(name, store):
    backbone = Backbone(name=name, weights="random:0")
    info = look_up(backbone)
    boundary = info.module(info.frozen_through(backbone, "auto"))
    taps = [(info.module("penultimate"), "avg")]
    size = info.preprocess["size"]
    with torch.no_grad():
        whole = tapped(load(info, locate(backbone, info)), [(boundary, "none"), *taps])
        below, expected = whole(torch.rand(2, 3, size, size))
        upper = tail(load(info, locate(backbone, info)), boundary, taps)
        shape = info.map_shape(info.frozen_through(backbone, "auto"), below.shape[1])
        (found,) = upper(below.reshape(2, *shape))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_default_weights_know_a_photograph(store):
    """The shipped file fits key by key: random or misplaced weights would not know a flower."""
    backbone = Backbone()
    info = look_up(backbone)
    weights = locate(backbone, info)
    assert weights.identity.startswith("57934424")
    from sklearn.datasets import load_sample_image

    from tl_dagster.features.backbones import _fill, _read
    from tl_dagster.features.describe import create

    model = create(info.name)
    _fill(model, _read(weights.path), info, weights)
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
    info = look_up(backbone)
    with pytest.raises(InputError, match=r"missing .*features.0.bias.*unexpected .*strange"):
        load(info, locate(backbone, info))
