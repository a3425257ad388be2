"""The one place that calls oneDNN operators of torch that are private and may change with any release.

:func:`has_fused_convolution` says whether they are there and accept what is passed to them; where not, callers use
public convolutions and activations, which give the same values up to rounding.
"""

from functools import cache
from typing import Any

import torch

__all__ = ["fused_convolution", "has_fused_convolution"]


@cache
def has_fused_convolution() -> bool:
    """Return whether the processor computes in bfloat16 and this torch has oneDNN's fused convolution."""
    try:
        if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        probe = -torch.ones(1, 1, 1, 1, dtype=torch.bfloat16, device="cpu")
        geometry: dict[str, Any] = {"padding": (0, 0), "stride": (1, 1), "dilation": (1, 1), "groups": 1}
        output = fused_convolution(probe, -probe, None, **geometry, bounds=(0.0, 6.0))
    except (AttributeError, RuntimeError, TypeError):  # no such operator, or one with another signature
        return False
    return bool(output.shape == probe.shape and output.item() == 0)


def fused_convolution(
    values: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    padding: Any,
    stride: Any,
    dilation: Any,
    groups: int,
    bounds: tuple[float, float] | None,
) -> torch.Tensor:
    """Convolve in bfloat16 and clamp the result before it is rounded and written.

    Args:
        values: (N, C, H, W), bfloat16.
        weight: (C_out, C / groups, kH, kW), bfloat16.
        bias: (C_out,), bfloat16.
        padding: rows and columns of zeros on each side, as in :func:`torch.nn.functional.conv2d`.
        stride: see there.
        dilation: see there.
        groups: see there.
        bounds: smallest and largest value of the result; None: it is not clamped.

    Returns:
        (N, C_out, H_out, W_out), bfloat16.
    """
    kind, limits = ("none", []) if bounds is None else ("hardtanh", bounds)
    output: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
        values, weight, bias, padding, stride, dilation, groups, kind, limits, ""
    )
    return output
