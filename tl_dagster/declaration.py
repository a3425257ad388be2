"""What a pipeline may declare: pydantic models with documentation, bounds and defaults.

Every setting that changes a result is part of the fingerprint of the stage that uses it; those under
:class:`Compute`, which only say how the work is done, are part of none.
"""

from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import Field, field_validator, model_validator

from tl_dagster.data.sources import Source
from tl_dagster.runtime.errors import suggest
from tl_dagster.runtime.settings import Settings
from tl_dagster.training.settings import (
    FineTuning,
    LinearTopModel,
    MlpTopModel,
    ScratchBaseline,
    TopModel,
    TransferStrategy,
)

__all__ = [
    "Augmentation",
    "Backbone",
    "Checks",
    "Compute",
    "Declaration",
    "Duplicates",
    "FineTuning",
    "LinearTopModel",
    "MlpTopModel",
    "Schedule",
    "ScratchBaseline",
    "Splits",
    "TopModel",
    "TransferStrategy",
]

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Duplicates(Settings):
    """Which images count as near copies of each other: they share a group, and a group is never cut by a split."""

    distance: int = Field(
        8,
        ge=0,
        le=16,
        description="Bits (of 256) in which the perceptual hashes of near copies differ at most; 0: none.",
    )


class Splits(Settings):
    """How images are divided. An image's split depends on its group and the seed alone, so old images never move."""

    test: Fraction = Field(0.15, description="Share of the images held out for the final evaluation.")
    validation: Fraction = Field(0.15, description="Share held out for choosing settings and epochs.")
    seed: int = Field(0, ge=0, lt=2**32, description="Another seed gives another division.")
    folds: int | None = Field(
        None, ge=2, le=100, description="Cross-validation: the test split is one of so many folds, instead of `test`."
    )
    fold: int = Field(0, ge=0, description="Which fold is the test split, from 0; one pipeline for each.")

    @model_validator(mode="after")
    def _leaves_training(self) -> "Splits":
        if self.folds is None and self.fold:
            raise ValueError(f"fold {self.fold} of what? give `folds` too")
        if self.folds is not None:
            if "test" in self.model_fields_set:
                raise ValueError(
                    f"test and folds both say what the test split is: with {self.folds} folds it is one fold"
                )
            if self.fold >= self.folds:
                raise ValueError(f"fold {self.fold}: {self.folds} folds are numbered from 0 to {self.folds - 1}")
            object.__setattr__(self, "test", 1 / self.folds)
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
    test_views: Annotated[int, Field(ge=1, le=256)] | Literal["mirrored"] = Field(
        1,
        description="Views averaged for validation and test images; mirrored: the plain image and its mirror image.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the random augmentations.")

    @model_validator(mode="after")
    def _enough_views(self) -> "Augmentation":
        most = {"dihedral": 8, "none": 1}.get(self.preset) if self.transforms is None else None
        if most is not None and "views" not in self.model_fields_set and self.views > most:
            object.__setattr__(self, "views", most)
        for field in ("views", "test_views"):
            declared = getattr(self, field)
            if most is not None and declared != "mirrored" and declared > most:
                raise ValueError(f"{field}: preset '{self.preset}' has {most} distinct views, not {declared}")
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
        ["lower", "higher"],
        min_length=1,
        description="Where features are taken, and among which the transfer strategy chooses: stage1, stage2, …; lower "
        "(the stage before the last); penultimate "
        "or higher (before the dropped classifier); or the name of any module or node of the traced network.",
    )
    pooling: Literal["avg", "max", "avg+max", "grid2x2", "none"] = Field(
        "avg",
        description="How a tap that is a map becomes one row: avg, max, or avg+max over all positions (avg+max: side "
        "by side); grid2x2: the averages of its four quarters side by side, which keep where things are; "
        "none: the map itself, flattened: very wide.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the processor has it.")

    @field_validator("name")
    @classmethod
    def _library_named(cls, name: str) -> str:
        library, _, model = name.partition("/")
        if library not in ("timm", "torchvision") or not model:
            raise ValueError(f"'{name}': write timm/NAME or torchvision/NAME")
        return name


class Checks(Settings):
    """When the asset checks warn and when they stop a run. They change no result, only what is said of it."""

    set_aside: float = Field(
        0.05, ge=0, le=1, description="Share of the files that may be set aside; above it the run stops."
    )
    per_class: int = Field(20, ge=1, description="Usable images that a class should have; below it a warning.")
    imbalance: float = Field(10.0, ge=1, description="Largest class over smallest; above it a warning.")
    drift: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Change of the class mix or of image statistics since the last version; above it "
        "a warning. Total variation distance, and the Kolmogorov-Smirnov statistic.",
    )
    leakage: Literal["warn", "stop"] = Field(
        "warn", description="What near copies across splits do: a warning, or the end of the run."
    )


class Compute(Settings):
    """How the work is done. Results are equal up to the rounding of the precision."""

    workers: int = Field(0, ge=0, le=256, description="Decoding processes; 0: one for each processor.")
    batch_size: int = Field(
        0,
        ge=0,
        le=4096,
        description="Views in one forward pass; 0: by device and image size. Halved where a GPU's "
        "memory does not hold it.",
    )
    feature_cache_gb: float | None = Field(
        None, gt=0, description="Disk for the whole feature cache of the store; not given: what is free."
    )
    activation_cache_gb: float = Field(
        4.0,
        ge=0,
        description="Disk for the activations of one pipeline that fine-tuning starts from; beyond it, "
        "the frozen part runs in each epoch: slower, the same model.",
    )
    compile: Literal["auto", "never"] = Field(
        "auto",
        description="auto: the network is compiled when that is likely to save time, and a C++ compiler is there.",
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
            raise ValueError(f"no time zone '{timezone}': {suggest(timezone, sorted(available_timezones()))}")
        return timezone


class Declaration(Settings):
    """One pipeline: a folder of labelled images turned into an evaluated, fine-tuned classifier."""

    name: str = Field(pattern="^[a-z][a-z0-9_]{0,62}$", description="Lower-case name; prefix of every asset key.")
    source: Source = Field(description="Where the labelled images are.")
    description: str = Field("", description="One line for the UI.")
    duplicates: Duplicates = Duplicates()
    splits: Splits = Splits()
    augmentation: Augmentation = Augmentation()
    backbone: Backbone = Backbone()
    transfer_strategy: TransferStrategy = TransferStrategy()
    top_model: TopModel = LinearTopModel()
    fine_tuning: FineTuning = FineTuning()
    scratch_baseline: ScratchBaseline | None = Field(None, description="Train without transfer too, for comparison.")
    checks: Checks = Checks()
    compute: Compute = Compute()
    schedule: Schedule | None = Field(None, description="Scheduled retraining.")
    on_change: bool = Field(False, description="Refresh the chain when data, settings or code changed.")

    @model_validator(mode="after")
    def _one_depth(self) -> "Declaration":
        strategy, depth = self.transfer_strategy.strategy, self.fine_tuning.depth
        if strategy != "auto" and depth != "auto":
            raise ValueError(
                f"transfer_strategy.strategy '{strategy}' and fine_tuning.depth '{depth}' both say how deep: give one"
            )
        drawn = self.augmentation.transforms is not None or self.augmentation.preset == "lecture"
        if self.fine_tuning.fresh_augmentation and not drawn:
            raise ValueError(
                f"fine_tuning.fresh_augmentation: augmentation.preset '{self.augmentation.preset}' has no further "
                "views; take preset lecture or transforms"
            )
        return self
