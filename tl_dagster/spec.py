"""What a pipeline may declare: pydantic models with documentation, bounds and defaults.

Every setting that changes a result is part of the fingerprint of the stage that uses it; those under
:class:`Compute`, which only say how the work is done, are part of none.
"""

from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tl_dagster.errors import nearest

__all__ = [
    "Augmentation",
    "Backbone",
    "Bins",
    "Compute",
    "Declaration",
    "FineTuning",
    "FolderSource",
    "ManifestSource",
    "Schedule",
    "Source",
    "Splits",
    "TopModel",
]

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Settings(BaseModel):
    """Base of every declared section: immutable, and unknown fields are refused with the nearest match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for field in values:
                if field not in cls.model_fields:
                    raise ValueError(f"unknown field '{field}': {nearest(str(field), cls.model_fields)}")
        return values


class Bins(Settings):
    """A numeric column cut into named classes; a value equal to an edge belongs to the class above it."""

    edges: list[float] = Field(min_length=1, description="Rising cut points between the classes.")
    names: list[str] = Field(min_length=2, description="One class name more than there are edges.")
    soft_targets: bool = Field(
        False,
        description="The column is the probability of the second of two classes: train on it, not on the class alone.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Bins":
        if len(self.names) != len(self.edges) + 1:
            raise ValueError(f"{len(self.edges)} edges make {len(self.edges) + 1} classes, not {len(self.names)} names")
        if sorted(set(self.edges)) != self.edges:
            raise ValueError(f"edges must rise, got {self.edges}")
        if self.soft_targets and len(self.names) != 2:
            raise ValueError(f"soft_targets needs exactly two classes, got {len(self.names)}")
        return self


class FolderSource(Settings):
    """A folder with one sub-folder of images per class, or with train, val and test folders of such."""

    kind: Literal["folder"]
    path: str = Field(description="The folder; relative to the project's root.")


class ManifestSource(Settings):
    """A table (CSV, TSV or Parquet) with a column of image paths and a column of labels."""

    kind: Literal["manifest"]
    path: str = Field(description="The table; relative to the project's root, or to `package` when that is given.")
    package: str | None = Field(None, description="An installed Python package that holds the table and images.")
    separator: str = Field(",", min_length=1, description="Column separator of a text table, or 'whitespace'.")
    columns: list[str] | None = Field(None, description="Column names of a text table that has no header line.")
    uri: str = Field("uri", description="Column of image paths, relative to the table's own folder (or `root`).")
    label: str = Field("label", description="Column of class names (or of numbers, with `bins`).")
    bins: Bins | None = Field(None, description="Cut a numeric label column into named classes.")
    group: str | None = Field(None, description="Column of group names; a group is never cut by a split.")
    split: str | None = Field(None, description="Column of given splits: train, validation or test.")
    root: str | None = Field(None, description="Folder that image paths are relative to, when not the table's own.")

    @model_validator(mode="after")
    def _columns_exist(self) -> "ManifestSource":
        for field in ("uri", "label", "group", "split"):
            column = getattr(self, field)
            if self.columns is not None and column is not None and column not in self.columns:
                raise ValueError(f"{field}: no column '{column}': {nearest(column, self.columns)}")
        return self


Source = Annotated[FolderSource | ManifestSource, Field(discriminator="kind")]


class Splits(Settings):
    """How images are divided. An image's split depends on its group and the seed alone, so old images never move."""

    test: Fraction = Field(0.15, description="Share of the images held out for the final evaluation.")
    validation: Fraction = Field(0.15, description="Share held out for choosing settings and epochs.")
    seed: int = Field(0, ge=0, lt=2**32, description="Another seed gives another division.")

    @model_validator(mode="after")
    def _leaves_training(self) -> "Splits":
        if self.test + self.validation >= 1:
            raise ValueError(
                f"test + validation = {self.test + self.validation:g} leaves nothing to train on; keep it under 1"
            )
        return self


class Augmentation(Settings):
    """The views of each image. View 0 is always the image without augmentation."""

    preset: Literal["lecture", "dihedral", "none"] = Field(
        "lecture",
        description="lecture: random flips, crops, translations and rotations. "
        "dihedral: the eight flips and quarter turns of the square, in a fixed order. none: plain images.",
    )
    transforms: list[dict[str, dict[str, Any]]] | None = Field(
        None, description="albumentations transforms by name, in order, instead of a preset."
    )
    views: int = Field(4, ge=1, le=256, description="Views of each training image, the plain one included.")
    test_views: int = Field(1, ge=1, le=256, description="Views averaged for validation and test images.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the random augmentations.")

    @model_validator(mode="after")
    def _enough_views(self) -> "Augmentation":
        most = {"dihedral": 8, "none": 1}.get(self.preset) if self.transforms is None else None
        if most is not None and "views" not in self.model_fields_set and self.views > most:
            object.__setattr__(self, "views", most)
        for field in ("views", "test_views"):
            if most is not None and getattr(self, field) > most:
                raise ValueError(
                    f"{field}: preset '{self.preset}' has {most} distinct views, not {getattr(self, field)}"
                )
        for step in self.transforms or []:
            if len(step) != 1:
                raise ValueError(f"transforms: each step is one name with its arguments, got {sorted(step)}")
        return self


class Backbone(Settings):
    """The frozen network, its weights, and where its features are taken."""

    name: str = Field("timm/tf_efficientnet_lite0", description="'timm/NAME' or 'torchvision/NAME'.")
    weights: str | None = Field(
        None,
        description="Nothing: the backbone's own pre-trained weights. Else 'random:SEED', 'package:PACKAGE/FILE', "
        "a path, an https:// URL (with `sha256`), or the library's tag ('IMAGENET1K_V2', 'in1k').",
    )
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{8,64}$", description="Required (prefix of the) weights' SHA-256."
    )
    image_size: int | None = Field(
        None, ge=32, le=1024, description="Pixels of the square input; the weights' own if not given."
    )
    resize: Literal["crop", "squash"] = Field(
        "crop",
        description="crop: shorter side to size, then the centre, as in pre-training. "
        "squash: the whole image to the square.",
    )
    taps: list[str] = Field(
        ["penultimate"],
        min_length=1,
        description="Where features are taken: stage1 (lower) … penultimate, or a module's name.",
    )
    pooling: Literal["avg", "max", "avg+max"] = Field(
        "avg", description="Pooling over positions of a tap that is a map."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the processor has it.")

    @field_validator("name")
    @classmethod
    def _library_named(cls, name: str) -> str:
        library, _, model = name.partition("/")
        if library not in ("timm", "torchvision") or not model:
            raise ValueError(f"'{name}': write timm/NAME or torchvision/NAME")
        return name


class TopModel(Settings):
    """Multinomial logistic regression on the cached, standardised features of all training views."""

    l2: list[Annotated[float, Field(gt=0)]] = Field(
        [0.3, 0.1, 0.03, 0.01, 0.003, 0.001],
        min_length=1,
        description="Strengths of L2 tried; validation chooses.",
    )
    max_iterations: int = Field(100, ge=1, le=10_000, description="L-BFGS iterations for each strength.")
    balanced: bool = Field(False, description="Weigh the classes equally, whatever their sizes.")


class FineTuning(Settings):
    """Training on from the top model: the backbone's upper blocks and the classifier, very gently."""

    freeze_through: str = Field(
        "auto", description="The last stage that stays frozen, as a tap name; auto: all but the last stage."
    )
    epochs: int = Field(10, ge=1, le=1000, description="Passes over the training images.")
    views_per_epoch: int = Field(1, ge=1, le=256, description="Views of each training image seen in one epoch.")
    learning_rate: float = Field(1e-4, gt=0, le=0.1, description="Peak learning rate of the unfrozen blocks.")
    head_learning_rate: float = Field(1e-5, gt=0, le=0.1, description="Peak learning rate of the classifier.")
    averaging: float = Field(0.97, ge=0, lt=1, description="Decay of the moving average of weights that is handed on.")
    weight_decay: float = Field(0.05, ge=0, le=10, description="AdamW's decoupled weight decay.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over all classes.")
    batch_size: int = Field(64, ge=1, le=65_536, description="Views in one optimiser step.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the order of training.")


class Compute(Settings):
    """How the work is done. Results are equal up to the rounding of the precision."""

    workers: int = Field(0, ge=0, le=256, description="Decoding threads; 0: one for each processor.")
    batch_size: int = Field(32, ge=1, le=4096, description="Views in one forward pass.")
    activation_cache_gb: float = Field(
        4.0,
        ge=0,
        description="Disk for the activations of one pipeline that fine-tuning starts from; beyond it, "
        "images are forwarded anew in each step: slower, and another model.",
    )
    compile: Literal["auto", "never"] = Field(
        "auto", description="auto: torch.compile where a C++ compiler is at hand and the work is large enough."
    )


class Schedule(Settings):
    """Scheduled retraining: on each tick the whole pipeline is refreshed, and unchanged stages reuse."""

    cron: str = Field(description="Five cron fields, such as '0 3 * * 1' (Mondays at three).")
    timezone: str = Field("UTC", description="IANA name, such as 'Europe/Berlin'.")

    @field_validator("cron")
    @classmethod
    def _valid_cron(cls, cron: str) -> str:
        import dagster as dg  # what will run the schedule decides what it accepts

        try:
            dg.ScheduleDefinition(name="check", job_name="check", cron_schedule=cron)
        except dg.DagsterError as error:
            raise ValueError(f"'{cron}' is not a cron expression of five fields, such as '0 3 * * 1'") from error
        return cron

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, timezone: str) -> str:
        if timezone not in available_timezones():
            raise ValueError(f"no time zone '{timezone}': {nearest(timezone, sorted(available_timezones()))}")
        return timezone


class Declaration(Settings):
    """One pipeline: a folder of labelled images turned into an evaluated, fine-tuned classifier."""

    name: str = Field(pattern="^[a-z][a-z0-9_]{0,62}$", description="Lower-case name; prefix of every asset key.")
    source: Source = Field(description="Where the labelled images are.")
    description: str = Field("", description="One line for the UI.")
    splits: Splits = Splits()
    augmentation: Augmentation = Augmentation()
    backbone: Backbone = Backbone()
    top_model: TopModel = TopModel()
    fine_tuning: FineTuning = FineTuning()
    compute: Compute = Compute()
    schedule: Schedule | None = Field(None, description="Scheduled retraining.")
    on_change: bool = Field(False, description="Refresh the chain when data, settings or code changed.")
