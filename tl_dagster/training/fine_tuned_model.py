"""Training of a fine-tuned model from a top model, and its artifact."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tl_dagster.data.labels import class_indices
from tl_dagster.features.cache import FeatureColumn
from tl_dagster.features.engine import LocalEngine
from tl_dagster.features.feature_table import FeatureTable
from tl_dagster.models.bundle import describe_model, read_state, save_model
from tl_dagster.models.calibration import Score
from tl_dagster.models.predictions import copy_predictions, write_predictions
from tl_dagster.models.spec import ModelSpec, TrainingRecord, read_spec
from tl_dagster.runtime.devices import open_device
from tl_dagster.store.artifacts import ArtifactSummary
from tl_dagster.training.checkpoints import Checkpoint, select_group
from tl_dagster.training.feature_batches import build_targets
from tl_dagster.training.fine_tuning import BatchSource, FineTuningData, fine_tune, frozen_digest, predict
from tl_dagster.training.fine_tuning_setup import FineTuningSetup
from tl_dagster.training.loop import TrainingResult
from tl_dagster.training.settings import ResolvedFineTuning
from tl_dagster.training.top_model import balanced_class_weights

__all__ = ["FineTuningJob", "tune_model"]


@dataclass(frozen=True)
class FineTuningJob:
    """Everything that one fine-tuning needs.

    Attributes:
        engine: of the backbone's features.
        table: views and features.
        taps: declared names of those that the top model reads.
        settings: resolved; depth "none": the top model is selected.
        boundary: the tap up to which is frozen; None: nothing is.
        top_model: folder of the top model.
        balanced: whether classes are weighted equally.
        stage: that trains.
        version: of the stage.
        inputs: asset → data version.
    """

    engine: LocalEngine
    table: FeatureTable
    taps: Sequence[str]
    settings: ResolvedFineTuning
    boundary: str | None
    top_model: Path
    balanced: bool
    stage: str
    version: int
    inputs: Mapping[str, str]


def tune_model(job: FineTuningJob, folder: Path, checkpoint: Checkpoint) -> ArtifactSummary:
    """Train, and write the artifact; where the top model is better on validation, that is the artifact.

    Raises:
        InputError: the loss is not a number, an image is gone, or memory does not suffice.
    """
    top = read_spec(job.top_model)
    head = select_group(read_state(job.top_model, top), "head", ".")
    if job.settings.depth == "none":
        return _select_top_model(job, folder, top, head)
    views, classes = job.table.views, top.classes
    with FineTuningSetup(job.engine, views, job.taps, job.settings, job.boundary) as setup:
        network = setup.network(head).to(open_device())
        data = _data(job, setup.batches(checkpoint), classes)
        precision = job.engine.features.backbone.precision
        depths = setup.stage_depths(network)
        metrics = copy_predictions(job.top_model, folder)  # the top model's own, which stay where it is the best
        start = Score(metrics["validation_log_loss"], metrics["validation_accuracy"])
        result = fine_tune(network, data, job.settings, depths, precision, start, job.engine.progress, checkpoint)
        tuned = result.epoch > 0
        if tuned:
            held_out = np.flatnonzero(views["split"] != "train")
            logits = predict(network, data.inputs, held_out, precision).numpy()
            metrics = write_predictions(folder, views.iloc[held_out], classes, logits)
    metrics |= {"temperature": result.score.temperature, "training_seconds": round(result.seconds, 3)}
    record = TrainingRecord(
        epoch=result.epoch,
        history=result.history,
        frozen_sha256=frozen_digest(network),
        activations=setup.column.name if setup.column else None,
    )
    state = network.state_dict() if tuned else {f"head.{name}": value for name, value in head.items()}
    spec = _describe(job, top, record, _columns(job, setup), result.score.temperature if tuned else None)
    save_model(folder, spec, state)
    return _summarize(job, setup, data, result, metrics)


def _select_top_model(
    job: FineTuningJob, folder: Path, top: ModelSpec, head: Mapping[str, torch.Tensor]
) -> ArtifactSummary:
    """Write the top model itself: nothing is trained."""
    metrics = copy_predictions(job.top_model, folder)
    record = TrainingRecord(epoch=0, history=[{"epoch": 0.0, **metrics}])
    columns = [column for tap, column in job.table.columns.items() if tap in job.taps]
    spec = _describe(job, top, record, columns)
    save_model(folder, spec, {f"head.{name}": value for name, value in head.items()})
    return ArtifactSummary(
        rows=sum(job.table.views["split"] == "train"),
        computed=0,
        metrics={**metrics, "epoch": 0, "training_seconds": 0.0},
        metadata={"depth": "none"},
    )


def _columns(job: FineTuningJob, setup: FineTuningSetup) -> list[FeatureColumn]:
    """Return the columns that the model reads: of the frozen taps and the boundary, or of all taps."""
    features, split = job.engine.features, setup.split
    if split.reads_images or split.boundary is None:
        return [column for tap, column in job.table.columns.items() if tap in job.taps]
    return [features.column(*output) for output in [*split.frozen_taps, (split.boundary, "none")]]


def _describe(
    job: FineTuningJob,
    top: ModelSpec,
    record: TrainingRecord,
    columns: Sequence[FeatureColumn],
    temperature: float | None = None,
) -> ModelSpec:
    """Return the description of the fine-tuned model, or without a temperature of its own that of the top model."""
    assert top.head is not None  # noqa: S101  (for the type checker)
    return describe_model(
        job.engine,
        columns,
        job.taps,
        stage=job.stage,
        version=job.version,
        classes=top.classes,
        head=top.head.model_copy(update={"temperature": temperature}) if temperature else top.head,
        inputs=job.inputs,
        training=record,
        tag=top.backbone.tag if top.backbone else None,
        depth=job.settings.depth,
        frozen_through=job.boundary,
        tuned=temperature is not None,
    )


def _data(job: FineTuningJob, batches: BatchSource, classes: list[str]) -> FineTuningData:
    views = job.table.views
    train, validation = job.table.rows("train"), job.table.rows("validation")
    labels = class_indices(views["label"], classes)
    return FineTuningData(
        batches,
        train.reshape(-1, job.engine.augmentation.views),
        validation,
        np.unique(views["id"].to_numpy()[validation], return_inverse=True)[1],
        labels,
        build_targets(views, classes),
        balanced_class_weights(labels[train], len(classes)) if job.balanced else None,
    )


def _summarize(
    job: FineTuningJob,
    setup: FineTuningSetup,
    data: FineTuningData,
    result: TrainingResult,
    metrics: Mapping[str, float],
) -> ArtifactSummary:
    return ArtifactSummary(
        rows=data.train.size,
        computed=data.train.size,
        metrics={**metrics, "epoch": result.epoch, "epochs": len(result.history) - 1},
        metadata={
            "depth": job.settings.depth,
            "frozen_through": job.boundary or "nothing",
            "frozen_part": setup.source,
        },
        feature_columns=[setup.column.name] if setup.column else [],
    )
