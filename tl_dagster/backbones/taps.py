"""Taps of a backbone: the features of its layers from one forward pass, and the backbone cut in two at one of them."""

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from tl_dagster.runtime.libraries import import_timm, import_torchvision

__all__ = ["build_extractor", "pool", "trace_network"]


def trace_network(model: torch.nn.Module) -> tuple[torch.fx.Graph, dict[str, torch.fx.Node]]:
    """The network's graph, and the node in it of each module's (last) output and of each operation.

    Operations are named as :func:`torchvision.models.feature_extraction.get_graph_node_names` names them. In the
    order in which they finish.

    Raises:
        Exception: of any kind, for networks that cannot be traced.
    """

    torchvision, timm = import_torchvision(), import_timm()
    from torchvision.models.feature_extraction import NodePathTracer

    named: dict[str, torch.fx.Node] = {}

    class Tracer(NodePathTracer):  # type: ignore[misc]  # torchvision has no types
        def create_proxy(self, *args: Any, **options: Any) -> Any:
            proxy = super().create_proxy(*args, **options)
            named[self.node_to_qualname[proxy.node]] = proxy.node
            return proxy

        def call_module(self, m: torch.nn.Module, *args: Any) -> Any:
            output = super().call_module(m, *args)
            named.pop(path := self.path_of_module(m), None)  # a module that is used twice finishes the second time
            if isinstance(output, torch.fx.Proxy):
                named[path] = output.node
            return output

    operations = [each for each in vars(torchvision.ops).values() if isinstance(each, type)]
    tracer = Tracer(
        leaf_modules=[
            *timm.layers.get_notrace_modules(),
            *(each for each in operations if issubclass(each, torch.nn.Module)),
        ],
        autowrap_modules=(math, torchvision.ops),
        autowrap_functions=timm.layers.get_notrace_functions(),
    )
    return tracer.trace(model), named


def pool(values: torch.Tensor, pooling: str) -> torch.Tensor:
    """Reduce a tap to one vector per image.

    Args:
        values: a map (N, C, H, W) or (N, H, W, C), tokens (N, T, C), or already a vector (N, D).
        pooling: "avg", "max", "avg+max" (side by side), "grid2x2" (the averages of the map's four quarters, side by
            side), or "none" (the map itself, flattened).
    """

    if pooling == "none" or values.ndim == 2:
        return values.flatten(1)
    channels_last = values.ndim == 4 and values.shape[1] == values.shape[2] != values.shape[3]
    if pooling == "grid2x2":
        if values.ndim == 3:  # class tokens and registers come first, the square of patches after them
            side, channels_last = math.isqrt(values.shape[1]), True
            values = values[:, values.shape[1] - side**2 :].unflatten(1, (side, side))
        if channels_last:
            values = values.permute(0, 3, 1, 2)
        return torch.nn.functional.adaptive_avg_pool2d(values, 2).flatten(2).transpose(1, 2).flatten(1)
    axes: tuple[int, ...] = (1, 2) if channels_last else (1,) if values.ndim == 3 else (2, 3)
    parts = {"avg": lambda: values.mean(axes), "max": lambda: values.amax(axes)}
    return torch.cat([parts[part]() for part in pooling.split("+")], 1)


def build_extractor(model: torch.nn.Module, taps: Sequence[tuple[str, str]]) -> torch.nn.Module:
    """Wrap a backbone so that one forward pass gives the pooled features of several layers.

    Args:
        model: see :func:`.backbones.load_backbone`.
        taps: (module path or node, pooling) of each.

    Returns:
        A module: images (N, 3, size, size) → a list of (N, D_tap), in the order of the taps.
    """

    modules = {path for path, _ in model.named_modules()}
    if not all(path in modules for path, _ in taps):
        return pooled_module(trace_outputs(model, [path for path, _ in taps]), taps)

    class Tapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.seen: dict[str, torch.Tensor] = {}
            for path in {path for path, _ in taps}:
                # A partial of a method, not a closure: a copy of this module must fill its own `seen`.
                model.get_submodule(path).register_forward_hook(partial(self._keep, path))

        def _keep(self, path: str, _: Any, __: Any, output: torch.Tensor) -> None:
            self.seen[path] = output

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            self.model(images)
            pooled = [pool(self.seen[path], pooling) for path, pooling in taps]
            self.seen.clear()  # empty again: a compiled forward would otherwise be compiled a second time
            return pooled

    return Tapped()


def keep_output(seen: dict[str, torch.Tensor], path: str, _: Any, __: Any, output: torch.Tensor) -> None:
    seen[path] = output


def trace_outputs(model: torch.nn.Module, paths: Sequence[str]) -> torch.fx.GraphModule:
    """The network up to some modules and nodes, as a graph: images → {path: output}."""

    graph, named = trace_network(model)
    (output,) = (node for node in graph.nodes if node.op == "output")
    output.args = ({path: named[path] if path else output.args[0] for path in paths},)
    traced = torch.fx.GraphModule(model, graph)
    _protect(traced, list(output.args[0].values()))
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _protect(traced: torch.fx.GraphModule, nodes: Sequence[Any]) -> None:
    """Layers that would overwrite what some nodes give write elsewhere: whether they are left out must not matter."""
    for user in {user for node in nodes for user in node.users if node in user.args[:1]}:
        if user.op == "call_module" and getattr(layer := traced.get_submodule(user.target), "inplace", False):
            user.target = f"{user.target}_apart"
            traced.add_submodule(user.target, copy.copy(layer))
            traced.get_submodule(user.target).inplace = False  # type: ignore[assignment]
        elif user.kwargs.get("inplace"):
            user.kwargs = {**user.kwargs, "inplace": False}


def pooled_module(graph: torch.nn.Module, taps: Sequence[tuple[str, str]]) -> torch.nn.Module:

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.upper = graph

        def forward(self, values: torch.Tensor) -> list[torch.Tensor]:
            seen = self.upper(values)
            return [pool(seen[path], pooling) for path, pooling in taps]

    return Pooled().eval()
