"""Backbones split in two for fine-tuning: the frozen part below a layer, and the trained part above it."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.utils.fusion import fuse_conv_bn_weights

from tl_dagster.backbones.frozen import FrozenBackbone
from tl_dagster.backbones.fused_convolutions import freeze_depthwise, fuse_conv_relu
from tl_dagster.backbones.memory_format import mend_gradients
from tl_dagster.backbones.taps import GraphFeatureExtractor, build_extractor, keep_output, trace_outputs

__all__ = ["BackboneSplit", "lower_module", "split_backbone", "unfreeze_above", "upper_module"]

KEPT_BIASES = "attention_bias_cache"


@dataclass(frozen=True)
class BackboneSplit:
    """A backbone, cut in two for fine-tuning.

    Attributes:
        taps: (module path, pooling) of all taps, in the order that the top model reads them.
        below: which of them lie below the cut: a network that cannot be cut gives all its taps itself.
        boundary: module path of the last frozen layer; None: nothing is frozen.
        upper: what is trained: the boundary's output, or images → a list of the features of the taps above.
        reads_images: whether ``upper`` reads images: nothing is frozen, or the network cannot be cut.
        widths: features of each tap.
    """

    taps: list[tuple[str, str]]
    below: list[bool]
    boundary: str | None
    upper: torch.nn.Module
    reads_images: bool
    widths: list[int]

    @property
    def frozen_taps(self) -> list[tuple[str, str]]:
        """(module path, pooling) of the taps below the boundary."""
        return [tap for tap, under in zip(self.taps, self.below, strict=True) if under]

    @property
    def frozen_features(self) -> list[bool]:
        """Return which of the features that the top model reads come from below the boundary: (D,)."""
        return [under for under, width in zip(self.below, self.widths, strict=True) for _ in range(width)]


def split_backbone(
    backbone: FrozenBackbone, model: torch.nn.Module, taps: Sequence[tuple[str, str]], boundary: str | None
) -> BackboneSplit:
    """Cut a backbone at a layer; what is above requires gradients.

    Args:
        backbone: its description.
        model: see :meth:`.FrozenBackbone.load`; it is changed.
        taps: (declared name or module path, pooling) of those that the top model reads.
        boundary: the tap up to which it is frozen; None: nothing is.
    """
    info, size = backbone.info, backbone.size
    all_taps = [(info.module(tap), pooling) for tap, pooling in taps]
    below = [boundary is not None and info.is_below(path, boundary) for path, _ in all_taps]
    above = [tap for tap, under in zip(all_taps, below, strict=True) if not under]
    path = None if boundary is None else info.module(boundary)
    mend_gradients(model)
    _forget_between_calls(model)  # before it is traced: what is kept would be a constant of the graph
    upper = upper_module(model, path, above, size)
    whole = upper is None
    if upper is None:
        upper, below = build_extractor(model, all_taps), [False] * len(all_taps)
        if path is not None:
            unfreeze_above(model, path, size)
    if path is None or not whole:
        upper.requires_grad_(True)
    if path is not None:
        freeze_depthwise(upper)
    widths = [backbone.width(*tap) for tap in all_taps]
    return BackboneSplit(all_taps, below, path, upper, reads_images=path is None or whole, widths=widths)


def _forget_between_calls(model: torch.nn.Module) -> None:
    """Let attention layers compute their biases anew in each call, from parameters that training changes.

    In evaluation mode those of timm (LeViT's and what follows it) keep them, and with them the gradients' graph of the
    first step.
    """
    for module in model.modules():
        if isinstance(getattr(module, KEPT_BIASES, None), dict):
            module.register_forward_pre_hook(lambda module, _: getattr(module, KEPT_BIASES).clear())


def lower_module(model: torch.nn.Module, taps: Sequence[tuple[str, str]], size: int) -> torch.nn.Module:
    """Return what :func:`build_extractor` does, without the layers that run after the taps, where that is possible.

    Args:
        model: see :func:`.building.load_backbone`.
        taps: (module path or node, pooling) of each.
        size: pixels of the square input, to try it.
    """
    traced = _as_hooked(model, [path for path, _ in taps], size)
    return GraphFeatureExtractor(traced, taps).eval() if traced is not None else build_extractor(model, taps)


def upper_module(
    model: torch.nn.Module, boundary: str | None, taps: Sequence[tuple[str, str]], size: int
) -> torch.nn.Module | None:
    """Return the part of a backbone above a layer, as a module of its own, with batch norm folded into convolutions.

    Args:
        model: see :func:`.building.load_backbone`.
        boundary: module path of the last layer below; None: the whole backbone.
        taps: (module path, pooling) of the taps above it.
        size: pixels of the square input, to try it.

    Returns:
        A module: the boundary's output (or images) → a list of (N, D_tap), as from :func:`build_extractor`; None when
        the upper part also reads something else than the boundary's output, or the network cannot be traced.
    """
    paths = [path for path in (boundary, *(path for path, _ in taps)) if path is not None]
    traced = _as_hooked(model, paths, size)
    if traced is None:
        return None
    graph = traced.graph if boundary is None else _cut(traced.graph, boundary)
    if graph is None:
        return None
    upper = torch.fx.GraphModule(traced, graph)
    _fold_batch_norm(upper)
    fuse_conv_relu(upper)
    return GraphFeatureExtractor(upper, taps).eval()


def _as_hooked(model: torch.nn.Module, paths: Sequence[str], size: int) -> torch.fx.GraphModule | None:
    """Return the network up to some modules and nodes as a graph; None where its outputs differ from what hooks see.

    They differ where a module's output is overwritten by what follows it, as by the addition that ends a block: hooks
    see what is there in the end. None as well where the network cannot be traced.
    """
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    hooked: dict[str, torch.Tensor] = {}
    modules = {path for path, _ in model.named_modules()} & set(paths)
    handles = [model.get_submodule(path).register_forward_hook(partial(keep_output, hooked, path)) for path in modules]
    with torch.no_grad():
        model(images)
    for handle in handles:  # tracing would call them too
        handle.remove()
    try:
        # A traced module that fails also prints where, which is not the user's matter: there is another way.
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
            traced = trace_outputs(model, paths)
            outputs = traced(images)
    except Exception:
        # Tracing fails in as many ways as there are dynamic networks; the caller then runs the whole network.
        return None
    close = partial(torch.allclose, rtol=1e-3, atol=1e-5, equal_nan=True)
    return traced if all(close(outputs[path], hooked[path]) for path in modules) else None


def _fold_batch_norm(module: Any) -> None:
    """Fold batch norm into the convolution before it: its statistics never change, and steps are cheaper.

    The folded weights are also better scaled for training: batch norm's gain, often far above one, no longer
    multiplies every update of the convolution (Jacob et al. 2018, section 3.2, for the folding).
    """
    for node in module.graph.nodes:
        source = node.args[0] if node.op == "call_module" else None  # a module may read a tuple, too
        if not isinstance(source, torch.fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        norm, before = module.get_submodule(node.target), module.get_submodule(source.target)
        if isinstance(norm, torch.nn.BatchNorm2d) and isinstance(before, torch.nn.Conv2d):
            statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
            before.weight, before.bias = fuse_conv_bn_weights(before.weight, before.bias, *statistics)  # type: ignore[arg-type]
            parent, _, name = node.target.rpartition(".")
            # timm's batch norms carry the activation that follows them.
            setattr(module.get_submodule(parent), name, getattr(norm, "act", torch.nn.Identity()))


def _cut(graph: Any, boundary: str) -> Any:
    """Return the graph with the boundary's output as its only input; None when it needs anything else from below."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    outputs = dict(output.args[0])
    below = outputs.pop(boundary)
    output.args = (outputs,)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]  # images, and options such as attention masks
    with graph.inserting_before(inputs[0]):
        entry = graph.placeholder("activations")
    below.replace_all_uses_with(entry)
    graph.eliminate_dead_code()
    if any(node.users for node in inputs):
        return None
    for node in inputs:
        graph.erase_node(node)
    graph.lint()
    return graph


def unfreeze_above(model: torch.nn.Module, boundary: str, size: int) -> None:
    """Unfreeze every parameter that is used after a layer has run, and not before it too.

    Args:
        model: the whole backbone, frozen.
        boundary: module path of the last layer that stays frozen.
        size: pixels of the square input.
    """
    above: list[torch.nn.Module] = []
    shared: set[torch.nn.Parameter] = set()
    reached = [False]

    def collect(module: torch.nn.Module, *_: Any) -> None:
        if reached[0]:
            above.append(module)
        else:  # a network's parallel paths may use one module several times
            shared.update(module.parameters(recurse=False))

    def mark_reached(*_: Any) -> None:
        reached[0] = True

    handles = [module.register_forward_pre_hook(collect) for module in model.modules()]
    handles.append(model.get_submodule(boundary).register_forward_hook(mark_reached))
    with torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    for parameter in {parameter for module in above for parameter in module.parameters()} - shared:
        parameter.requires_grad_(True)
