"""Heat maps lie where the network's evidence lies."""

import numpy as np
import pytest
import torch

from tl_dagster.reporting.grad_cam import heat_maps, last_map
from tl_dagster.runtime.libraries import import_timm, import_torchvision


class Corner(torch.nn.Module):
    """Class 1 is brightness, as a convolution sees it; nothing has gradients of its own."""

    def __init__(self, *, inplace: bool):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 2, 8, stride=8, bias=False)
        self.activation = torch.nn.ReLU(inplace=inplace)
        self.classifier = torch.nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.convolution.weight.fill_(0.01)
            self.classifier.weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
        self.requires_grad_(False)

    def forward(self, images):
        with torch.no_grad():
            maps = self.convolution(images)
        return self.classifier(self.activation(maps).mean((2, 3)))


@pytest.mark.parametrize("inplace", [False, True])
def test_the_bright_corner_is_hot(inplace):
    images = torch.zeros(2, 3, 64, 64)
    images[0, :, :16, :16] = 1
    images[1, :, 48:, 48:] = 1
    maps = heat_maps(Corner(inplace=inplace).eval(), images, np.array([1, 1]))
    assert maps.shape == (2, 64, 64) and maps.dtype == np.float32
    assert (
        maps[0, 8, 8] == maps[1, 56, 56] == pytest.approx(1) and maps[0, 40:, 40:].max() == maps[1, :24, :24].max() == 0
    )
    # Brightness speaks against the other class.
    assert not heat_maps(Corner(inplace=inplace).eval(), images, np.array([0, 0])).any()


def test_the_last_map_of_real_networks():
    vision, timm = import_torchvision(), import_timm()
    image = torch.zeros(1, 3, 64, 64)
    resnet = vision.models.resnet18().eval()
    assert last_map(resnet, image) is resnet.layer4
    lite = timm.create_model("tf_efficientnet_lite0").eval()
    assert last_map(lite, image) is lite.bn2
    tokens = timm.create_model("vit_tiny_patch16_224", img_size=64).eval()
    assert last_map(tokens, image) is None and heat_maps(tokens, image, np.array([0])) is None
