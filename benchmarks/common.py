"""What the benchmarks share: photographs, processes of their own, stages without Dagster, the form of the results.

Photographs and weights that no package ships are found through two environment variables:

- ``TL_BENCH_PHOTOS``: a folder that holds ``hymenoptera/{train,val}/{ants,bees}/*.jpg``;
- ``TL_BENCH_WEIGHTS``: a folder that holds ``squeezenet1_1.pth`` and ``mobilenet_v2.pth``, torchvision's.
"""

import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from tl_dagster.backbones.inference import InferenceRunner
    from tl_dagster.features.backbone_features import BackboneFeatures
    from tl_dagster.graph.stage import Stage, StageContext
    from tl_dagster.store.artifacts import Materialization

__all__ = [
    "apart",
    "command",
    "compiled",
    "extract",
    "finish",
    "fresh",
    "ingest",
    "machine",
    "opened",
    "photos",
    "prepared",
    "repeat_photos",
    "run_stages",
    "whole",
]

RESULTS = Path(__file__).parent / "results"


def photos() -> Path | None:
    """The folder of hymenoptera; None, and a line that says so, where there is none."""
    folder = Path(os.environ.get("TL_BENCH_PHOTOS", ""), "hymenoptera")
    if os.environ.get("TL_BENCH_PHOTOS") and folder.is_dir():
        return folder
    print("no photographs: set TL_BENCH_PHOTOS to a folder with hymenoptera/{train,val}/{ants,bees}")
    return None


def repeat_photos(source: Path, folder: Path, numbers: range) -> None:
    """Hymenoptera's photographs over and over, in class folders; each repeat has the same pixels and other bytes.

    Args:
        source: see :func:`photos`.
        folder: to write to.
        numbers: of the files, so that more can be added later.
    """
    files = sorted(source.glob("*/*/*.jpg"), key=lambda file: file.name)  # the classes mixed
    for number in numbers:
        file = files[number % len(files)]
        path = folder / file.parent.name / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.read_bytes() + b"%06d" % number)  # after the end marker, where no decoder looks


def fresh(folder: Path) -> dict[str, str]:
    """An environment whose caches of compiled networks lie in a folder: empty the first time."""
    places = {"XDG_CACHE_HOME": "cache", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TL_DAGSTER_STORE": "known"}
    return {variable: str(folder / name) for variable, name in places.items()}


def command(function: Callable[..., Mapping[str, Any]], *given: Any) -> list[str]:
    """What calls a benchmark's function in a process of its own; its last line is what it returned, as JSON."""
    spec = sys.modules["__main__"].__spec__
    module = spec.name if function.__module__ == "__main__" and spec else function.__module__
    return [sys.executable, "-m", "benchmarks.common", module, function.__name__, json.dumps(given, default=str)]


def apart(function: Callable[..., Mapping[str, Any]], *given: Any, environment: Mapping[str, str]) -> dict[str, Any]:
    """Call a function in a process of its own.

    Returns:
        What it returned, with ``process_seconds`` from its start to its end, and ``peak_mb`` of memory.
    """
    begun = time.perf_counter()
    done = subprocess.run(
        command(function, *given), check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    seconds = time.perf_counter() - begun
    found = {**json.loads(done.stdout.splitlines()[-1]), "process_seconds": seconds}
    shown = {name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}
    print(f"{function.__name__}: {shown}", file=sys.stderr)
    return found


def _call(module: str, name: str, given: str) -> None:
    found = getattr(importlib.import_module(module), name)(*json.loads(given))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**found, "peak_mb": peak}))


def prepared(settings: Mapping[str, Any], store: str | Path, kind: "type[Stage]") -> "tuple[Stage, StageContext]":
    """A stage of a declared pipeline, and what it would have in hand in Dagster."""
    from tl_dagster import ArtifactStore, Declaration
    from tl_dagster.graph.stage import StageContext
    from tl_dagster.runtime.progress import Progress

    declaration, artifacts = Declaration.model_validate(settings), ArtifactStore(Path(store))
    held = {name: artifacts.get_current(declaration.name, name) for name in (*kind.inputs, kind.name)}
    inputs = {name: each.artifact for name, each in held.items() if each and name != kind.name}
    work = StageContext(artifacts, inputs, Progress(lambda line: None), held[kind.name])
    return kind(declaration, Path(store)), work


def run_stages(
    settings: Mapping[str, Any], store: str | Path, kinds: "Sequence[type[Stage]]"
) -> "list[Materialization]":
    """Run stages of a declared pipeline without Dagster, in order, with their checks; what each then holds."""
    found = []
    for kind in kinds:
        stage, work = prepared(settings, store, kind)
        found.append(stage.run(work))
        stage.run_checks(work, found[-1])
        work.store.set_current(stage.declaration.name, stage.name, found[-1])
    return found


def ingest(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """What comes before extraction; not timed."""
    from tl_dagster.graph.stages.augmented_splits import AugmentedSplits
    from tl_dagster.graph.stages.dataset import Dataset

    return {"rows": run_stages(settings, store, [Dataset, AugmentedSplits])[-1].artifact.summary.rows}


def opened(settings: dict[str, Any], store: str) -> "tuple[BackboneFeatures, pd.DataFrame, StageContext]":
    """The declared backbone, the table of views, and what the stage has in hand."""
    from tl_dagster.data.splits import read_views
    from tl_dagster.features.backbone_features import BackboneFeatures
    from tl_dagster.graph.stages.bottleneck_features import BottleneckFeatures

    stage, work = prepared(settings, store, BottleneckFeatures)
    return BackboneFeatures(stage.declaration, work.store), read_views(work.inputs["augmented_splits"].path), work


def extract(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """Fill the feature cache."""
    begun = time.perf_counter()
    frozen, table, work = opened(settings, store)
    done = frozen.compute_missing(table, frozen.columns(), work)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "rate": done.views_per_second, "compiled": done.compiled, "computed": done.views}


def compiled(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """Compile the network, also where that would not repay itself: seconds, or nothing where it cannot be."""
    import numpy as np

    from tl_dagster.backbones import inference as network

    network.COMPILE_SECONDS = 0.0
    frozen, _, _ = opened(settings, store)
    model = whole(frozen)
    size = frozen.resize.size
    pixels = np.zeros((model.batch_size, size, size, 3), np.uint8)
    model(pixels)()
    begun = time.perf_counter()
    model.consider_compiling(pixels, 10**6, lambda line: None)
    return {"seconds": time.perf_counter() - begun, "compiled": model.compiled}


def whole(frozen: "BackboneFeatures") -> "InferenceRunner":
    """The network that gives the declared taps."""
    from tl_dagster.backbones.inference import InferenceRunner
    from tl_dagster.backbones.taps import build_extractor

    recipes = [column.key for column in frozen.columns()]
    taps = [(recipe["tap"], recipe["pooling"]) for recipe in recipes]
    known = frozen.info.preprocess
    size = frozen.loader().batch_size
    return InferenceRunner(
        lambda: build_extractor(frozen.load(), taps), recipes, frozen.precision, known["mean"], known["std"], size
    )


def machine() -> dict[str, Any]:
    """The machine that a figure belongs to."""
    import torch

    from tl_dagster.runtime.hardware import processors

    cpu = next(
        (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": processors(), "gpu": gpu, "torch": torch.__version__}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def finish(
    name: str, figures: dict[str, float | None], targets: dict[str, dict[str, float]], *, part: bool = False
) -> None:
    """Print the table, write ``results/<name>.json``, and exit with 1 when a target is missed.

    Args:
        name: of the benchmark.
        figures: None for what could not be measured.
        targets: of some figures.
        part: only a part of the benchmark ran: the other figures of this machine stay in the file.
    """
    path, here = RESULTS / f"{name}.json", machine()
    RESULTS.mkdir(exist_ok=True)
    if part and path.exists() and (earlier := json.loads(path.read_text()))["machine"] == here:
        figures = earlier["figures"] | {key: value for key, value in figures.items() if value is not None}
    result = {"name": name, "machine": here, "figures": figures, "targets": targets}
    path.write_text(json.dumps(result, indent=1) + "\n")
    missed = []
    for key, value in figures.items():
        target = targets.get(key, {})
        met = value is None or all(
            value >= bound if kind == "at_least" else value <= bound for kind, bound in target.items()
        )
        missed += [] if met else [key]
        wanted = ", ".join(f"{kind.replace('_', ' ')} {bound:g}" for kind, bound in target.items())
        shown = "—" if value is None else f"{value:.4g}"
        print(f"{key:45} {shown:>10}   {wanted}{'' if met else '   MISSED'}")
    if missed:
        sys.exit(f"{name}: missed {', '.join(missed)}")


if __name__ == "__main__":
    _call(*sys.argv[1:])
