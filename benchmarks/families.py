"""Every family of networks of timm and torchvision, its smallest member: what of it can be tapped and fine-tuned.

A family is a module of the library. Each member is tried with random weights on a few random images, at a small size
where it accepts one: features of all stages and of the penultimate layer; then one epoch of fine-tuning above the last
stage (``top``), with the last two stages, and with all of it. ``--table`` writes what came out to a Markdown file.

- ``networks``: how many were tried, of ``families``.
- ``not_described``, ``not_tapped``, ``not_tuned_top``, ``not_tuned_last_2_stages``, ``not_tuned_all``: how many fail.
- ``trained_whole``: how many cannot be cut at the last stage: the frozen part runs in each step.
"""

import argparse
import contextlib
import io
import re
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import apart, finish, is_smallest, parse
from tl_dagster.backbones.building import create_on_meta
from tl_dagster.backbones.description import BackboneInfo
from tl_dagster.backbones.frozen import FrozenBackbone, build_resize
from tl_dagster.backbones.inspection import describe
from tl_dagster.backbones.settings import Backbone
from tl_dagster.backbones.splitting import BackboneSplit, lower_module
from tl_dagster.backbones.taps import build_extractor
from tl_dagster.backbones.weights import Weights
from tl_dagster.features.backbone_features import BackboneFeatures
from tl_dagster.models.calibration import Score
from tl_dagster.models.heads import TopModelHead
from tl_dagster.models.networks import to_maps
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.libraries import import_timm, import_torchvision
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.fine_tuning import FineTuningData, fine_tune
from tl_dagster.training.fine_tuning_setup import FineTuningSetup
from tl_dagster.training.settings import FineTuning, resolve_fine_tuning

DEPTHS = ("top", "last 2 stages", "all")
SMALL, IMAGES = 96, 6
SMALLEST = ["torchvision/squeezenet1_1", "timm/vit_tiny_patch16_224"]
MANY = 150_000_000  # parameters: larger networks are not tried
SIZES = (
    "zepto",
    "atto",
    "femto",
    "pico",
    "nano",
    "xxs",
    "xxt",
    "xs",
    "tiny",
    "micro",
    "mini",
    "small",
    "lite",
    "t",
    "s",
)
CANDIDATES = 3


class Row(NamedTuple):
    """What came out of one network: of each trial "yes", or the error in a line."""

    family: str
    name: str
    parameters: int
    size: int
    stages: int
    taps: str
    tuned: Sequence[str]


def families() -> dict[str, list[str]]:
    """Return family → its networks, of both libraries; networks that are for tests only are left out."""
    timm, models = import_timm(), import_torchvision().models
    found = {
        f"timm {module}": [f"timm/{name}" for name in timm.list_models(module=module) if not name.startswith("test_")]
        for module in timm.list_modules()
    }
    for name in models.list_models(module=models):
        module = models.get_model_builder(name).__module__.rpartition(".")[2]
        found.setdefault(f"torchvision {module}", []).append(f"torchvision/{name}")
    return {family: names for family, names in found.items() if names}


def smallest_of(names: list[str]) -> tuple[int, str]:
    """Return the fewest parameters, and the network that has them, of the few that are small by their names."""
    few = sorted(names, key=by_size)[:CANDIDATES]
    return min((sum(each.numel() for each in create_on_meta(name, 224).parameters()), name) for name in few)


def by_size(name: str) -> tuple[int, int, int]:
    """Return a key that sorts the small networks of a family first: by words, by the first number, by length."""
    word = next((number for number, word in enumerate(SIZES) if re.search(rf"_?{word}(_|\d|$)", name)), len(SIZES))
    numbers = re.findall(r"\d+", name)
    return word, int(numbers[0]) if numbers else 0, len(name)


def try_network(family: str, name: str, parameters: int) -> Row:
    """Try a network; what fails is in the row."""
    info, size = describe_small(name)
    row = Row(family, name, parameters, size, len(info.stages), "", ())
    settings = Backbone(name=name, weights="random:0", precision="fp32", image_size=size, taps=["penultimate"])
    resize = build_resize(info, settings)
    mean, std = info.preprocess["mean"], info.preprocess["std"]
    frozen = FrozenBackbone(info, Weights(None, "random:0"), resize, mean, std, "fp32")
    features = BackboneFeatures(frozen, settings.taps, settings.pooling, Path())
    images = torch.rand(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
    taps = attempt(partial(tap, info, frozen, images))
    return row._replace(taps=taps, tuned=tuple(attempt(partial(tune, features, images, depth)) for depth in DEPTHS))


def try_alone(family: str, name: str, parameters: int) -> dict[str, Any]:
    """Try a network, and return its row; one that cannot even be described is a row too."""
    torch.manual_seed(0)
    try:
        return try_network(family, name, parameters)._asdict()
    except Exception as error:
        return fail(family, name, parameters, f"{type(error).__name__}: {str(error)[:160]}")._asdict()


def try_apart(family: str, name: str, parameters: int) -> Row:
    """Try a network in a process of its own: traced networks hold each other in memory, and some end the process."""
    try:
        found = apart(try_alone, family, name, parameters, environment={})
    except subprocess.CalledProcessError as error:
        return fail(family, name, parameters, f"its process ends with {error.returncode}")
    return Row(**{field: found[field] for field in Row._fields})


def fail(family: str, name: str, parameters: int, reason: str) -> Row:
    """Return the row of a network that cannot be tried."""
    return Row(family, name, parameters, 0, 0, reason, ("no",) * len(DEPTHS))


def describe_small(name: str) -> tuple[BackboneInfo, int]:
    """Describe a network at a small image size where it accepts that, else at its own."""
    try:
        known = describe(name, None, SMALL)
    except InputError:
        known = describe(name)
    return BackboneInfo(name, **known), known["size"]


def attempt(trial: Callable[[], str]) -> str:
    """Return what a trial says, or its error in a line."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            return trial()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def tap(info: BackboneInfo, frozen: FrozenBackbone, images: torch.Tensor) -> str:
    """Take the features of every stage and of the penultimate layer."""
    taps = [(info.module(each), "avg") for each in [*info.stages, "penultimate"]]
    with torch.no_grad():
        outputs = build_extractor(frozen.load(), taps)(images)
    widths = [info.width(path, pooling, images.shape[-1]) for path, pooling in taps]
    if [output.shape[1] for output in outputs] != widths:
        return f"widths {[output.shape[1] for output in outputs]} instead of {widths}"
    return "yes" if all(output.isfinite().all() for output in outputs) else "not finite"


def tune(features: BackboneFeatures, images: torch.Tensor, depth: str) -> str:
    """Fine-tune for one epoch, from a random top model."""
    boundary = features.backbone.info.frozen_through(features.taps, depth)
    settings = resolve_fine_tuning(FineTuning(depth=depth, batch_size=3), depth, 1, 1e-5)
    engine: Any = SimpleNamespace(features=features)
    setup = FineTuningSetup(engine, None, features.taps, settings, boundary)  # type: ignore[arg-type]
    head = TopModelHead(sum(setup.split.widths), 2)
    network = setup.network(head.state_dict())
    labels = np.arange(IMAGES) % 2
    data = FineTuningData(
        Inputs(setup.split, features, images),
        np.arange(IMAGES)[:, None],
        np.arange(IMAGES),
        np.arange(IMAGES),
        labels,
        torch.nn.functional.one_hot(torch.from_numpy(labels), 2).float(),
    )
    untrained, depths = Score(float("inf"), 0.0, 1.0), setup.stage_depths(network)
    result = fine_tune(network, data, settings, depths, "fp32", untrained, Progress(lambda line: None))
    if not np.isfinite(result.history[-1]["training_loss"]):
        return "the loss is not a number"
    return "yes, as a whole" if boundary is not None and setup.split.reads_images else "yes"


class Inputs:
    """The inputs of fine-tuning: some images, or the boundary's outputs of them (a :class:`.BatchSource`)."""

    def __init__(self, split: BackboneSplit, features: BackboneFeatures, images: torch.Tensor) -> None:
        self.images = images.contiguous(memory_format=torch.channels_last)
        if not split.reads_images and split.boundary is not None:
            lower = lower_module(features.load(), [(split.boundary, "none")], images.shape[-1])
            info = features.backbone.info
            with torch.no_grad():
                (values,) = lower(images)
            self.images = to_maps(values.numpy(), info.map_shape(split.boundary, values.shape[1]))

    def __call__(self, rows: np.ndarray, size: int, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """See :class:`.BatchSource`."""
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            yield self.images[chosen], torch.zeros(len(chosen), 0)


def write_table(path: Path, rows: list[Row], left: list[str]) -> None:
    """Write the rows as a Markdown file."""
    columns = ["family", "smallest member", "million parameters", "image size", "stages", "taps", *DEPTHS]
    lines = [INTRODUCTION, "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [row.family, f"`{row.name}`", f"{row.parameters / 1e6:.1f}", row.size, row.stages, row.taps, *row.tuned]
        lines.append(f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |")
    lines += ["", "Not tried: " + ("; ".join(left) if left else "nothing") + "."]
    path.write_text("\n".join(lines) + "\n")


INTRODUCTION = """# Networks

Any network of timm or torchvision can be a backbone. `python -m benchmarks.families --table docs/networks.md` tries
the smallest member of each family with random weights, on a processor in fp32: features of every stage and of the
penultimate layer, and one epoch of fine-tuning at each depth. "yes, as a whole": the network cannot be cut at its
boundary, so the frozen part runs in each step instead of once, with the same result. A network whose gradients cannot
be computed, tried on one image when it is first declared, is refused with the words `cannot be fine-tuned`."""


def main() -> None:
    """Try all families, those that are named first; print each row as it comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="to begin with, such as 'timm vision_transformer'")
    parser.add_argument("--table", type=Path, help="the Markdown file to write")
    parser.add_argument("--minutes", type=float, default=60, help="begin no further network after so many minutes")
    options = parse(parser)
    every = {name: [name] for name in SMALLEST} if is_smallest() else families()
    begun, rows, left = time.monotonic(), [], []
    for family in dict.fromkeys([*options.families, *every]):
        names = every[family]
        if time.monotonic() - begun > options.minutes * 60:
            left.append(f"{family} (no time was left)")
            continue
        parameters, name = smallest_of(names)
        if parameters > MANY:
            left.append(f"{family} ({parameters / 1e6:.0f} million parameters)")
            continue
        row = try_apart(family, name, parameters)
        rows.append(row)
        print(*row, sep=" · ", flush=True)
        if options.table:
            write_table(options.table, rows, left)
    if options.table:
        write_table(options.table, rows, left)
    failed = {f"not_tuned_{depth.replace(' ', '_')}": number for number, depth in enumerate(DEPTHS)}
    figures: dict[str, float | None] = {
        "families": len(rows) + len(left),
        "networks": len(rows),
        "not_tapped": sum(row.taps != "yes" for row in rows),
        **{key: sum(not row.tuned[number].startswith("yes") for row in rows) for key, number in failed.items()},
        "trained_whole": sum(row.tuned[0] == "yes, as a whole" for row in rows),
    }
    targets = {key: {"at_most": 0.0} for key in ("not_tapped", *failed)}
    finish("families", figures, targets)


if __name__ == "__main__":
    main()
