"""Taps of a backbone: the pooled features of several of its layers from one forward pass."""

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from tl_dagster.runtime.libraries import import_timm, import_torchvision

__all__ = [
    "GraphFeatureExtractor",
    "HookedFeatureExtractor",
    "build_extractor",
    "keep_output",
    "pool",
    "trace_network",
    "trace_outputs",
]

torchvision, timm = import_torchvision(), import_timm()
feature_extraction = import_torchvision("models.feature_extraction")


class NodeTracer(feature_extraction.NodePathTracer):  # type: ignore[name-defined, misc]  # torchvision has no types
    """The tracer of torchvision's ``create_feature_extractor``, which also records the node of every module's output.

    Operations of torchvision, and what timm asks not to be traced, are leaves of the graph.

    Attributes:
        nodes: module path or operation → its (last) node, in the order in which they finish.
    """

    def __init__(self) -> None:
        operations = [each for each in vars(torchvision.ops).values() if isinstance(each, type)]
        layers = [each for each in operations if issubclass(each, torch.nn.Module)]
        super().__init__(
            leaf_modules=[*timm.layers.get_notrace_modules(), *layers],
            autowrap_modules=(math, torchvision.ops),
            autowrap_functions=timm.layers.get_notrace_functions(),
        )
        self.nodes: dict[str, torch.fx.Node] = {}

    def create_proxy(self, *args: Any, **options: Any) -> Any:
        """Record an operation's node under its qualified name."""
        proxy = super().create_proxy(*args, **options)
        self.nodes[self.node_to_qualname[proxy.node]] = proxy.node
        return proxy

    def call_module(self, m: torch.nn.Module, *args: Any) -> Any:
        """Record the node of a module's output under the module's path."""
        output = super().call_module(m, *args)
        self.nodes.pop(path := self.path_of_module(m), None)  # a module that is used twice finishes the second time
        if isinstance(output, torch.fx.Proxy):
            self.nodes[path] = output.node
        return output


def trace_network(model: torch.nn.Module) -> tuple[torch.fx.Graph, dict[str, torch.fx.Node]]:
    """Return a network's graph, and the node in it of each module's (last) output and of each operation.

    Operations are named as :func:`torchvision.models.feature_extraction.get_graph_node_names` names them. In the
    order in which they finish.

    Raises:
        Exception: of any kind, for networks that cannot be traced.
    """
    tracer = NodeTracer()
    return tracer.trace(model), tracer.nodes


def pool(values: torch.Tensor, pooling: str) -> torch.Tensor:
    """Reduce the output of a layer to one vector per image.

    Args:
        values: a map (N, C, H, W) or (N, H, W, C), tokens (N, T, C), or already a vector (N, D).
        pooling: "avg", "max", "avg+max" (side by side), "grid2x2" (the averages of the map's four quarters, side by
            side), or "none" (the map itself, flattened).

    Returns:
        (N, D).
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
        model: see :func:`.building.load_backbone`.
        taps: (module path or node, pooling) of each.

    Returns:
        A module: images (N, 3, size, size) → a list of (N, D_tap), in the order of the taps.
    """
    modules = {path for path, _ in model.named_modules()}
    if not all(path in modules for path, _ in taps):
        return GraphFeatureExtractor(trace_outputs(model, [path for path, _ in taps]), taps).eval()
    return HookedFeatureExtractor(model, taps)


class HookedFeatureExtractor(torch.nn.Module):
    """A network with forward hooks at the tapped modules: images → a list of pooled features (N, D_tap).

    Args:
        model: the network.
        taps: (module path, pooling) of each.
    """

    def __init__(self, model: torch.nn.Module, taps: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.model = model
        self.taps = tuple(taps)
        self.outputs: dict[str, torch.Tensor] = {}
        for path in {path for path, _ in taps}:
            # A partial of a method, not a closure: a copy of this module must fill its own `outputs`.
            model.get_submodule(path).register_forward_hook(partial(self._keep, path))

    def _keep(self, path: str, _: Any, __: Any, output: torch.Tensor) -> None:
        self.outputs[path] = output

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the pooled features of the taps."""
        self.model(images)
        pooled = [pool(self.outputs[path], pooling) for path, pooling in self.taps]
        self.outputs.clear()  # empty again: a compiled forward would otherwise be compiled a second time
        return pooled


class GraphFeatureExtractor(torch.nn.Module):
    """A traced network, or a part of one: its input → a list of pooled features (N, D_tap).

    Args:
        graph: gives {path: output} of the tapped modules and nodes, see :func:`trace_outputs`.
        taps: (module path or node, pooling) of each.
    """

    def __init__(self, graph: torch.nn.Module, taps: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.upper = graph  # the name stands in the state dictionaries of fine-tuned networks
        self.taps = tuple(taps)

    def forward(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Return the pooled features of the taps."""
        outputs = self.upper(values)
        return [pool(outputs[path], pooling) for path, pooling in self.taps]


def keep_output(outputs: dict[str, torch.Tensor], path: str, _: Any, __: Any, output: torch.Tensor) -> None:
    """Store a module's output under its path: a forward hook, once the first two arguments are bound."""
    outputs[path] = output


def trace_outputs(model: torch.nn.Module, paths: Sequence[str]) -> torch.fx.GraphModule:
    """Trace a network up to some modules and nodes: a graph of images → {path: output}.

    Raises:
        Exception: of any kind, for networks that cannot be traced.
    """
    graph, named = trace_network(model)
    (output,) = (node for node in graph.nodes if node.op == "output")
    output.args = ({path: named[path] if path else output.args[0] for path in paths},)
    traced = torch.fx.GraphModule(model, graph)
    _preserve_outputs(traced, list(output.args[0].values()))
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _preserve_outputs(traced: torch.fx.GraphModule, nodes: Sequence[Any]) -> None:
    """Make in-place layers after tapped nodes out-of-place, so that taps do not depend on later layers."""
    for user in {user for node in nodes for user in node.users if node in user.args[:1]}:
        if user.op == "call_module" and getattr(layer := traced.get_submodule(user.target), "inplace", False):
            user.target = f"{user.target}_apart"
            traced.add_submodule(user.target, copy.copy(layer))
            traced.get_submodule(user.target).inplace = False  # type: ignore[assignment]
        elif user.kwargs.get("inplace"):
            user.kwargs = {**user.kwargs, "inplace": False}
