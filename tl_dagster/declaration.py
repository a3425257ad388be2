"""The declaration of a pipeline: pydantic models with documentation, bounds and defaults.

Every setting that changes a result is part of the fingerprint of the stage that uses it; those under
:class:`Compute`, which only determine how the work is done, are part of none.
"""

from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import Field, field_validator, model_validator

from tl_dagster.backbones.settings import Backbone
from tl_dagster.data.settings import Augmentation, Duplicates, Splits
from tl_dagster.data.sources import Source
from tl_dagster.evaluation.settings import BackboneLeaderboard, Promotion
from tl_dagster.features.settings import Compute
from tl_dagster.runtime.errors import suggest
from tl_dagster.runtime.settings import Settings
from tl_dagster.strategy.settings import TransferStrategy
from tl_dagster.training.settings import FineTuning, LinearTopModel, MlpTopModel, ScratchBaseline, TopModel

__all__ = [
    "NAME",
    "Alerts",
    "BackboneLeaderboard",
    "Checks",
    "Declaration",
    "FineTuning",
    "LinearTopModel",
    "MlpTopModel",
    "Promotion",
    "Resources",
    "Runs",
    "Schedule",
    "ScratchBaseline",
    "StageResources",
    "TopModel",
    "TransferStrategy",
]

NAME = "^[a-z][a-z0-9_]{0,62}$"
OWNER = r"^(team:.+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7})$"
TAG, TAG_VALUE = r"^([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}$", r"^[A-Za-z0-9_.-]{0,63}$"  # as Dagster allows


class Checks(Settings):
    """The thresholds at which asset checks warn or stop a run. They change no result, only its checks."""

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
    feature_drift: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="Share of false alarms of the check for drift of features: images that are new since the champion "
        "was trained, against its training images. Maximum mean discrepancy, tested by permutation.",
    )
    contrast: float = Field(
        5.0,
        ge=0,
        le=128,
        description="Standard deviation of an image's brightness (0 to 255) that it should have; below it a warning.",
    )
    near_identical: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of the held-out images that may look nearly like one of another split; above it a warning.",
    )
    label_suspects: float = Field(
        0.01, ge=0, le=1, description="Share of the labels that may be contradicted strongly; above it a warning."
    )
    calibration: float = Field(
        0.05, ge=0, le=1, description="Expected calibration error of the selected model; above it a warning."
    )
    acknowledged: list[str] = Field(
        [],
        description="Images that were looked at and are right, by their paths (or the ends of them) or image ids: "
        "contrast, near_identical and label_suspects do not count them.",
    )
    leakage: Literal["warn", "stop"] = Field(
        "warn", description="What near copies across splits do: a warning, or the end of the run."
    )


class Schedule(Settings):
    """Scheduled retraining: on each tick the whole pipeline is refreshed, and unchanged stages are reused."""

    cron: str = Field(description="Five cron fields, such as '0 3 * * 1' (Mondays at three).")
    timezone: str = Field("UTC", description="IANA name, such as 'Europe/Berlin'.")

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, timezone: str) -> str:
        if timezone not in available_timezones():
            raise ValueError(f"no time zone '{timezone}': {suggest(timezone, sorted(available_timezones()))}")
        return timezone


class StageResources(Settings):
    """The resources that a stage asks a cluster for."""

    gpus: int | None = Field(None, ge=0, le=64, description="Whole GPUs.")
    cpus: float | None = Field(None, gt=0, le=1024, description="Processors.")
    memory: str | None = Field(
        None, pattern="^[1-9][0-9]*(Mi|Gi|Ti)$", description="Memory, such as 16Gi; a stage that takes more is ended."
    )
    tags: dict[str, str] = Field({}, description="Further tags of the step, such as {dagster-celery/queue: gpu}.")


class Resources(Settings):
    """The resources that stages ask a cluster for (Kubernetes, Ray, Celery). They change no result."""

    gpu: StageResources = Field(
        StageResources(), description="The stages of the pool gpu: those that run or train a network."
    )
    cpu: StageResources = Field(StageResources(), description="The other stages.")


class Runs(Settings):
    """The start and the repetition of runs. They change no result."""

    quiet_seconds: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="on_change: a run begins when nothing has changed for so long, so that files which are still "
        "arriving make one run; after ten minutes of changes it begins all the same.",
    )
    retries: int = Field(
        2,
        ge=0,
        le=10,
        description="How often a stage begins again after a fault that may pass (network, mounted disk), after 30 s, "
        "2 minutes, 8 minutes …; what it had computed is reused.",
    )
    max_runtime_minutes: float | None = Field(
        None, gt=0, description="Longer runs are ended, where run_monitoring is enabled in dagster.yaml."
    )
    priority: int = Field(0, ge=-100, le=100, description="Of queued runs those with the highest begin first.")


class Alerts(Settings):
    """Messages on what happens to the pipeline. They change no result."""

    webhook_env: str = Field(
        pattern="^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable of the daemon that holds the webhook's URL (https); Slack's form of JSON.",
    )
    on: list[Literal["failure", "promotion", "kept", "stale", "drift"]] = Field(
        ["failure", "promotion", "kept", "stale", "drift"],
        description="failure: a run failed; promotion: another model is in service; kept: a new one was turned down; "
        "stale: the champion is older than promotion.freshness_days; drift: the data moved.",
    )


class Declaration(Settings):
    """One pipeline: a folder of labelled images turned into an evaluated, fine-tuned classifier."""

    name: str = Field(pattern=NAME, description="Lower-case name; prefix of every asset key.")
    source: Source = Field(description="Where the labelled images are.")
    description: str = Field("", description="One line for the UI.")
    owners: list[Annotated[str, Field(pattern=OWNER)]] = Field(
        [], description="Who answers for its assets: e-mail addresses, or team:NAME. Dagster shows and filters by them."
    )
    tags: dict[Annotated[str, Field(pattern=TAG)], Annotated[str, Field(pattern=TAG_VALUE)]] = Field(
        {}, description="Tags of its assets, such as {domain: energy}."
    )
    duplicates: Duplicates = Duplicates()
    splits: Splits = Splits()
    augmentation: Augmentation = Augmentation()
    backbone: Backbone = Backbone()
    transfer_strategy: TransferStrategy = TransferStrategy()
    top_model: TopModel = LinearTopModel()
    fine_tuning: FineTuning = FineTuning()
    scratch_baseline: ScratchBaseline | None = Field(None, description="Train without transfer too, for comparison.")
    promotion: Promotion = Promotion()
    backbone_leaderboard: BackboneLeaderboard | None = Field(
        None, description="Compare backbones, layers and poolings: an asset beside the pipeline."
    )
    checks: Checks = Checks()
    compute: Compute = Compute()
    resources: Resources = Resources()
    runs: Runs = Runs()
    alerts: Alerts | None = Field(None, description="Messages to a webhook.")
    schedule: Schedule | None = Field(None, description="Scheduled retraining.")
    on_change: bool = Field(False, description="Refresh the chain when data, settings or code changed.")

    @model_validator(mode="after")
    def _consistent(self) -> "Declaration":
        strategy, depth = self.transfer_strategy.strategy, self.fine_tuning.depth
        if strategy != "auto" and depth != "auto":
            raise ValueError(
                f"transfer_strategy.strategy '{strategy}' and fine_tuning.depth '{depth}' both say how deep: give one"
            )
        gpus = self.resources.gpu.gpus
        if gpus and self.compute.device in ("cpu", "mps"):
            raise ValueError(
                f"compute.device '{self.compute.device}' has no use for resources.gpu.gpus {gpus}: drop one"
            )
        drawn = self.augmentation.transforms is not None or self.augmentation.preset == "lecture"
        if self.fine_tuning.fresh_augmentation and not drawn:
            raise ValueError(
                f"fine_tuning.fresh_augmentation: augmentation.preset '{self.augmentation.preset}' has no further "
                "views; take preset lecture or transforms"
            )
        return self
