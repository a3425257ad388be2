"""Frozen backbones in torch: weights loaded, the last fully connected layer dropped, and taps attached."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_dagster.errors import InputError
from tl_dagster.features.catalogue import BackboneInfo
from tl_dagster.features.describe import create
from tl_dagster.features.weights import Weights
from tl_dagster.libraries import import_timm

if TYPE_CHECKING:
    import torch

__all__ = ["load", "pool", "tail", "tapped", "unfreeze_above"]


def load(info: BackboneInfo, weights: Weights) -> "torch.nn.Module":
    """The backbone in evaluation mode, frozen, its last fully connected layer replaced by identity.

    Args:
        info: the backbone's description.
        weights: the file, or the seed, of its weights.

    Returns:
        A module: float32 images (N, 3, size, size) → penultimate features (N, D).

    Raises:
        InputError: the file's keys do not fit the architecture.
    """
    import torch

    if weights.path is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(weights.identity.partition(":")[2]))
            model = create(info.name)
    else:
        model = create(info.name)
        _fill(model, _read(weights.path), info, weights)
    parent, _, name = info.classifier.rpartition(".")
    setattr(model.get_submodule(parent), name, torch.nn.Identity())
    return model.eval().requires_grad_(False)


def _read(path: Path) -> dict[str, "torch.Tensor"]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    nested: dict[str, torch.Tensor] = state.get("state_dict", state)
    return nested


def _fill(model: "torch.nn.Module", state: dict[str, "torch.Tensor"], info: BackboneInfo, weights: Weights) -> None:
    wanted = model.state_dict()
    if weights.in_order and len(wanted) == len(state):
        state = dict(zip(wanted, state.values(), strict=True))
    # Older files lack the batch counters, and the classifier is dropped anyway.
    optional = {key for key in wanted if key.endswith("num_batches_tracked") or key.startswith(f"{info.classifier}.")}
    missing = [key for key in wanted if key not in state and key not in optional]
    unexpected = [key for key in state if key not in wanted and not key.startswith(f"{info.classifier}.")]
    reshaped = [key for key in wanted if key in state and state[key].shape != wanted[key].shape and key not in optional]
    if missing or unexpected or reshaped:
        raise InputError(
            f"backbone.weights: {weights.path} does not fit {info.name}: "
            f"missing {missing[:8]}, unexpected {unexpected[:8]}, of another shape {reshaped[:8]}"
        )
    fitting = {key: value for key, value in state.items() if key in wanted and value.shape == wanted[key].shape}
    model.load_state_dict(fitting, strict=False)


def pool(values: "torch.Tensor", pooling: str) -> "torch.Tensor":
    """Reduce a tap to one vector per image.

    Args:
        values: a map (N, C, H, W) or (N, H, W, C), tokens (N, T, C), or already a vector (N, D).
        pooling: "avg", "max", "avg+max" (side by side), or "none" (the map itself, flattened).
    """
    import torch

    if pooling == "none" or values.ndim == 2:
        return values.flatten(1)
    if values.ndim == 4 and values.shape[1] == values.shape[2] != values.shape[3]:
        axes: tuple[int, ...] = (1, 2)
    else:
        axes = (1,) if values.ndim == 3 else (2, 3)
    parts = {"avg": lambda: values.mean(axes), "max": lambda: values.amax(axes)}
    return torch.cat([parts[part]() for part in pooling.split("+")], 1)


def tapped(model: "torch.nn.Module", taps: Sequence[tuple[str, str]]) -> "torch.nn.Module":
    """Wrap a backbone so that one forward pass gives the pooled features of several layers.

    Args:
        model: see :func:`load`.
        taps: (module path, pooling) of each.

    Returns:
        A module: images (N, 3, size, size) → a list of (N, D_tap), in the order of the taps.
    """
    import torch

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


def tail(model: "torch.nn.Module", boundary: str, taps: Sequence[tuple[str, str]]) -> "torch.nn.Module | None":
    """The part of a backbone above a layer, as a module of its own.

    Args:
        model: see :func:`load`.
        boundary: module path of the last layer below.
        taps: (module path, pooling) of the taps above it.

    Returns:
        A module: the boundary's output → a list of (N, D_tap), as from :func:`tapped`; None when the upper part also
        reads something else than the boundary's output, or the network cannot be traced.
    """
    import torch

    import_timm()
    from timm.models import create_feature_extractor

    try:
        traced = create_feature_extractor(model, {path: path for path in (boundary, *(path for path, _ in taps))})
        graph = _cut(traced.graph, boundary)
    except Exception:
        # Tracing fails in as many ways as there are dynamic networks; the caller then runs the whole network.
        return None
    if graph is None:
        return None
    upper = torch.fx.GraphModule(traced, graph)
    _fold_batch_norm(upper)

    class Tail(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.upper = upper

        def forward(self, activations: torch.Tensor) -> list[torch.Tensor]:
            seen = self.upper(activations)
            return [pool(seen[path], pooling) for path, pooling in taps]

    return Tail().eval()


def _fold_batch_norm(module: Any) -> None:
    """Fold batch norm into the convolution before it: its statistics are frozen for good, and steps are cheaper.

    The folded weights are also better scaled for training: batch norm's gain, often far above one, no longer
    multiplies every update of the convolution (Jacob et al. 2018, section 3.2, for the folding).
    """
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    for node in module.graph.nodes:
        if node.op != "call_module" or node.args[0].op != "call_module" or len(node.args[0].users) != 1:
            continue
        norm, before = module.get_submodule(node.target), module.get_submodule(node.args[0].target)
        if isinstance(norm, torch.nn.BatchNorm2d) and isinstance(before, torch.nn.Conv2d):
            statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
            before.weight, before.bias = fuse_conv_bn_weights(before.weight, before.bias, *statistics)  # type: ignore[arg-type]
            parent, _, name = node.target.rpartition(".")
            # timm's batch norms carry the activation that follows them.
            setattr(module.get_submodule(parent), name, getattr(norm, "act", torch.nn.Identity()))


def _cut(graph: Any, boundary: str) -> Any:
    """The graph with the boundary's output as its only input; None when it needs anything else from below."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    seen = dict(output.args[0])
    below = seen.pop(boundary)
    output.args = (seen,)
    (images,) = (node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_before(images):
        entry = graph.placeholder("activations")
    below.replace_all_uses_with(entry)
    graph.eliminate_dead_code()
    if images.users:
        return None
    graph.erase_node(images)
    graph.lint()
    return graph


def unfreeze_above(model: "torch.nn.Module", boundary: str, size: int) -> None:
    """Let gradients reach every parameter that is used after a layer has run, and no other.

    Args:
        model: the whole backbone, frozen.
        boundary: module path of the last layer that stays frozen.
        size: pixels of the square input.
    """
    import torch

    above: list[torch.nn.Module] = []
    passed = [False]

    def note(module: torch.nn.Module, *_: Any) -> None:
        if passed[0]:
            above.append(module)

    def reached(*_: Any) -> None:
        passed[0] = True

    handles = [module.register_forward_pre_hook(note) for module in model.modules()]
    handles.append(model.get_submodule(boundary).register_forward_hook(reached))
    with torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    for module in above:
        module.requires_grad_(True)
