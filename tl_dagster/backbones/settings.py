"""Settings of the backbone: the frozen network, its weights, and where its features are taken."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from tl_dagster.runtime.settings import Settings

__all__ = ["Backbone"]


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

    @property
    def tag(self) -> str | None:
        """The library's name of the weights; None when they are a file, a URL, of a package or random."""
        weights = self.weights
        return None if weights is None or ":" in weights or "/" in weights or Path(weights).suffix else weights

    @field_validator("name")
    @classmethod
    def _library_named(cls, name: str) -> str:
        library, _, model = name.partition("/")
        if library not in ("timm", "torchvision") or not model:
            raise ValueError(f"'{name}': write timm/NAME or torchvision/NAME")
        return name
