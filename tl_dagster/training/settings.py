"""Settings of training: the top model, fine-tuning and the baseline without transfer."""

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from tl_dagster.runtime.settings import Settings

__all__ = [
    "FineTuning",
    "LinearTopModel",
    "MlpTopModel",
    "ResolvedFineTuning",
    "ScratchBaseline",
    "TopModel",
    "resolve_fine_tuning",
]


class _TopModel(Settings):
    balanced: bool = Field(False, description="Weigh the classes equally, whatever their sizes.")


class LinearTopModel(_TopModel):
    """Multinomial logistic regression on the cached, standardized features of all training views."""

    kind: Literal["linear"] = "linear"
    l2: list[Annotated[float, Field(gt=0)]] = Field(
        [1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001],
        min_length=1,
        description="Strengths of L2 tried: validation chooses; where the best lies at the edge, the search goes on "
        "beyond it. A single one is taken as it is.",
    )
    max_iterations: int = Field(100, ge=1, le=10_000, description="L-BFGS iterations for each strength.")


class MlpTopModel(_TopModel):
    """A dense layer with ReLU and dropout before the classifier, as in Chollet's blog post, on the same features."""

    kind: Literal["mlp"]
    hidden: int = Field(256, ge=1, le=65_536, description="Units of the dense layer.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Share of the units dropped in each training step.")
    epochs: int = Field(
        50, ge=1, le=10_000, description="Passes over the training views; validation chooses the epoch."
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.01, ge=0, le=10, description="AdamW's decoupled weight decay.")
    batch_size: int = Field(256, ge=1, le=65_536, description="Views in one optimiser step.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the first weights, the order and the dropout.")


def _kind(section: Any) -> Any:
    return section.get("kind", "linear") if isinstance(section, dict) else getattr(section, "kind", None)


TopModel = Annotated[
    Annotated[LinearTopModel, Tag("linear")] | Annotated[MlpTopModel, Tag("mlp")],
    Discriminator(_kind, "kind", "write a section whose kind is linear or mlp"),
]


class FineTuning(Settings):
    """Training on from the top model: the backbone's upper blocks and the classifier, very gently."""

    depth: str = Field(
        "auto",
        description="What is unfrozen: top (the last stage), 'last N stages', all, 'above NAME' (everything that runs "
        "after a stage or module), or none; auto: as the transfer strategy decides.",
    )
    fresh_augmentation: bool = Field(
        False,
        description="New random views in each epoch instead of the cached ones; the frozen part then runs in each.",
    )
    epochs: int | None = Field(
        None, ge=1, le=1000, description="Passes over the training images; by default chosen by the transfer strategy."
    )
    patience: int | None = Field(
        3,
        ge=1,
        le=1000,
        description="Epochs after the warm-up in which the validation log-loss fell by less than 1 % after which "
        "training stops early; null: never.",
    )
    views_per_epoch: int = Field(1, ge=1, le=256, description="Views of each training image seen in one epoch.")
    optimiser: Literal["adamw", "sgd"] = Field("adamw", description="adamw, or sgd with Nesterov's momentum (0.9).")
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=0.1,
        description="Peak learning rate of the highest unfrozen stage; by default chosen by the transfer strategy.",
    )
    layer_decay: float = Field(
        0.7, gt=0, le=1, description="The learning rate of each lower stage, over that of the stage above it."
    )
    head_learning_rate: float = Field(1e-5, gt=0, le=0.1, description="Peak learning rate of the classifier.")
    warmup: float = Field(
        0.2, ge=0, lt=1, description="Share of the steps in which the rates rise; then a cosine to 0."
    )
    weight_decay: float = Field(0.05, ge=0, le=10, description="Decoupled weight decay of the unfrozen blocks.")
    decay_towards: Literal["zero", "pretrained"] = Field(
        "zero", description="pretrained: weights decay towards the pre-trained ones instead of zero (L2-SP)."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over all classes.")
    mixup: float = Field(0.0, ge=0, le=10, description="Alpha of mixup's Beta distribution; 0: images are not mixed.")
    clip: float = Field(1.0, gt=0, description="Largest norm of a step's gradient; a longer one is shortened.")
    averaging: float = Field(
        0.97, ge=0, lt=1, description="Decay of the moving average of the weights, which is validated and kept."
    )
    batch_size: int = Field(64, ge=1, le=65_536, description="Views in one optimiser step.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the order of training, and of mixup.")

    @field_validator("depth")
    @classmethod
    def _known_depth(cls, depth: str) -> str:
        if not re.fullmatch(r"auto|none|top|all|last [1-9]\d* stages?|above \S+", depth):
            raise ValueError(f"'{depth}': write auto, none, top, 'last N stages', all, or 'above NAME'")
        return depth


class ResolvedFineTuning(FineTuning):
    """Fine-tuning with nothing left open: depth is not auto, and epochs and learning rate are numbers."""

    epochs: int
    learning_rate: float


def resolve_fine_tuning(settings: FineTuning, depth: str, epochs: int, learning_rate: float) -> ResolvedFineTuning:
    """Fill in what the declared settings leave open.

    Args:
        settings: the declared settings.
        depth: taken where theirs is auto.
        epochs: taken where theirs is None.
        learning_rate: taken where theirs is None.
    """
    declared = settings.model_dump()
    if settings.depth == "auto":
        declared["depth"] = depth
    open_fields = {"epochs": epochs, "learning_rate": learning_rate}
    return ResolvedFineTuning(**declared | {k: v for k, v in open_fields.items() if declared[k] is None})


class ScratchBaseline(Settings):
    """The same work without transfer, for the comparison: networks with random weights, on the same splits."""

    architectures: list[Literal["convnet", "backbone"]] = Field(
        ["convnet"],
        min_length=1,
        description="convnet: the three small convolutions of Chollet's blog post. backbone: the declared one.",
    )
    image_size: int = Field(150, ge=32, le=1024, description="Pixels of the convnet's square input.")
    epochs: int = Field(50, ge=1, le=1000, description="Passes over the training images, each with a view of its own.")
    patience: int | None = Field(
        10,
        ge=1,
        le=1000,
        description="Epochs after the warm-up in which the validation log-loss fell by less than 1 % after which "
        "training stops early; null: never.",
    )
    learning_rate: float = Field(1e-3, gt=0, le=0.1, description="Peak learning rate of AdamW.")
    batch_size: int = Field(32, ge=1, le=65_536, description="Views in one optimiser step.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the first weights and of the order.")
