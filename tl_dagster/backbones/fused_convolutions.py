"""Convolutions as fine-tuning runs them on a CPU in bfloat16: with torch's outputs, and gradients up to rounding."""

from functools import cache
from typing import Any

import torch

from tl_dagster.runtime.libraries import import_timm

__all__ = ["freeze_depthwise", "fuse_conv_relu"]


def freeze_depthwise(model: torch.nn.Module) -> None:
    """Depthwise layers stay as pre-trained: few parameters, but two thirds of the time of a step on a CPU."""

    for layer in model.modules():
        if isinstance(layer, (torch.nn.Conv2d, _quick_convolution())) and layer.groups == layer.in_channels > 1:
            layer.requires_grad_(False)


def fuse_conv_relu(graph: Any) -> None:
    """Replace convolutions by ones that do the activation after them too, in place; parameters keep their names.

    What a layer writes is read from memory again by an activation, which takes longer than many a convolution. oneDNN
    can do both at once, and bounds what it has not yet rounded: with the same result to the last bit.

    Args:
        graph: a traced network (:class:`torch.fx.GraphModule`) without hooks. Where the processor has no bfloat16, it
            is let be.
    """

    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return
    calls = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    for node in list(graph.graph.nodes):
        if (
            node.op != "call_module"
            or calls.count(node.target) > 1
            or not _understood(graph.get_submodule(node.target))
        ):
            continue
        followers, bounds = _activation(graph, node)
        graph.set_submodule(node.target, _quick_convolution()(graph.get_submodule(node.target), bounds))
        for follower in followers:
            follower.replace_all_uses_with(node)
            graph.graph.erase_node(follower)
    graph.graph.lint()
    graph.recompile()


def _understood(layer: torch.nn.Module) -> bool:
    """Whether all that the layer does is in its attributes, and its padding is less than its kernel."""

    if type(layer) is import_timm().layers.Conv2dSame:
        return True
    if type(layer) is not torch.nn.Conv2d or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return False
    return all(p <= r for p, r in zip(layer.padding, _reach(layer), strict=True))


def _activation(graph: Any, node: Any) -> tuple[list[Any], tuple[float, float] | None]:
    """The nodes after a convolution up to its activation, and the bounds of that; nothing where there is none."""

    followers: list[Any] = []
    while len(node.users) == 1:
        (node,) = node.users
        layer = graph.get_submodule(node.target) if node.op == "call_module" else None
        followers.append(node)
        if isinstance(layer, torch.nn.ReLU):
            return followers, (0.0, float("inf"))
        if isinstance(layer, torch.nn.ReLU6):
            return followers, (0.0, 6.0)
        if not isinstance(layer, torch.nn.Identity):
            break
    return [], None


def _reach(layer: Any) -> list[int]:
    """By how many rows and columns its kernel makes an image smaller."""
    return [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]


def _through_depthwise(
    gradient: torch.Tensor, weight: torch.Tensor, layer: Any, padding: Any, shape: Any
) -> torch.Tensor:
    """The gradient below a depthwise layer.

    oneDNN's own is slow, above all with a stride. It is a convolution, too, with the kernel turned round, of the
    gradient as it would be without the stride: zero wherever that skipped.
    """

    reach = _reach(layer)
    if max(layer.stride) > 1:
        whole = [size + 2 * p - r for size, p, r in zip(shape[2:], padding, reach, strict=True)]
        spread = torch.empty(
            *shape[:2], *whole, dtype=gradient.dtype, memory_format=torch.channels_last, device=gradient.device
        ).zero_()
        spread[..., :: layer.stride[0], :: layer.stride[1]] = gradient
        gradient = spread
    around = [r - p for r, p in zip(reach, padding, strict=True)]
    return torch.nn.functional.conv2d(gradient, weight.flip(2, 3), None, 1, around, layer.dilation, layer.groups)


@cache
def _through() -> Any:

    operations = torch.ops.aten

    class Through(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, layer: Any, values: torch.Tensor, weight: torch.Tensor, bias: Any, padding: Any
        ) -> torch.Tensor:
            how = (padding, layer.stride, layer.dilation, layer.groups)
            kind, bounds = ("none", []) if layer.bounds is None else ("hardtanh", layer.bounds)
            output: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(values, weight, bias, *how, kind, bounds, "")
            ctx.layer, ctx.padding, ctx.biased, ctx.shape = layer, padding, bias is not None, values.shape
            kept = values if ctx.needs_input_grad[2] else None
            ctx.save_for_backward(weight, kept, None if layer.bounds is None else output)
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
            layer, (gradient,), (weight, values, output) = ctx.layer, gradients, ctx.saved_tensors
            if output is not None:
                gradient = operations.hardtanh_backward(gradient, output, *layer.bounds)
            wanted = ctx.needs_input_grad[1:4]
            if wanted == (True, False, False) and layer.groups == layer.in_channels == layer.out_channels:
                return None, _through_depthwise(gradient, weight, layer, ctx.padding, ctx.shape), None, None, None
            if values is None:  # then only its shape counts
                values = gradient.new_empty(1).expand(ctx.shape)
            sizes = [layer.out_channels] if ctx.biased else None
            how = (layer.stride, ctx.padding, layer.dilation, False, [0, 0], layer.groups)
            return None, *operations.convolution_backward(gradient, values, weight, sizes, *how, wanted), None

    return Through


@cache
def _quick_convolution() -> Any:

    timm, through = import_timm(), _through()

    class Quick(torch.nn.Module):
        def __init__(self, layer: torch.nn.Conv2d, bounds: tuple[float, float] | None) -> None:
            super().__init__()
            self.weight, self.bias, self.bounds = layer.weight, layer.bias, bounds
            self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation
            self.kernel_size, self.groups = layer.kernel_size, layer.groups
            self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
            self.same = isinstance(layer, timm.layers.Conv2dSame)  # TensorFlow's padding, that depends on the size

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            padding: Any = self.padding
            if self.same:
                kernel = (list(self.kernel_size), list(self.stride), list(self.dilation))
                values, padding = timm.layers.pad_same(values, *kernel), (0, 0)
            low = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
            if not values.is_cuda and (low or values.dtype == torch.bfloat16):
                bias = None if self.bias is None else self.bias.bfloat16()
                output: torch.Tensor = through.apply(self, values.bfloat16(), self.weight.bfloat16(), bias, padding)
                return output
            how = (self.stride, padding, self.dilation, self.groups)
            output = torch.nn.functional.conv2d(values, self.weight, self.bias, *how)
            return output if self.bounds is None else torch.nn.functional.hardtanh(output, *self.bounds, inplace=True)

    return Quick
