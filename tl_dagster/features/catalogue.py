"""What is known of backbones without importing torch: stages, preprocessing, where the weights are."""

import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tl_dagster.artifacts import ArtifactStore
from tl_dagster.data.decoding import Resize
from tl_dagster.disk import write_atomically
from tl_dagster.errors import InputError, nearest
from tl_dagster.identity import digest
from tl_dagster.spec import Augmentation, Backbone

__all__ = ["PENULTIMATE", "BackboneInfo", "check_transforms", "look_up"]

PENULTIMATE = "penultimate"
# Another number whenever `describe` answers differently.
DESCRIBE_RECIPE = 3


@dataclass(frozen=True)
class BackboneInfo:
    """A backbone as its library describes it.

    Attributes:
        name: "timm/NAME" or "torchvision/NAME".
        stages: stage name → module path, from lower to higher.
        modules: every module path.
        maps: shape (C, H, W) of each module's output that is a map, at the weights' own image size.
        classifier: path of the last fully connected layer, which is dropped.
        preprocess: size, crop_fraction, interpolation, mean and std that belong to the weights.
        weights: url and sha256 prefix of the pre-trained file; None when the library has none.
    """

    name: str
    stages: Mapping[str, str]
    modules: tuple[str, ...]
    maps: Mapping[str, Sequence[int]]
    classifier: str
    preprocess: Mapping[str, Any]
    weights: Mapping[str, str] | None

    def module(self, tap: str) -> str:
        """The module path of a tap; the penultimate one is where the dropped classifier stood.

        Raises:
            InputError: the backbone has no such tap.
        """
        if tap == PENULTIMATE:
            return self.classifier
        if tap in self.stages:
            return self.stages[tap]
        if tap in self.modules:
            return tap
        raise InputError(
            f"{self.name} has no tap '{tap}': {nearest(tap, [*self.stages, PENULTIMATE])}; or a module's name"
        )

    def is_below(self, path: str, boundary: str) -> bool:
        """Whether a module runs before (or within) the layer that a tap names."""
        last = self.module(boundary)
        return self.modules.index(path) <= self.modules.index(last) or path.startswith(f"{last}.")

    def frozen_through(self, backbone: Backbone, declared: str) -> str:
        """The tap up to which fine-tuning freezes ("auto": all but the last stage).

        Raises:
            InputError: the backbone has no such tap, or no declared tap lies above it.
        """
        stages = list(self.stages)
        if declared == "auto" and len(stages) < 2:
            raise InputError(f"fine_tuning.freeze_through: {self.name} has no stages; name one of its modules")
        through = stages[-2] if declared == "auto" else declared
        if all(self.is_below(self.module(tap), through) for tap in backbone.taps):
            raise InputError(
                f"fine_tuning.freeze_through: nothing of the taps {backbone.taps} is left to tune above '{through}': "
                f"{nearest(through, stages[:-1])}; or add the tap {PENULTIMATE}"
            )
        return through

    def values(self, tap: str, size: int) -> int | None:
        """About how many values a tap's map holds at an image size; None when it is no map."""
        shape = self.maps.get(self.module(tap))
        return None if shape is None else int(math.prod(shape) * (size / self.preprocess["size"]) ** 2)

    def map_shape(self, tap: str, values: int) -> tuple[int, int, int]:
        """The shape of a tap's map of this many values: (C, side, side), or (side, side, C) for NHWC networks."""
        first, _, last = self.maps[self.module(tap)]
        nhwc = self.maps[self.module(tap)][1] == first != last
        channels = last if nhwc else first
        side = math.isqrt(values // channels)
        return (side, side, channels) if nhwc else (channels, side, side)

    def resize(self, backbone: Backbone) -> Resize:
        """The geometry from image to network input, under the declared size and mode."""
        return Resize(
            size=backbone.image_size or self.preprocess["size"],
            mode=backbone.resize,
            crop_fraction=self.preprocess["crop_fraction"],
            interpolation=self.preprocess["interpolation"],
        )


def look_up(backbone: Backbone) -> BackboneInfo:
    """Describe a declared backbone; the first time in a process of its own (about 4 s), then from the store.

    Raises:
        InputError: the library has no such model or weights tag.
    """
    known = _described(backbone.name, weights_tag(backbone.weights))
    return BackboneInfo(backbone.name, **{**known, "modules": tuple(known["modules"])})


def weights_tag(weights: str | None) -> str | None:
    """The library's tag in a declared ``weights``; None when it names a file, a URL, a package or a seed."""
    if weights is None or ":" in weights or "/" in weights or Path(weights).suffix:
        return None
    return weights


def check_transforms(augmentation: Augmentation, size: int) -> None:
    """Draw the declared transforms once (in a process of its own, and only the first time).

    Raises:
        InputError: a transform does not exist, its arguments do not fit, or it changes the image's size.
    """
    if augmentation.transforms is not None:
        steps = json.dumps(augmentation.transforms, sort_keys=True)
        _answered("tl_dagster.data.augmentation", (steps, str(size)), version("albumentations"))


def _described(name: str, tag: str | None) -> dict[str, Any]:
    versions = f"{version('timm')} {version('torchvision')} {DESCRIBE_RECIPE}"
    return _answered("tl_dagster.features.describe", (name, *([tag] if tag else [])), versions)


@cache
def _answered(module: str, arguments: tuple[str, ...], versions: str) -> dict[str, Any]:
    """What one of our modules prints as JSON when run on its own; kept in the store for these library versions."""
    kept = ArtifactStore().root / "backbones" / f"{digest([module, arguments, versions])[:16]}.json"
    try:
        return dict(json.loads(kept.read_text()))
    except (OSError, ValueError):
        pass
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (no shell; our own module)
    if done.returncode != 0:
        raise InputError(f"{' '.join(arguments)[:80]} cannot be looked at: {done.stderr.strip().splitlines()[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise InputError(answer["error"])
    with contextlib.suppress(OSError):  # a read-only store is told of when something must be stored there
        write_atomically(kept, json.dumps(answer).encode())
    return answer
