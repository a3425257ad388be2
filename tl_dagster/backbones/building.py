"""Backbones in torch: created, loaded and frozen, the last fully connected layer dropped."""

import contextlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from tl_dagster.backbones.checkpoint_loading import load_weights
from tl_dagster.backbones.description import BackboneInfo
from tl_dagster.backbones.weights import Weights
from tl_dagster.runtime.errors import InputError, suggest
from tl_dagster.runtime.libraries import import_timm, import_torchvision

__all__ = ["check_torchvision", "create_network", "create_on_meta", "drop_classifiers", "load_backbone"]

timm, torchvision = import_timm(), import_torchvision()


def create_network(name: str, size: int) -> torch.nn.Module:
    """Create an architecture with its 1,000-class head, freshly initialised on the current default device.

    Args:
        name: "timm/NAME" or "torchvision/NAME".
        size: pixels of the square images that its weights were trained on.

    Raises:
        InputError: no such model.
    """
    library, _, model = name.partition("/")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if library == "timm":
            if model.partition(".")[0] not in timm.list_models():
                raise InputError(f"backbone.name: timm has no '{model}': {suggest(model, timm.list_models())}")
            network: torch.nn.Module = timm.create_model(model, pretrained=False)
            return network
        models = torchvision.models
        check_torchvision(model)
        builder = models.get_model_builder(model)
        # GoogLeNet and Inception otherwise draw initial weights through scipy for a minute; their pre-trained weights
        # expect the input transform that torchvision switches on only when it loads them itself.
        options: dict[str, Any] = (
            {"init_weights": False, "transform_input": True} if model in ("googlenet", "inception_v3") else {}
        )
        if model.startswith("vit_"):  # some weights of an architecture have positions for larger images than others
            options = {"image_size": size}
        network = builder(weights=None, **options)
        return network


def create_on_meta(name: str, size: int) -> torch.nn.Module:
    """Create an architecture without values, on the meta device, in evaluation mode; see :func:`create_network`."""
    with torch.device("meta"), contextlib.suppress(NotImplementedError):
        return create_network(name, size).to("meta").eval()
    return create_network(name, size).to("meta").eval()  # a few architectures compute their widths with tensors


def check_torchvision(name: str) -> None:
    """Check that torchvision has a model.

    Raises:
        InputError: it has no such model.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise InputError(f"backbone.name: torchvision has no '{name}': {suggest(name, names)}")


def drop_classifiers(model: torch.nn.Module, classifiers: Sequence[str]) -> None:
    """Replace the last fully connected layers by identity, in place.

    Args:
        model: the network.
        classifiers: their paths, the one before which features are taken first; the output of the others is not used.
    """
    layers = [model.get_submodule(path) for path in classifiers]
    widths = [getattr(layer, "in_features", None) for layer in layers]
    for path, width in zip(classifiers, widths, strict=True):
        parent, _, name = path.rpartition(".")
        # The network goes on to average its classifiers' outputs, which must be of one width for that.
        substitute = torch.nn.Identity() if width == widths[0] else torch.nn.AdaptiveAvgPool1d(widths[0] or 1)
        setattr(model.get_submodule(parent), name, substitute)


def load_backbone(info: BackboneInfo, weights: Weights, taps: Sequence[str] = ()) -> torch.nn.Module:
    """Return the backbone in evaluation mode, frozen, its last fully connected layer replaced by identity.

    Args:
        info: the backbone's description.
        weights: the file, or the seed, of its weights.
        taps: the layers that are read, as declared or as module paths: the file may lack what runs after all of them
            (a trunk without its head). Empty: it must be complete.

    Returns:
        A module: float32 images (N, 3, size, size) → penultimate features (N, D).

    Raises:
        InputError: the file's keys do not fit the architecture.
    """
    if weights.path is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(weights.identity.partition(":")[2]))
            model = create_network(info.name, info.preprocess["size"])
    else:
        model = create_network(info.name, info.preprocess["size"])
        load_weights(model, info, weights, taps)
    drop_classifiers(model, info.classifiers)
    return model.eval().requires_grad_(False)
