"""Layout of tensors in memory."""

import torch

from tl_dagster.backbones.memory_format import to_channels_last


def test_only_four_dimensions_are_laid_out_channels_last():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(2, 2))
    network.register_buffer("mask", torch.zeros(1, 2, 3, 4, 5))  # as the windows of Swin have
    weight = network[0].weight
    to_channels_last(network)
    assert network[0].weight is weight and weight.is_contiguous(memory_format=torch.channels_last)
    assert network.mask.is_contiguous()
