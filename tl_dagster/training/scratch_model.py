"""Training of one network from random weights, and its artifact."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from tl_dagster.data.augmentation import Augmenter
from tl_dagster.data.decoding import DECODER_VERSION
from tl_dagster.data.labels import class_indices, class_names
from tl_dagster.data.settings import Augmentation
from tl_dagster.data.views import views_to_draw
from tl_dagster.features.loading import Loader
from tl_dagster.features.settings import Compute
from tl_dagster.models.bundle import UNWRITTEN, save_model
from tl_dagster.models.predictions import write_predictions
from tl_dagster.models.scratch_networks import NormalizedNetwork, UntrainedBackbone, build_convnet
from tl_dagster.models.spec import BackboneSpec, Geometry, ModelSpec, NetworkSpec, TrainingRecord
from tl_dagster.runtime.devices import open_device, resolve_precision, uses_gpu
from tl_dagster.runtime.progress import Progress
from tl_dagster.store.artifacts import ArtifactSummary
from tl_dagster.training.batches import DrawnViews
from tl_dagster.training.checkpoints import Checkpoint
from tl_dagster.training.feature_batches import build_targets
from tl_dagster.training.scratch import Examples, predict, train
from tl_dagster.training.scratch_architectures import ScratchArchitecture
from tl_dagster.training.settings import ScratchBaseline

__all__ = ["ScratchJob", "draw_in_turn", "train_scratch_model"]


@dataclass(frozen=True)
class ScratchJob:
    """Everything that one training from random weights needs.

    Attributes:
        architecture: of the network.
        views: rows of augmented_splits.
        manifest: the dataset's images.
        settings: the declared baseline.
        augmentation: draws the views.
        compute: how the work is done.
        precision: as declared.
        version: of the stage.
        inputs: asset → data version.
    """

    architecture: ScratchArchitecture
    views: pd.DataFrame
    manifest: pd.DataFrame
    settings: ScratchBaseline
    augmentation: Augmentation
    compute: Compute
    precision: Literal["auto", "fp32", "bf16"]
    version: int
    inputs: Mapping[str, str]


def train_scratch_model(job: ScratchJob, folder: Path, checkpoint: Checkpoint, progress: Progress) -> ArtifactSummary:
    """Train one network, and write its weights, description and predictions.

    Raises:
        InputError: the loss is not a number, an image is gone, or memory does not suffice.
    """
    table = job.views[(job.views["split"] != "train") | (job.views["view"] == 0)].reset_index(drop=True)
    views, classes = views_to_draw(table, job.manifest), class_names(table)
    settings, architecture, precision = job.settings, job.architecture, resolve_precision(job.precision)
    torch.manual_seed(settings.seed)
    network = _build(architecture, len(classes)).to(open_device())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    progress.log(f"{architecture.name}: {parameters:,} parameters, {architecture.resize.size} pixels, {precision}")
    with _loader(job, len(views) * settings.epochs) as loader:
        drawn = DrawnViews(views, loader, partial(draw_in_turn, job.augmentation))
        examples = _examples(table, classes)
        result = train(network, drawn, examples, settings, precision, checkpoint, progress)
        held_out = np.flatnonzero(table["split"] != "train")
        logits = predict(network, drawn, held_out, precision, settings.batch_size).numpy()
    metrics = write_predictions(folder, table.iloc[held_out], classes, logits)
    record = TrainingRecord(epoch=result.epoch, history=result.history)
    save_model(folder, _describe(job, classes, record), network.state_dict())
    return ArtifactSummary(
        rows=len(examples.train),
        computed=len(examples.train),
        metrics={"validation_accuracy": metrics["validation_accuracy"], "seconds": round(result.seconds, 1)},
        metadata={
            "seconds": round(result.seconds, 3),
            "parameters": parameters,
            "epoch": result.epoch,
            "history": result.history,
        },
    )


def draw_in_turn(augmentation: Augmentation, _: int, epoch: int) -> int:
    """Return the view of every image that an epoch draws: the next one, over and over where their number is finite."""
    return epoch - 1 if augmentation.steps else (epoch - 1) % augmentation.views


def _build(architecture: ScratchArchitecture, classes: int) -> NormalizedNetwork:
    size = architecture.resize.size
    if architecture.info is None:
        model: torch.nn.Module = build_convnet(size, classes)
    else:
        model = UntrainedBackbone(architecture.info, size, classes)
    return NormalizedNetwork(model, architecture.mean, architecture.std)


def _loader(job: ScratchJob, work: int) -> Loader:
    return Loader(
        job.architecture.resize,
        Augmenter(job.augmentation),
        batch_size=job.settings.batch_size,
        workers=job.compute.workers,
        work=work,
        yielding=not uses_gpu(),
    )


def _describe(job: ScratchJob, classes: list[str], record: TrainingRecord) -> ModelSpec:
    architecture, info = job.architecture, job.architecture.info
    red, green, blue = architecture.mean
    mean = (red, green, blue)
    red, green, blue = architecture.std
    unused = [NetworkSpec(outputs=[("", "avg")])]
    return ModelSpec(
        stage="scratch_baseline",
        version=job.version,
        architecture="convnet" if info is None else "scratch",
        classes=classes,
        decoder=DECODER_VERSION,
        resize=Geometry(**asdict(architecture.resize)),
        mean=mean,
        std=(red, green, blue),
        precision=resolve_precision(job.precision),
        batch_size=job.settings.batch_size,
        backbone=None if info is None else BackboneSpec(name=info.name, weights="random:0", networks=unused),
        taps=[],
        depth="all",
        frozen_through=None,
        tuned=True,
        head=None,
        augmentation=job.augmentation,
        inputs=dict(job.inputs),
        weights_sha256=UNWRITTEN,
        training=record,
    )


def _examples(table: pd.DataFrame, classes: list[str]) -> Examples:
    rows = np.flatnonzero(table["split"] == "train")
    held_out = np.flatnonzero(table["split"] == "validation")
    return Examples(
        train=rows,
        targets=build_targets(table.iloc[rows], classes),
        validation=held_out,
        labels=class_indices(table["label"].iloc[held_out], classes),
        images=np.unique(table["id"].to_numpy()[held_out], return_inverse=True)[1],
    )
