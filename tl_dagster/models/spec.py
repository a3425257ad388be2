"""The description of a trained model: everything that is needed to load it and predict, in ``model.json``.

Nothing about a model is looked up in the pipeline's present declaration. This module imports neither torch nor numpy.
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tl_dagster.data.settings import Augmentation
from tl_dagster.runtime.errors import InputError

__all__ = [
    "MODEL",
    "WEIGHTS",
    "BackboneSpec",
    "Geometry",
    "HeadSpec",
    "ModelSpec",
    "NetworkSpec",
    "TapSpec",
    "TrainingRecord",
    "read_spec",
    "write_spec",
]

MODEL, WEIGHTS = "model.json", "model.safetensors"
FORMAT: Literal[1] = 1


class Part(BaseModel):
    """A part of the description; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Geometry(Part):
    """The geometry from decoded image to the network's square input; see :class:`tl_dagster.data.decoding.Resize`."""

    size: int = Field(ge=1)
    mode: Literal["crop", "squash"]
    crop_fraction: float = Field(gt=0)
    interpolation: str


class NetworkSpec(Part):
    """A network that computes features.

    Attributes:
        outputs: (module path, pooling) of each.
        compiled: whether it was compiled: the same library then gives the same bits.
    """

    outputs: list[tuple[str, str]] = Field(min_length=1)
    compiled: bool = False


class BackboneSpec(Part):
    """The frozen network below the classifier.

    Attributes:
        name: "timm/NAME" or "torchvision/NAME".
        weights: SHA-256 of the file of its pre-trained weights, or "random:SEED".
        in_order: the file's keys fit the architecture's one by one in order; see :class:`.weights.Weights`.
        tag: the library's name of the weights, where one was declared.
        networks: the networks that computed the features that the model was trained on.
    """

    name: str
    weights: str = Field(pattern=r"^([0-9a-f]{64}|random:\d+)$")
    in_order: bool = False
    tag: str | None = None
    networks: list[NetworkSpec] = Field(min_length=1)


class TapSpec(Part):
    """A layer that the head reads.

    Attributes:
        name: as declared.
        module: path of the module or node.
        pooling: of its map.
    """

    name: str
    module: str
    pooling: str


class HeadSpec(Part):
    """The classifier on the features; the temperature of the model's own calibration is folded into its weights."""

    kind: Literal["linear", "mlp"]
    temperature: float = Field(gt=0)


class TrainingRecord(Part):
    """How a model was trained, for reports; prediction does not depend on it.

    Attributes:
        epoch: the epoch that was selected; 0 is the top model; None for a model that has no epochs.
        history: per epoch: epoch, training_loss, validation_log_loss and validation_accuracy with a temperature.
        l2: the strength of L2 that was selected.
        path: (l2, validation log-loss, validation accuracy) of each strength tried.
        metrics: further numbers, such as the validation log-loss before and after calibration.
        frozen_sha256: digest of all that training must not change.
        activations: the feature cache's column that fine-tuning read.
    """

    epoch: int | None = None
    history: list[dict[str, float]] = []
    l2: float | None = None
    path: list[tuple[float, float, float]] = []
    metrics: dict[str, float] = {}
    frozen_sha256: str | None = None
    activations: str | None = None


class ModelSpec(Part):
    """A trained image classifier.

    Attributes:
        format: of this description.
        stage: the stage that trained it.
        version: that stage's version.
        architecture: "backbone": a pre-trained backbone and a head; "convnet" and "scratch": from random weights.
        classes: names, in the order of the outputs.
        decoder: version of the decoder.
        resize: geometry from image to network input.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        precision: of forward passes.
        batch_size: views in one forward pass of the frozen network, or of one that was trained from random weights.
        backbone: None for an architecture that has none.
        taps: the layers that the head reads.
        depth: what was unfrozen, as declared: "none" for a top model.
        frozen_through: the declared tap that is the last frozen layer; None: nothing is frozen, or nothing was tuned.
        tuned: whether the upper part differs from the pre-trained backbone: its weights are then in the file.
        head: the classifier; None for an architecture trained from random weights.
        augmentation: draws the views that are averaged for one image (``test_views``).
        inputs: asset → data version that it was trained on.
        weights_sha256: SHA-256 of ``model.safetensors``.
        training: how it came about.
    """

    format: Literal[1] = FORMAT
    stage: str
    version: int
    architecture: Literal["backbone", "convnet", "scratch"] = "backbone"
    classes: list[str] = Field(min_length=2)
    decoder: int
    resize: Geometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    precision: Literal["fp32", "bf16"]
    batch_size: int = Field(ge=1)
    backbone: BackboneSpec | None
    taps: list[TapSpec]
    depth: str
    frozen_through: str | None
    tuned: bool
    head: HeadSpec | None
    augmentation: Augmentation
    inputs: dict[str, str]
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    training: TrainingRecord = TrainingRecord()

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[str]) -> list[str]:
        twice = sorted({name for name in classes if classes.count(name) > 1})
        if twice:
            raise ValueError(f"class '{twice[0]}' is named twice")
        return classes

    @property
    def tap_names(self) -> list[str]:
        """Declared names of the taps."""
        return [tap.name for tap in self.taps]


def write_spec(folder: Path, spec: ModelSpec) -> None:
    """Write the description of a model into its folder."""
    (folder / MODEL).write_text(spec.model_dump_json(indent=1))


def read_spec(folder: Path) -> ModelSpec:
    """Read the description of a model.

    Raises:
        InputError: there is none, it is damaged, or a field of it is missing or wrong; the message names the field.
    """
    path = folder / MODEL
    try:
        stored: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder} is not a model: it has no {MODEL}; give the folder of a trained model") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}; copy the model again") from error
    if isinstance(stored, dict) and stored.get("format", FORMAT) != FORMAT:
        raise InputError(
            f"{path}: format {stored['format']} was written by another version of tl-dagster; this one reads "
            f"format {FORMAT}: upgrade, or train again"
        )
    try:
        return ModelSpec.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{path}: {field}: {first['msg'].removeprefix('Value error, ')}; copy the model again"
        ) from None
