"""Convolutions as fine-tuning runs them on a CPU in bfloat16: with torch's outputs, and gradients up to rounding."""

from typing import Any

import torch

from tl_dagster.backbones.mkldnn_kernels import fused_convolution, has_fused_convolution
from tl_dagster.runtime.libraries import import_timm

__all__ = ["FusedConv2d", "freeze_depthwise", "fuse_conv_relu"]

timm = import_timm()


def freeze_depthwise(model: torch.nn.Module) -> None:
    """Exclude depthwise layers from training: few parameters, but two thirds of the time of a step on a CPU."""
    for layer in model.modules():
        if isinstance(layer, (torch.nn.Conv2d, FusedConv2d)) and layer.groups == layer.in_channels > 1:
            layer.requires_grad_(False)


def fuse_conv_relu(graph: Any) -> None:
    """Replace convolutions by ones that also apply the activation after them, in place; parameters keep their names.

    An activation alone reads again from memory what the layer before it wrote, which takes longer than many a
    convolution. oneDNN does both at once and clamps before it rounds, with the same result to the last bit.

    Args:
        graph: a traced network (:class:`torch.fx.GraphModule`) without hooks. It is left unchanged where the processor
            has no bfloat16, or torch no fused convolution.
    """
    if not has_fused_convolution():
        return
    calls = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    for node in list(graph.graph.nodes):
        if (
            node.op != "call_module"
            or calls.count(node.target) > 1
            or not _can_be_fused(graph.get_submodule(node.target))
        ):
            continue
        followers, bounds = _find_activation(graph, node)
        graph.set_submodule(node.target, FusedConv2d(graph.get_submodule(node.target), bounds))
        for follower in followers:
            follower.replace_all_uses_with(node)
            graph.graph.erase_node(follower)
    graph.graph.lint()
    graph.recompile()


def _can_be_fused(layer: torch.nn.Module) -> bool:
    """Return whether all that the layer does is in its attributes, and its padding is less than its kernel."""
    if type(layer) is timm.layers.Conv2dSame:
        return True
    if type(layer) is not torch.nn.Conv2d or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return False
    return all(p <= r for p, r in zip(layer.padding, _reach(layer), strict=True))


def _find_activation(graph: Any, node: Any) -> tuple[list[Any], tuple[float, float] | None]:
    """Return the nodes after a convolution up to its activation, and that one's bounds; ([], None) if it has none."""
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
    """Return by how many rows and columns a layer's kernel makes an image smaller."""
    return [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]


def _depthwise_input_gradient(
    gradient: torch.Tensor, weight: torch.Tensor, layer: Any, padding: Any, shape: Any
) -> torch.Tensor:
    """Return the gradient of a depthwise layer's input.

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


class FusedConvFunction(torch.autograd.Function):
    """A convolution and its activation in bfloat16, with the gradients of both."""

    @staticmethod
    def forward(
        ctx: Any, layer: Any, values: torch.Tensor, weight: torch.Tensor, bias: Any, padding: Any
    ) -> torch.Tensor:
        """Return the clamped convolution; see :func:`.mkldnn_kernels.fused_convolution`."""
        geometry = (padding, layer.stride, layer.dilation, layer.groups)
        output = fused_convolution(values, weight, bias, *geometry, layer.bounds)
        ctx.layer, ctx.padding, ctx.biased, ctx.shape = layer, padding, bias is not None, values.shape
        inputs = values if ctx.needs_input_grad[2] else None
        ctx.save_for_backward(weight, inputs, None if layer.bounds is None else output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Return the gradients of the values, the weight and the bias, where they are needed."""
        layer, (gradient,), (weight, values, output) = ctx.layer, gradients, ctx.saved_tensors
        if output is not None:
            gradient = torch.ops.aten.hardtanh_backward(gradient, output, *layer.bounds)
        needed = ctx.needs_input_grad[1:4]
        if needed == (True, False, False) and layer.groups == layer.in_channels == layer.out_channels:
            return None, _depthwise_input_gradient(gradient, weight, layer, ctx.padding, ctx.shape), None, None, None
        if values is None:  # then only its shape counts
            values = gradient.new_empty(1).expand(ctx.shape)
        sizes = [layer.out_channels] if ctx.biased else None
        geometry = (layer.stride, ctx.padding, layer.dilation, False, [0, 0], layer.groups)
        return None, *torch.ops.aten.convolution_backward(gradient, values, weight, sizes, *geometry, needed), None


class FusedConv2d(torch.nn.Module):
    """A convolution together with the activation after it: fused in bfloat16 on a CPU, one after the other elsewhere.

    Args:
        layer: the convolution, whose parameters it takes over.
        bounds: of the activation, (0, inf) or (0, 6); None: there is none.
    """

    def __init__(self, layer: torch.nn.Conv2d, bounds: tuple[float, float] | None) -> None:
        super().__init__()
        self.weight, self.bias, self.bounds = layer.weight, layer.bias, bounds
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation
        self.kernel_size, self.groups = layer.kernel_size, layer.groups
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.same = isinstance(layer, timm.layers.Conv2dSame)  # TensorFlow's padding, that depends on the size

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the activations: (N, C, H, W) → (N, C_out, H_out, W_out)."""
        padding: Any = self.padding
        if self.same:
            kernel = (list(self.kernel_size), list(self.stride), list(self.dilation))
            values, padding = timm.layers.pad_same(values, *kernel), (0, 0)
        low = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        if not values.is_cuda and (low or values.dtype == torch.bfloat16):
            bias = None if self.bias is None else self.bias.bfloat16()
            output: torch.Tensor = FusedConvFunction.apply(  # type: ignore[no-untyped-call]
                self, values.bfloat16(), self.weight.bfloat16(), bias, padding
            )
            return output
        geometry = (self.stride, padding, self.dilation, self.groups)
        output = torch.nn.functional.conv2d(values, self.weight, self.bias, *geometry)
        return output if self.bounds is None else torch.nn.functional.hardtanh(output, *self.bounds, inplace=True)
