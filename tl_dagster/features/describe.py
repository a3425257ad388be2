"""Describes a backbone without its weights. Run as ``python -m tl_dagster.features.describe NAME [TAG]``.

Loading definitions must not import torch, yet a tap layer that the backbone lacks is refused at load. So the
look at the network happens here, in a process of its own, once for each backbone and library version; its answer
is kept by :mod:`tl_dagster.features.catalogue`.
"""

import contextlib
import json
import sys
import warnings
from typing import TYPE_CHECKING, Any

from tl_dagster.errors import InputError, nearest
from tl_dagster.libraries import import_timm, import_torchvision

if TYPE_CHECKING:
    import torch

__all__ = ["create", "describe"]


def create(name: str) -> "torch.nn.Module":
    """The architecture with its 1,000-class head, freshly initialised on the current default device.

    Args:
        name: "timm/NAME" or "torchvision/NAME".

    Raises:
        InputError: no such model.
    """
    library, _, model = name.partition("/")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if library == "timm":
            timm = import_timm()
            if model.partition(".")[0] not in timm.list_models():
                raise InputError(f"backbone.name: timm has no '{model}': {nearest(model, timm.list_models())}")
            made: torch.nn.Module = timm.create_model(model, pretrained=False)
            return made
        models = import_torchvision().models
        names = models.list_models(module=models)
        if model not in names:
            raise InputError(f"backbone.name: torchvision has no '{model}': {nearest(model, names)}")
        builder = models.get_model_builder(model)
        # GoogLeNet and Inception otherwise draw initial weights through scipy for a minute; their pre-trained weights
        # expect the input transform that torchvision switches on only when it loads them itself.
        slow = {"init_weights": False, "transform_input": True} if model in ("googlenet", "inception_v3") else {}
        built: torch.nn.Module = builder(weights=None, **slow)
        return built


def describe(name: str, tag: str | None = None) -> dict[str, Any]:
    """What can be known of a backbone before its weights are there.

    Args:
        name: "timm/NAME" or "torchvision/NAME".
        tag: the library's name of the weights; its default when None.

    Returns:
        ``stages``: stage name → module path, lower to higher; ``modules``: all module paths; ``maps``: shape of
        each module's output that is a map, at the weights' own image size; ``classifier``: path of
        the last fully connected layer; ``preprocess``: size, crop_fraction, interpolation, mean, std;
        ``weights``: url and sha256 prefix of the pre-trained file, or None.

    Raises:
        InputError: no such model or tag.
    """
    import torch

    with torch.device("meta"), contextlib.suppress(NotImplementedError):
        model = create(name)
    if "model" not in locals():  # a few architectures compute their widths with tensors
        model = create(name)
    model = model.to("meta").eval()
    library, _, short = name.partition("/")
    known = _timm(model, short, tag) if library == "timm" else _torchvision(model, short, tag)
    size = known["preprocess"]["size"]
    shapes = _shapes(model, size)
    stages = known.pop("stages") or _stages_by_resolution(model, shapes, known["classifier"], size)
    return {
        "stages": {f"stage{number}": path for number, path in enumerate(stages, 1)},
        "modules": [path for path, _ in model.named_modules() if path],
        "maps": {path: list(shape[1:]) for path, (_, shape) in shapes.items() if len(shape) == 4},
        **known,
    }


def _timm(model: Any, name: str, tag: str | None) -> dict[str, Any]:
    timm = import_timm()
    architecture = name.partition(".")[0]
    tags = timm.list_pretrained(f"{architecture}.*") if timm.is_model_pretrained(architecture) else []
    if tag is not None and f"{architecture}.{tag}" not in tags:
        raise InputError(
            f"backbone.weights: '{tag}' is no file and no tag of {architecture}: "
            f"{nearest(tag, [each.partition('.')[2] for each in tags])}"
        )
    config = timm.models.get_pretrained_cfg(f"{architecture}.{tag}" if tag else name)
    data = timm.data.resolve_data_config(pretrained_cfg=config.to_dict() if config else {}, model=model)
    weights = None
    if config and config.hf_hub_id:
        weights = {"url": f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors", "sha256": ""}
    elif config and config.url:
        weights = {"url": config.url, "sha256": _prefix(config.url)}
    classifier = model.default_cfg.get("classifier")
    if isinstance(classifier, tuple | list):
        raise InputError(
            f"backbone.name: timm's {architecture} has several classifiers ({', '.join(classifier)}), "
            "which cannot be dropped for one; choose a variant without distillation"
        )
    return {
        "stages": _feature_info(model),
        "classifier": classifier if isinstance(classifier, str) else _last_classifier(model),
        "preprocess": {
            "size": data["input_size"][-1],
            "crop_fraction": data["crop_pct"],
            "interpolation": data["interpolation"],
            "mean": list(data["mean"]),
            "std": list(data["std"]),
        },
        "weights": weights,
    }


def _torchvision(model: "torch.nn.Module", name: str, tag: str | None) -> dict[str, Any]:
    models = import_torchvision().models
    tags = models.get_model_weights(name)
    if tag is not None and tag not in tags.__members__:
        raise InputError(f"backbone.weights: '{tag}' is no file and no tag of {name}: {nearest(tag, tags.__members__)}")
    weights = tags[tag] if tag else tags.DEFAULT
    transform = weights.transforms()
    return {
        "stages": None,
        "classifier": _last_classifier(model),
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
    """The SHA-256 prefix that both libraries write at the end of their files' names (name-0123abcd.pth)."""
    stem = url.rpartition("/")[2].rpartition(".")[0].rpartition("-")[2]
    return stem if len(stem) == 8 and set(stem) <= set("0123456789abcdef") else ""


def _feature_info(model: Any) -> list[str] | None:
    info = getattr(model, "feature_info", None)
    if not info:
        return None
    import torch

    present = dict(model.named_modules())
    modules = [each["module"] for each in info]
    if not all(path in present for path in modules):
        return None
    modules = [path for path in modules if not isinstance(present[path], torch.nn.MaxPool2d)]  # VGG's last "stage"
    return _quarters(modules) if len(modules) > 6 else modules


def _quarters(modules: list[str]) -> list[str]:
    """Transformers keep one resolution: their stages are the quarters of the depth."""
    return [modules[len(modules) * quarter // 4 - 1] for quarter in (1, 2, 3, 4)]


def _shapes(model: "torch.nn.Module", size: int) -> dict[str, tuple[Any, Any]]:
    """Module path → shapes of its (first) input and its output, for one image."""
    import torch

    shapes: dict[str, tuple[torch.Size, torch.Size]] = {}

    def note(path: str) -> Any:
        def hook(_: Any, inputs: Any, output: Any) -> None:
            if inputs and isinstance(inputs[0], torch.Tensor) and isinstance(output, torch.Tensor):
                shapes[path] = (inputs[0].shape, output.shape)

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in model.named_modules() if path]
    with torch.no_grad():
        model(torch.empty(1, 3, size, size, device="meta"))
    for handle in handles:
        handle.remove()
    return shapes


def _stages_by_resolution(model: "torch.nn.Module", shapes: dict[str, Any], classifier: str, size: int) -> list[str]:
    """The last block at each spatial resolution; the quarters of the depth where there is only one resolution."""
    head = classifier.partition(".")[0]
    blocks = [path for path in _blocks(model, shapes) if path.partition(".")[0] != head]
    by_resolution = {_side(shapes[path][1]): path for path in blocks if 1 < _side(shapes[path][1]) < size}
    if len(by_resolution) > 2:
        return [by_resolution[side] for side in sorted(by_resolution, reverse=True)]
    tokens = [path for path, (_, output) in shapes.items() if len(output) == 3 and path[-1].isdigit()]
    depth = min((path.count(".") for path in tokens), default=0)
    return _quarters([path for path in tokens if path.count(".") == depth]) if tokens else []


def _blocks(module: "torch.nn.Module", shapes: dict[str, Any], prefix: str = "") -> list[str]:
    """The blocks of the trunk in order: containers that span several resolutions are opened."""
    import torch

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
    """The spatial side of a square map, NCHW or NHWC; 0 when it is not one."""
    if len(shape) != 4:
        return 0
    return int(shape[2]) if shape[2] in (shape[1], shape[3]) else 0


def _last_classifier(model: "torch.nn.Module") -> str:
    """The last layer with 1,000 outputs: what transfer learning drops."""
    found = ""
    for path, module in model.named_modules():
        outputs = getattr(module, "out_features", getattr(module, "out_channels", None))
        if outputs == 1000 and not path.lower().startswith("aux"):
            found = path
    return found


def main() -> None:
    """Print the description as JSON, or the error as ``{"error": …}``."""
    name, tag = sys.argv[1], (sys.argv[2] if len(sys.argv) > 2 else None)
    try:
        answer = describe(name, tag)
    except InputError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
