"""The layout of tensors in memory that convolutions are fastest with, and layers whose gradients it does not suit."""

import itertools

import torch
import torch.fx

__all__ = ["lay_out_for_group_norm", "mend_gradients", "to_channels_last"]

BLOCK = 16  # channels that oneDNN's kernels compute at a time


class SubsampledConv2d(torch.nn.Conv2d):
    """A strided convolution of single pixels, as one without stride of the pixels that it reads: the same values.

    On processors with AVX-512, oneDNN's gradient of the weights of the strided one writes beyond its memory, where the
    input has few channels and lies channels last (seen with torch 2.13: FastViT's stem ends the process).
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """See :class:`torch.nn.Conv2d`."""
        pixels = input[..., :: self.stride[0], :: self.stride[1]]
        return torch.nn.functional.conv2d(pixels, self.weight, self.bias)


def mend_gradients(network: torch.nn.Module) -> None:
    """Let a network, in place, be trained channels last without the gradients of torch's that end the process."""
    for module in network.modules():
        if _overruns(module):
            module.__class__ = SubsampledConv2d
        if isinstance(module, torch.nn.GroupNorm):
            module.register_forward_pre_hook(_lay_out_input)


def _lay_out_input(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (lay_out_for_group_norm(inputs[0]), *inputs[1:])


@torch.fx.wrap  # networks are traced: what is asked here depends on the tensor
def lay_out_for_group_norm(values: torch.Tensor) -> torch.Tensor:
    """Return values that :func:`torch.nn.functional.group_norm` can be trained on.

    On a CPU its backward pass ends the process where they lie channels last and need no gradient, as the output of the
    frozen layers (seen with torch 2.13: BiT's ResNetV2).
    """
    if torch.is_grad_enabled() and not values.requires_grad and values.device.type == "cpu":
        return values.contiguous()
    return values


def _overruns(module: torch.nn.Module) -> bool:
    if type(module) is not torch.nn.Conv2d or module.kernel_size != (1, 1) or module.groups != 1:
        return False
    return module.in_channels < BLOCK and max(module.stride) > 1 and module.padding in (0, (0, 0))


def to_channels_last(network: torch.nn.Module) -> None:
    """Lay parameters and buffers of four dimensions out channels last, in place.

    ``Module.to(memory_format=…)`` tries it on those of five dimensions too, and fails: the masks of windows of Swin.
    """
    for tensor in itertools.chain(network.parameters(), network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
