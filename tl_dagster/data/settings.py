"""Settings of the data: near copies, splits and augmentation."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tl_dagster.runtime.settings import Settings

__all__ = ["LECTURE", "Augmentation", "Duplicates", "Fraction", "Splits", "Transform"]

Fraction = Annotated[float, Field(gt=0, lt=1)]
Transform = dict[str, dict[str, Any]]  # of albumentations: its name and its arguments, as the only item

# The lecture's flips, crops, translations and rotations.
LECTURE: list[Transform] = [
    {"HorizontalFlip": {"p": 0.5}},
    {
        "Affine": {
            "translate_percent": [-0.08, 0.08],
            "rotate": [-15, 15],
            "scale": [0.9, 1.15],
            "border_mode": 2,  # cv2.BORDER_REFLECT: no black corners that only augmented images have
            "p": 1.0,
        }
    },
    {"RandomResizedCrop": {"size": "image", "scale": [0.75, 1.0], "ratio": [0.9, 1.1], "p": 0.5}},
]


class Duplicates(Settings):
    """The images that count as near copies of each other: they share a group, and a group is never cut by a split."""

    distance: int = Field(
        8,
        ge=0,
        le=16,
        description="Bits (of 256) in which the perceptual hashes of near copies differ at most; 0: none.",
    )


class Splits(Settings):
    """The division of the images: each class by these shares, in the order of a hash. An old image never moves."""

    test: Fraction = Field(0.15, description="Share of each class held out for the final evaluation.")
    validation: Fraction = Field(
        0.15, description="Share held out for choosing settings and epochs; with folds, of the rest."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Another seed gives another division.")
    folds: int | None = Field(
        None, ge=2, le=100, description="Cross-validation: the test split is one of so many folds, instead of `test`."
    )
    fold: int = Field(0, ge=0, description="Which fold is the test split, from 0; one pipeline for each.")

    @model_validator(mode="after")
    def _leaves_training(self) -> "Splits":
        if self.folds is None and self.fold:
            raise ValueError(f"fold {self.fold} needs the number of folds: give `folds` too")
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
    transforms: list[Transform] | None = Field(
        None, description="albumentations transforms by name, in order, instead of a preset."
    )
    views: int = Field(4, ge=1, le=256, description="Views of each training image, the plain one included.")
    test_views: Annotated[int, Field(ge=1, le=256)] | Literal["mirrored"] = Field(
        1,
        description="Views averaged for validation and test images; mirrored: the plain image and its mirror image.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the random augmentations.")

    @property
    def steps(self) -> list[Transform]:
        """The albumentations transforms in order, presets written out; empty when views are plain or dihedral."""
        if self.transforms is not None:
            return self.transforms
        return LECTURE if self.preset == "lecture" else []

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
