"""Layout of tensors in memory."""

import pytest
import torch
import torch.fx

from tl_dagster.backbones.memory_format import mend_gradients, to_channels_last


def test_only_four_dimensions_are_laid_out_channels_last():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(2, 2))
    network.register_buffer("mask", torch.zeros(1, 2, 3, 4, 5))  # as the windows of Swin have
    weight = network[0].weight
    to_channels_last(network)
    assert network[0].weight is weight and weight.is_contiguous(memory_format=torch.channels_last)
    assert network.mask.is_contiguous()


@pytest.mark.parametrize("channels", [3, 5, 8, 12])
def test_strided_convolutions_of_single_pixels_and_few_channels_are_trained(channels):
    """Their gradient ended the process: oneDNN wrote beyond its memory."""
    layer = torch.nn.Conv2d(channels, 64, 1, stride=2)
    network, images = torch.nn.Sequential(layer), torch.rand(3, channels, 97, 96, dtype=torch.float64)
    expected = torch.nn.functional.conv2d(images, layer.weight.double(), layer.bias.double(), 2)
    mend_gradients(network)
    to_channels_last(network)
    for _ in range(5):
        layer.zero_grad()
        outputs = network(images.float().contiguous(memory_format=torch.channels_last))
        outputs.square().sum().backward()
    assert torch.allclose(outputs.double(), expected, atol=1e-5)
    gradient = torch.nn.grad.conv2d_weight(images, layer.weight.shape, 2 * expected, 2)
    assert torch.allclose(layer.weight.grad.double(), gradient, rtol=1e-3)
    assert list(network.state_dict()) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("traced", [False, True])
def test_group_norms_above_frozen_layers_are_trained(traced):
    """Their backward pass ended the process, where the input lay channels last and needed no gradient."""
    norm, images = torch.nn.GroupNorm(4, 64), torch.rand(3, 64, 6, 6)
    torch.nn.functional.group_norm(images, 4, norm.weight, norm.bias).square().sum().backward()
    expected = norm.weight.grad.clone()
    network = torch.nn.Sequential(norm)
    mend_gradients(network)
    if traced:
        network = torch.fx.symbolic_trace(network)
    norm.zero_grad()
    network(images.contiguous(memory_format=torch.channels_last)).square().sum().backward()
    assert torch.allclose(norm.weight.grad, expected, rtol=1e-4)
