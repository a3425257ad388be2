"""The description of a backbone without its weights: ``python -m tl_dagster.backbones.inspection NAME [TAG [SIZE]]``.

Loading definitions must not import torch, yet a tap that the backbone lacks is refused at load. So the network is
inspected here, in a process of its own, once for each backbone, size and library version; the description is stored by
:mod:`tl_dagster.backbones.description`.
"""

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tl_dagster.backbones.building import check_torchvision, create_on_meta, drop_classifiers
from tl_dagster.backbones.taps import trace_network
from tl_dagster.runtime.errors import InputError, first_line, suggest
from tl_dagster.runtime.libraries import import_timm, import_torchvision

__all__ = ["describe"]

timm, torchvision = import_timm(), import_torchvision()
# Images in the batch that is traced: a first dimension of this many is that of the images, and hardly anything else.
BATCH = 5


def describe(name: str, tag: str | None = None, size: int | None = None) -> dict[str, Any]:
    """Describe a backbone before its weights are there.

    Args:
        name: "timm/NAME" or "torchvision/NAME".
        tag: the library's name of the weights; its default when None.
        size: pixels of the square images that it will be given; the weights' own size when None.

    Returns:
        ``stages``: stage name → module path, lower to higher; ``modules``: all module paths; ``nodes``: names of
        the traced graph's operations that are not modules; ``size``: of the images; ``outputs``: name → shape, without
        the batch, of the output of each module and node for an image, in the order in which they finish, where that is
        a vector, tokens or a map; ``costs``: name → GFLOP (two for each multiplication and addition) until it has
        finished, for one image, or nothing where they cannot be counted; ``parameters``: of the network without its
        classifiers; ``classifiers``: paths of the last fully connected layers, the one before
        which features are taken first; ``preprocess``: size, crop_fraction, interpolation, mean, std;
        ``weights``: url and sha256 prefix of the pre-trained file, or None; ``untunable``: why gradients cannot be
        computed through the network, or "".

    Raises:
        InputError: no such model or tag, or it does not accept images of this size.
    """
    library, _, short = name.partition("/")
    known = _torchvision(short, tag) if library == "torchvision" else {}
    model = create_on_meta(name, known["preprocess"]["size"] if known else 0)
    known = known or _timm(model, short, tag)
    native = known["preprocess"]["size"]
    shapes = _shapes(model, native)
    classifiers = _classifiers(model, known.pop("classifiers", ()), shapes)
    declared = (_within(path, shapes) for path in known.pop("stages", ()))
    stages = [path for path in dict.fromkeys(declared) if path is not None]
    stages = stages if len(stages) > 1 else _stages_by_resolution(model, shapes, classifiers, native)
    drop_classifiers(model, classifiers)
    try:
        nodes, outputs = _outputs(model, size or native)
    except Exception as error:
        # Networks refuse a size with any kind of error: an assertion, a failed reshape, a kernel over the edge.
        if size in (None, native):
            raise
        raise InputError(
            f"backbone.image_size: {name} does not accept images of {size} x {size} pixels; leave it out: "
            f"its own size is {native} ({first_line(error)[:120]})"
        ) from error
    stages = [path for path in stages if path in outputs]
    # A few gradients are not defined without values: only an error that comes with values too is the network's own.
    untunable = _try_gradients(model, size or native) and _try_gradients(model.to_empty(device="cpu"), size or native)
    return {
        "stages": {f"stage{number}": path for number, path in enumerate(stages, 1)},
        "modules": [path for path, _ in model.named_modules() if path],
        "nodes": nodes,
        "size": size or native,
        "outputs": outputs,
        "costs": _costs(model, size or native, outputs),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "classifiers": classifiers,
        "untunable": untunable,
        **known,
    }


def _try_gradients(model: torch.nn.Module, size: int) -> str:
    """Compute the gradients of one image; return the error in a line, or ""."""
    image = torch.zeros(1, 3, size, size, device=next(model.parameters()).device)
    try:
        model.requires_grad_(True)
        model(image).float().sum().backward()
    except Exception as error:  # networks fail in as many ways as there are operations
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return ""


def _timm(model: Any, name: str, tag: str | None) -> dict[str, Any]:
    architecture = name.partition(".")[0]
    tags = timm.list_pretrained(f"{architecture}.*") if timm.is_model_pretrained(architecture) else []
    if tag is not None and f"{architecture}.{tag}" not in tags:
        raise InputError(
            f"backbone.weights: '{tag}' is neither a file nor a tag of {architecture}: "
            f"{suggest(tag, [each.partition('.')[2] for each in tags])}"
        )
    config = timm.models.get_pretrained_cfg(f"{architecture}.{tag}" if tag else name)
    data = timm.data.resolve_data_config(pretrained_cfg=config.to_dict() if config else {}, model=model)
    weights = None
    if config and config.hf_hub_id:
        weights = {"url": f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors", "sha256": ""}
    elif config and config.url:
        weights = {"url": config.url, "sha256": _prefix(config.url)}
    declared = model.default_cfg.get("classifier") or ()
    return {
        "stages": _feature_info(model),
        "classifiers": (declared,) if isinstance(declared, str) else declared,
        "preprocess": {
            "size": data["input_size"][-1],
            "crop_fraction": data["crop_pct"],
            "interpolation": data["interpolation"],
            "mean": list(data["mean"]),
            "std": list(data["std"]),
        },
        "weights": weights,
    }


def _torchvision(name: str, tag: str | None) -> dict[str, Any]:
    models = torchvision.models
    check_torchvision(name)
    tags = models.get_model_weights(name)
    if tag is not None and tag not in tags.__members__:
        raise InputError(
            f"backbone.weights: '{tag}' is neither a file nor a tag of {name}: {suggest(tag, tags.__members__)}"
        )
    weights = tags[tag] if tag else tags.DEFAULT
    transform = weights.transforms()
    return {
        "preprocess": {
            "size": transform.crop_size[0],
            "crop_fraction": transform.crop_size[0] / transform.resize_size[0],
            "interpolation": transform.interpolation.value,
            "mean": list(transform.mean),
            "std": list(transform.std),
        },
        "weights": {"url": weights.url, "sha256": _prefix(weights.url)},
    }


def _prefix(url: str) -> str:
    """Return the SHA-256 prefix that both libraries write at the end of their files' names (name-0123abcd.pth)."""
    stem = url.rpartition("/")[2].rpartition(".")[0].rpartition("-")[2]
    return stem if len(stem) == 8 and set(stem) <= set("0123456789abcdef") else ""


def _feature_info(model: Any) -> list[str]:
    present = dict(model.named_modules())
    modules = [each["module"] for each in getattr(model, "feature_info", None) or () if each["module"] in present]
    modules = [path for path in modules if not isinstance(present[path], torch.nn.MaxPool2d)]  # VGG's last "stage"
    return _quarters(modules) if len(modules) > 6 else modules


def _within(stage: str, shapes: dict[str, Any]) -> str | None:
    """Return a stage, or the last of its outermost parts where the stage itself gives several tensors at once."""
    parts = [
        path
        for path, (_, output) in shapes.items()
        if f"{path}.".startswith(f"{stage}.") and len(output) in (3, 4) and output[0] == BATCH
    ]
    outermost = min((path.count(".") for path in parts), default=0)
    return next((path for path in reversed(parts) if path.count(".") == outermost), None)


def _quarters(modules: list[str]) -> list[str]:
    """Return the last block of each quarter of the depth: the stages of transformers, which have one resolution."""
    return [modules[len(modules) * quarter // 4 - 1] for quarter in (1, 2, 3, 4)]


def _shapes(model: torch.nn.Module, size: int) -> dict[str, tuple[torch.Size, torch.Size]]:
    """Return module path → shapes of its (first) input and its output, in the order in which modules finish."""
    shapes: dict[str, tuple[torch.Size, torch.Size]] = {}

    def record(path: str) -> Any:
        def hook(_: Any, inputs: Any, output: Any) -> None:
            shapes.pop(path, None)
            if isinstance(output, torch.Tensor):
                read = inputs[0].shape if inputs and isinstance(inputs[0], torch.Tensor) else torch.Size()
                shapes[path] = (read, output.shape)

        return hook

    _forward(model, size, record)
    return shapes


def _forward(model: torch.nn.Module, size: int, record: Callable[[str], Callable[..., None]]) -> None:
    """Run a batch without values through the network, with a hook on each module, made from its path."""
    handles = [module.register_forward_hook(record(path)) for path, module in model.named_modules()]
    try:
        with torch.no_grad():
            model(torch.empty(BATCH, 3, size, size, device="meta"))
    finally:
        for handle in handles:
            handle.remove()


def _outputs(model: torch.nn.Module, size: int) -> tuple[list[str], dict[str, list[int]]]:
    """Return the names of nodes that are not modules, and the output shapes of modules and nodes for one image."""
    found = {path: output for path, (_, output) in _shapes(model, size).items()}
    modules = {path for path, _ in model.named_modules()}
    named: dict[str, Any] = {}
    # Tracing fails in as many ways as there are dynamic networks: those have modules only.
    with contextlib.suppress(Exception):
        graph, named = trace_network(model)
        shapes = _node_shapes(model, graph, size)
        found |= {name: shapes[node] for name, node in named.items() if name not in modules and node in shapes}
    place = {name: number for number, name in enumerate(named)}

    def finished(name: str) -> tuple[int, int]:
        known = name  # what the tracer does not look into has finished before the whole of it
        while known and known not in place:
            known = known.rpartition(".")[0]
        return place.get(known, len(place)), -name.count(".") - bool(name)

    outputs = {
        name: list(found[name][1:])
        for name in (sorted(found, key=finished) if place else found)
        if len(found[name]) in (2, 3, 4) and found[name][0] == BATCH
    }
    return [name for name in outputs if name not in modules], outputs


def _costs(model: torch.nn.Module, size: int, outputs: dict[str, list[int]]) -> dict[str, float]:
    """Return the GFLOP of one image until each output has finished; a node costs what had finished before it."""
    reached: dict[str, float] = {}
    counter = FlopCounterMode(display=False)

    def record(path: str) -> Any:
        def hook(*_: Any) -> None:
            reached[path] = counter.get_total_flops() / BATCH / 1e9

        return hook

    try:
        with counter:
            _forward(model, size, record)
    except Exception:  # the counter knows not every operation's shapes
        return {}
    costs = itertools.accumulate((reached.get(name, 0.0) for name in outputs), max)
    return dict(zip(outputs, costs, strict=True))


def _node_shapes(model: torch.nn.Module, graph: Any, size: int) -> dict[Any, Any]:
    """Return the shape of each operation's output that is a tensor."""
    recorder = ShapeRecorder(torch.fx.GraphModule(model, graph))
    with torch.no_grad():
        recorder.run(torch.empty(BATCH, 3, size, size, device="meta"))
    return recorder.shapes


class ShapeRecorder(torch.fx.Interpreter):
    """Runs a graph and records the shape of each operation's output that is a tensor.

    Attributes:
        shapes: node → shape.
    """

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[torch.fx.Node, torch.Size] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one operation."""
        output = super().run_node(n)
        if n.op.startswith("call") and isinstance(output, torch.Tensor):
            self.shapes[n] = output.shape
        return output


def _stages_by_resolution(
    model: torch.nn.Module, shapes: dict[str, Any], classifiers: Sequence[str], size: int
) -> list[str]:
    """Return the last block at each spatial resolution; the quarters of the depth where there is only one of these."""
    heads = {path.partition(".")[0] for path in classifiers}
    blocks = [path for path in _blocks(model, shapes) if path.partition(".")[0] not in heads]
    by_resolution = {_side(shapes[path][1]): path for path in blocks if 1 < _side(shapes[path][1]) < size}
    if len(by_resolution) > 2:
        return [by_resolution[side] for side in sorted(by_resolution, reverse=True)]
    tokens = [path for path, (_, output) in shapes.items() if len(output) == 3 and path[-1].isdigit()]
    depth = min((path.count(".") for path in tokens), default=0)
    return _quarters([path for path in tokens if path.count(".") == depth]) if tokens else []


def _blocks(module: torch.nn.Module, shapes: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the blocks of the trunk in order: containers that span several resolutions are opened."""
    found = []
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, torch.nn.ModuleList):  # never called itself
            found += _blocks(child, shapes, f"{path}.")
        elif path in shapes and not isinstance(child, torch.nn.AdaptiveAvgPool2d | torch.nn.MaxPool2d):
            into, out = (_side(shape) for shape in shapes[path])
            spans = into > 2 * out + 2 > 2 and list(child.children())
            found += _blocks(child, shapes, f"{path}.") if spans else [path]
    return found


def _side(shape: Any) -> int:
    """Return the spatial side of a square map, NCHW or NHWC; 0 when it is not one."""
    if len(shape) != 4:
        return 0
    return int(shape[2]) if shape[2] in (shape[1], shape[3]) else 0


def _classifiers(model: torch.nn.Module, declared: Sequence[str], shapes: dict[str, Any]) -> list[str]:
    """Return the layers that transfer learning drops: those that the library names, or the last with 1,000 outputs.

    Distilled and multi-scale networks have several. The features are those of the widest, and of the first among
    these: of the whole network, not of a lower branch.
    """
    found = [path for path in declared if path in shapes]
    if not found:
        for path, module in model.named_modules():
            outputs = getattr(module, "out_features", getattr(module, "out_channels", None))
            if outputs == 1000 and not path.lower().startswith("aux"):
                found = [path]
    return sorted(found, key=lambda path: -int(getattr(model.get_submodule(path), "in_features", 0)))


def main() -> None:
    """Print the description as JSON, or the error as ``{"error": …}``."""
    name, tag, size = (*sys.argv[1:], "", "")[:3]
    try:
        answer = describe(name, tag or None, int(size) if size else None)
    except InputError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
