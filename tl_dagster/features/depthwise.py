"""Frozen depthwise convolutions, through which gradients pass quickly on a CPU."""

from typing import TYPE_CHECKING, Any

from tl_dagster.libraries import import_timm

if TYPE_CHECKING:
    import torch

__all__ = ["freeze_depthwise"]


def freeze_depthwise(model: "torch.nn.Module") -> None:
    """Depthwise layers stay as pre-trained: few parameters, but two thirds of the time of a step on a CPU.

    Gradients pass through those with a stride ten times faster afterwards, in bfloat16 on a CPU; names of parameters
    and outputs stay the same.
    """
    import torch

    for path, layer in list(model.named_modules()):
        if isinstance(layer, torch.nn.Conv2d) and layer.groups == layer.in_channels > 1:
            layer.requires_grad_(False)
            if max(layer.stride) > 1 and _understood(layer):
                parent, _, name = path.rpartition(".")
                setattr(model.get_submodule(parent), name, _frozen(layer))


def _understood(layer: "torch.nn.Conv2d") -> bool:
    """Whether all that the layer does is in its attributes, and its padding is less than its kernel."""
    import torch

    if layer._forward_hooks:  # a tap, which would be lost
        return False
    if layer.out_channels != layer.in_channels:
        return False
    if type(layer) is import_timm().layers.Conv2dSame:
        return True
    if type(layer) is not torch.nn.Conv2d or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return False
    return all(p <= r for p, r in zip(layer.padding, _reach(layer), strict=True))


def _reach(layer: "torch.nn.Conv2d") -> list[int]:
    """By how many rows and columns its kernel makes an image smaller."""
    return [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]


def _frozen(layer: "torch.nn.Conv2d") -> "torch.nn.Module":
    """The layer, with another way backwards."""
    import torch

    timm = import_timm()
    convolve = torch.nn.functional.conv2d

    class Through(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, padding: tuple[int, int]
        ) -> torch.Tensor:
            ctx.save_for_backward(weight)
            ctx.shape, ctx.padding = values.shape, padding
            return convolve(values, weight, bias, layer.stride, padding, layer.dilation, layer.groups)

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
            # oneDNN's own gradient is slow with a stride. It is a convolution, too, with the kernel turned round, of
            # the gradient as it would be without the stride: zero wherever that skipped.
            (weight,), (gradient,), reach = ctx.saved_tensors, gradients, _reach(layer)
            whole = [size + 2 * p - r for size, p, r in zip(ctx.shape[2:], ctx.padding, reach, strict=True)]
            spread = gradient.new_zeros(*ctx.shape[:2], *whole).contiguous(memory_format=torch.channels_last)
            spread[..., :: layer.stride[0], :: layer.stride[1]] = gradient
            around = [r - p for r, p in zip(reach, ctx.padding, strict=True)]
            turned = weight.to(spread.dtype).flip(2, 3)
            return convolve(spread, turned, None, 1, around, layer.dilation, layer.groups), None, None, None

    class Frozen(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = layer.weight, layer.bias

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            padding: Any = layer.padding
            if isinstance(layer, timm.layers.Conv2dSame):  # TensorFlow's padding, that depends on the size
                how = (list(layer.kernel_size), list(layer.stride), list(layer.dilation))
                values, padding = timm.layers.pad_same(values, *how), (0, 0)
            if values.dtype == torch.bfloat16 and not values.is_cuda:
                output: torch.Tensor = Through.apply(values, self.weight, self.bias, padding)  # type: ignore[no-untyped-call]
                return output
            return convolve(values, self.weight, self.bias, layer.stride, padding, layer.dilation, layer.groups)

    return Frozen()
