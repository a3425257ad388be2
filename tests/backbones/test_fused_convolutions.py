"""Fused convolutions: torch's outputs and gradients; without the private kernel, torch's own layers."""

import copy
from types import SimpleNamespace

import pytest
import torch

from tl_dagster.backbones.fused_convolutions import FusedConv2d, freeze_depthwise, fuse_conv_relu
from tl_dagster.backbones.mkldnn_kernels import has_fused_convolution
from tl_dagster.backbones.taps import trace_network
from tl_dagster.runtime.libraries import import_timm

LAYERS = {
    "dense": lambda: torch.nn.Conv2d(8, 8, 3, 2, 1),
    "grouped": lambda: torch.nn.Conv2d(8, 8, 3, 1, 1, groups=2),
    "without bias": lambda: torch.nn.Conv2d(8, 8, 1, bias=False),
    "depthwise": lambda: torch.nn.Conv2d(8, 8, 5, 1, 2, groups=8),
    "strided": lambda: torch.nn.Conv2d(8, 8, 3, 2, 1, groups=8),
    "uneven": lambda: torch.nn.Conv2d(8, 8, 5, (2, 1), 2, groups=8, bias=False),
    "dilated": lambda: torch.nn.Conv2d(8, 8, 3, 3, 1, 2, groups=8),
    "same": lambda: import_timm().layers.Conv2dSame(8, 8, 5, 2, groups=8),
}
ACTIVATIONS = {
    "none": lambda: torch.nn.Identity(),
    "relu": lambda: torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU(inplace=True)),
    "relu6": lambda: torch.nn.ReLU6(),
    "other": lambda: torch.nn.SiLU(),
}


def traced(model: torch.nn.Module) -> torch.fx.GraphModule:
    return torch.fx.GraphModule(model, trace_network(model)[0])


def _trained(model: torch.nn.Module, precision: str) -> list[torch.Tensor]:
    """The output, and the gradients of the input and of what is trained."""
    values = 4 * torch.rand(2, 8, 15, 14, generator=torch.manual_seed(0)) - 1
    values = values.contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        output = model(values)
    output.backward(torch.linspace(-1, 1, output.numel()).to(output.dtype).view_as(output))
    return [output.detach(), values.grad, *(each.grad for each in model.parameters() if each.requires_grad)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_and_gradients_are_torchs(kind, activation, frozen, precision):
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(LAYERS[kind](), ACTIVATIONS[activation]())
    theirs = theirs.to(memory_format=torch.channels_last)
    ours = traced(copy.deepcopy(theirs))
    fuse_conv_relu(ours)
    assert type(ours.get_submodule("0")) is FusedConv2d
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    if frozen:
        freeze_depthwise(ours)
        freeze_depthwise(theirs)
    (output, *gradients), (wanted, *torchs) = _trained(copy.deepcopy(ours), precision), _trained(theirs, precision)
    assert torch.equal(output, wanted)
    for found, expected in zip(gradients, torchs, strict=True):
        torch.testing.assert_close(found, expected)


def test_what_is_read_between_convolution_and_activation_stays():
    class Forked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.other = torch.nn.Conv2d(3, 3, 1), torch.nn.ReLU(), torch.nn.Conv2d(3, 3, 1)

        def forward(self, values):
            before = self.conv(values)
            return before, self.act(before), self.other(self.other(values))

    graph = traced(Forked())
    values = torch.randn(1, 3, 4, 4)
    expected = graph(values)
    fuse_conv_relu(graph)
    for found, wanted in zip(graph(values), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert type(graph.get_submodule("other")) is torch.nn.Conv2d  # it runs twice


def test_only_depthwise_layers_are_frozen():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), LAYERS["strided"]())
    freeze_depthwise(model)
    assert [name for name, each in model.named_parameters() if each.requires_grad] == ["0.weight", "0.bias"]


@pytest.fixture(params=["no kernel", "no support check", "another signature", "another result"])
def changed_torch(request, monkeypatch):
    """A release of torch whose private operators are gone or changed."""

    def support() -> bool:
        return True

    operators = {
        "no kernel": SimpleNamespace(_is_mkldnn_bf16_supported=support),
        "no support check": SimpleNamespace(),
        "another signature": SimpleNamespace(
            _is_mkldnn_bf16_supported=support, _convolution_pointwise=lambda values, weight: values
        ),
        "another result": SimpleNamespace(
            _is_mkldnn_bf16_supported=support, _convolution_pointwise=lambda values, *_: values
        ),
    }[request.param]
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    has_fused_convolution.cache_clear()
    yield
    has_fused_convolution.cache_clear()


def test_without_the_private_kernel_torchs_layers_run(changed_torch):
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(LAYERS["strided"](), ACTIVATIONS["relu6"]()).to(memory_format=torch.channels_last)
    ours = traced(copy.deepcopy(theirs))
    fuse_conv_relu(ours)
    assert not has_fused_convolution()
    assert type(ours.get_submodule("0")) is torch.nn.Conv2d
    for found, expected in zip(_trained(ours, "bf16"), _trained(theirs, "bf16"), strict=True):
        torch.testing.assert_close(found, expected)
