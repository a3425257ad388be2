"""The backbone's own classifier: as confident as the library's whole network."""

import numpy as np
import torch

from tl_dagster.backbones.building import create_network, load_backbone
from tl_dagster.backbones.checkpoint_loading import load_weights
from tl_dagster.backbones.description import describe_backbone
from tl_dagster.backbones.own_classifier import confidence, load_with_classifier
from tl_dagster.backbones.settings import Backbone
from tl_dagster.backbones.weights import Weights, locate_weights


def test_it_is_as_sure_as_the_whole_network(store):
    backbone = Backbone()
    info = describe_backbone(backbone)
    weights = locate_weights(backbone, info)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = create_network(info.name, 64).eval()
    load_weights(whole, info, weights)
    layer = load_with_classifier(info, weights)[1]
    assert layer is not None
    with torch.no_grad():
        expected = whole(images).softmax(1).amax(1).mean().item()
        penultimate = load_backbone(info, weights)(images).numpy()
    assert np.isclose(confidence(layer, penultimate), expected, rtol=1e-5)


def test_weights_without_one(store, tmp_path):
    backbone = Backbone(weights="random:0")
    info = describe_backbone(backbone)
    assert load_with_classifier(info, locate_weights(backbone, info))[1] is None
    trunk = load_backbone(info, locate_weights(backbone, info)).state_dict()
    torch.save({name: value for name, value in trunk.items() if "classifier" not in name}, tmp_path / "trunk.pth")
    assert load_with_classifier(info, Weights(tmp_path / "trunk.pth", "trunk"))[1] is None
