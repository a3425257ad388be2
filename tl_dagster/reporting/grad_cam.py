"""Grad-CAM heat maps, computed by captum."""

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam

__all__ = ["heat_maps", "last_map"]


def heat_maps(network: torch.nn.Module, images: torch.Tensor, classes: np.ndarray) -> np.ndarray | None:
    """Return heat maps of the evidence for a class at each position (Selvaraju et al., "Grad-CAM", ICCV 2017).

    Args:
        network: normalised images (n, 3, S, S) → logits (n, classes), in evaluation mode. Gradients need to reach its
            last map only.
        images: float32 (n, 3, S, S).
        classes: (n,) class numbers.

    Returns:
        (n, S, S) float32, each map's largest value 1, or all 0 without evidence for the class; None when no module of
        the network has a map of positions as its output, as in networks of tokens.
    """
    layer = last_map(network, images[:1])
    if layer is None:
        return None
    # Lower layers may run without gradients: then gradients start here. Registered before captum's own hook.
    handle = layer.register_forward_hook(lambda _module, _inputs, output: output.detach().requires_grad_())
    try:
        method = LayerGradCam(network, layer)
        maps = []
        for image, number in zip(images, classes.tolist(), strict=True):
            coarse = method.attribute(image[None].clone(), target=int(number), relu_attributions=True).detach()
            fine = LayerAttribution.interpolate(coarse, tuple(image.shape[-2:]), "bilinear")[0, 0].float()
            largest = torch.where(fine.max() > 0, fine.max(), 1.0)
            maps.append((fine / largest).nan_to_num().cpu().numpy())
    finally:
        handle.remove()
    return np.stack(maps)


def last_map(network: torch.nn.Module, image: torch.Tensor) -> torch.nn.Module | None:
    """Return the last module whose output is a map of positions, (1, C, H, H); None where tokens follow it.

    Args:
        network: as for :func:`heat_maps`.
        image: float32 (1, 3, S, S).
    """
    modules: list[torch.nn.Module | None] = []

    def record(module: torch.nn.Module, _inputs: object, output: object) -> None:
        if not isinstance(output, torch.Tensor) or output.ndim < 3 or output[0].numel() == max(output.shape[1:]):
            return  # positions were averaged away
        is_map = output.ndim == 4 and output.shape[2] == output.shape[3] > 1
        modules.append(module if is_map else None)

    handles = [module.register_forward_hook(record) for module in network.modules()]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return modules[-1] if modules else None
