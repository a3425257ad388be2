"""Saving and checking the folder of a model: its description, its weights, and where its backbone's file is."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tl_dagster.backbones.weights import Weights, find_weights, get_remembered_weights
from tl_dagster.data.decoding import DECODER_VERSION
from tl_dagster.features.backbone_features import BackboneFeatures
from tl_dagster.features.cache import FeatureColumn
from tl_dagster.features.engine import LocalEngine
from tl_dagster.models.spec import (
    MODEL,
    WEIGHTS,
    BackboneSpec,
    Geometry,
    HeadSpec,
    ModelSpec,
    NetworkSpec,
    TapSpec,
    TrainingRecord,
    write_spec,
)
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.digests import digest_file
from tl_dagster.store.files import writing
from tl_dagster.store.layout import StoreLayout

__all__ = [
    "UNWRITTEN",
    "copy_bundle",
    "describe_backbone_of",
    "describe_model",
    "locate_backbone",
    "read_state",
    "save_model",
]

UNWRITTEN = "0" * 64  # the digest of the weights is known when they are written
BACKBONE = "backbone"  # name of the backbone's own file in a bundle; its suffix is the original's


def save_model(folder: Path, spec: ModelSpec, state: Mapping[str, torch.Tensor]) -> None:
    """Write a model's weights and description.

    Args:
        folder: the model's.
        spec: its ``weights_sha256`` is replaced by that of the written file.
        state: tensors by name, of any device.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(tensors, folder / WEIGHTS)
    write_spec(folder, spec.model_copy(update={"weights_sha256": digest_file(folder / WEIGHTS)}))


def describe_backbone_of(features: BackboneFeatures, tag: str | None, columns: Sequence[FeatureColumn]) -> BackboneSpec:
    """Return the description of a backbone, and of the networks that computed some columns of the feature cache.

    Args:
        features: the backbone.
        tag: the library's name of its weights, where one is declared.
        columns: those that a model was trained on.
    """
    outputs = [column.output for column in columns]
    networks: list[NetworkSpec] = []
    for column, output in zip(columns, outputs, strict=True):
        notes = column.read_notes()
        network = NetworkSpec(
            outputs=[tuple(each) for each in notes.get("outputs", outputs)], compiled=notes.get("compiled", False)
        )
        if output not in [each for known in networks for each in known.outputs]:
            networks.append(network if output in network.outputs else NetworkSpec(outputs=[output]))
    weights = features.backbone.weights
    return BackboneSpec(
        name=features.backbone.name, weights=weights.identity, in_order=weights.in_order, tag=tag, networks=networks
    )


def describe_model(
    engine: LocalEngine,
    columns: Sequence[FeatureColumn],
    taps: Sequence[str],
    *,
    stage: str,
    version: int,
    classes: Sequence[str],
    head: HeadSpec,
    inputs: Mapping[str, str],
    training: TrainingRecord,
    tag: str | None,
    depth: str = "none",
    frozen_through: str | None = None,
    tuned: bool = False,
) -> ModelSpec:
    """Return the description of a model on a backbone's features.

    Args:
        engine: that computed the features.
        columns: the feature cache's columns that the model was trained on.
        taps: declared names of those that the head reads, in the order of the backbone's.
        stage: that trained the model.
        version: of the stage.
        classes: names, in the order of the outputs.
        head: the classifier.
        inputs: asset → data version.
        training: how the model came about.
        tag: the library's name of the backbone's weights, where one is declared.
        depth: see :class:`.ModelSpec`.
        frozen_through: see :class:`.ModelSpec`.
        tuned: see :class:`.ModelSpec`.
    """
    features, backbone = engine.features, engine.features.backbone
    read = [tap for tap in features.taps if tap in taps]
    return ModelSpec(
        stage=stage,
        version=version,
        classes=list(classes),
        decoder=DECODER_VERSION,
        resize=Geometry(**asdict(backbone.resize)),
        mean=_triple(backbone.mean),
        std=_triple(backbone.std),
        precision=backbone.precision,
        batch_size=engine.batch_size,
        backbone=describe_backbone_of(features, tag, columns),
        taps=[TapSpec(name=tap, module=backbone.info.module(tap), pooling=features.pooling) for tap in read],
        depth=depth,
        frozen_through=frozen_through,
        tuned=tuned,
        head=head,
        augmentation=engine.augmentation,
        inputs=dict(inputs),
        weights_sha256=UNWRITTEN,
        training=training,
    )


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def locate_backbone(folder: Path, backbone: BackboneSpec, layout: StoreLayout) -> Weights:
    """Return the weights of a model's backbone: from its own folder, the place in the store, or the libraries' caches.

    Raises:
        InputError: the file is nowhere, or the one in the folder has another digest.
    """
    if backbone.weights.startswith("random:"):
        return Weights(None, backbone.weights)
    for carried in sorted(folder.glob(f"{BACKBONE}.*")):
        if digest_file(carried) != backbone.weights:
            raise InputError(
                f"{carried} has another SHA-256 than {folder / MODEL} names ({backbone.weights[:16]}…): it is another "
                "or a damaged file; copy the model again"
            )
        return Weights(carried, backbone.weights, backbone.in_order)
    path = find_weights(backbone.weights, get_remembered_weights(layout, backbone.weights))
    if path is None:
        raise InputError(
            f"{folder / MODEL}: backbone.weights: no file with SHA-256 {backbone.weights[:16]}… ({backbone.name}) is "
            f"on this machine; put it into {folder} as {BACKBONE}.pth or {BACKBONE}.safetensors, or save the model "
            "with its backbone"
        )
    return Weights(path, backbone.weights, backbone.in_order)


def read_state(folder: Path, spec: ModelSpec) -> dict[str, torch.Tensor]:
    """Return a model's own tensors by name, on the CPU.

    Raises:
        InputError: the file is missing, is not a safetensors file, or is not the one that the description names.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(f"{folder} is not a whole model: it has no {WEIGHTS}; copy the model again")
    if digest_file(path) != spec.weights_sha256:
        raise InputError(
            f"{path} has another SHA-256 than {folder / MODEL} names ({spec.weights_sha256[:16]}…): it was cut short "
            "or changed; copy the model again"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a safetensors file ({error}); nothing else is loaded") from error


def copy_bundle(source: Path, folder: Path, backbone: Weights | None) -> None:
    """Copy a model into a folder.

    Args:
        source: the model's folder.
        folder: created where it does not exist.
        backbone: weights to carry along; None: the model names them by their digest only.

    Raises:
        DiskError: the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, MODEL):
            shutil.copyfile(source / name, folder / name)
        if backbone is not None and backbone.path is not None:
            shutil.copyfile(backbone.path, folder / f"{BACKBONE}{backbone.path.suffix}")
