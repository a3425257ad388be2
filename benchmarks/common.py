"""Shared parts of the benchmarks: photographs, processes of their own, stages without Dagster, the form of the results.

Every benchmark takes ``--smallest``: the smallest sizes that run, all in one process, to see that it still works. Such
a run compares with no target and writes no results.

Photographs and weights that no package ships are found through two environment variables:

- ``TL_BENCH_PHOTOS``: a folder that holds ``hymenoptera/{train,val}/{ants,bees}/*.jpg``;
- ``TL_BENCH_WEIGHTS``: a folder that holds ``squeezenet1_1.pth`` and ``mobilenet_v2.pth``, torchvision's.
"""

import argparse
import atexit
import importlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    import pandas as pd

    from tl_dagster.backbones.inference import InferenceRunner
    from tl_dagster.features.engine import LocalEngine
    from tl_dagster.graph.stage import Stage, StageContext
    from tl_dagster.store.artifacts import Materialization

__all__ = [
    "apart",
    "build_runner",
    "command",
    "compile_network",
    "extract",
    "finish",
    "fresh",
    "ingest",
    "is_smallest",
    "machine",
    "open_engine",
    "parse",
    "photos",
    "prepare_stage",
    "repeat_photos",
    "run_stages",
]

RESULTS = Path(__file__).parent / "results"
SMALLEST = "TL_BENCH_SMALLEST"  # an environment variable: processes that a benchmark starts know it too
FEW, SIDE = 20, 64  # photographs of a class and part, and pixels, in the smallest form


def parse(parser: argparse.ArgumentParser, **smallest: Any) -> argparse.Namespace:
    """Parse the command line of a benchmark.

    Args:
        parser: its options.
        smallest: option → its default under ``--smallest``.
    """
    parser.add_argument("--smallest", action="store_true", help="try it at its smallest sizes; no targets, no results")
    if parser.parse_known_args()[0].smallest:
        os.environ[SMALLEST] = "1"
        parser.set_defaults(**smallest)
    return parser.parse_args()


def is_smallest() -> bool:
    """Whether only the smallest form of a benchmark is tried."""
    return SMALLEST in os.environ


def photos() -> Path | None:
    """The folder of hymenoptera (a few of each class and part, in the smallest form); None, and a line, without it."""
    folder = Path(os.environ.get("TL_BENCH_PHOTOS", ""), "hymenoptera")
    if os.environ.get("TL_BENCH_PHOTOS") and folder.is_dir():
        return _few(folder) if is_smallest() else folder
    print("no photographs: set TL_BENCH_PHOTOS to a folder with hymenoptera/{train,val}/{ants,bees}")
    return None


def _few(source: Path) -> Path:
    """A copy of the first photographs of each folder, until the process ends."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for each in sorted(source.glob("*/*")):
        place = folder / each.relative_to(source)
        place.mkdir(parents=True)
        for file in sorted(each.glob("*.jpg"))[:FEW]:
            shutil.copy(file, place)
    return folder


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
    """An environment whose caches lie in a folder, empty the first time; the smallest form keeps those it was given."""
    places = {"XDG_CACHE_HOME": "cache", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TL_DAGSTER_STORE": "known"}
    known = os.environ if is_smallest() else {}
    return {variable: known.get(variable, str(folder / name)) for variable, name in places.items()}


def command(function: Callable[..., Mapping[str, Any]], *arguments: Any) -> list[str]:
    """The command that calls a benchmark's function; the last line that it prints is what that returned, as JSON."""
    spec = sys.modules["__main__"].__spec__
    module = spec.name if function.__module__ == "__main__" and spec else function.__module__
    return [sys.executable, "-m", "benchmarks.common", module, function.__name__, json.dumps(arguments, default=str)]


def apart(
    function: Callable[..., Mapping[str, Any]], *arguments: Any, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Call a function in a process of its own; in the smallest form, in this one.

    Returns:
        Its own result, with ``process_seconds`` from its start to its end, and ``peak_mb`` of memory.
    """
    begun = time.perf_counter()
    if is_smallest():
        with mock.patch.dict(os.environ, environment):
            result = _call(function, json.loads(json.dumps(arguments, default=str)))
    else:
        process = subprocess.run(
            command(function, *arguments),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        result = json.loads(process.stdout.splitlines()[-1])
    result["process_seconds"] = time.perf_counter() - begun
    shown = {name: round(value, 4) if isinstance(value, float) else value for name, value in result.items()}
    print(f"{function.__name__}: {shown}", file=sys.stderr)
    return result


def _call(function: Callable[..., Mapping[str, Any]], arguments: Sequence[Any]) -> dict[str, Any]:
    result = function(*arguments)
    return {**result, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def prepare_stage(settings: Mapping[str, Any], store: str | Path, kind: "type[Stage]") -> "tuple[Stage, StageContext]":
    """A stage of a declared pipeline, and the context that Dagster would run it in."""
    from tl_dagster import ArtifactStore, Declaration
    from tl_dagster.graph.stage import StageContext
    from tl_dagster.runtime.progress import Progress

    if is_smallest():
        settings = {**settings, "backbone": {**settings.get("backbone", {}), "image_size": SIDE}}
    declaration, artifacts = Declaration.model_validate(settings), ArtifactStore(Path(store))
    current = {name: artifacts.get_current(declaration.name, name) for name in (*kind.inputs, kind.name)}
    inputs = {name: each.artifact for name, each in current.items() if each and name != kind.name}
    context = StageContext(artifacts, inputs, Progress(lambda line: None), current[kind.name])
    return kind(declaration, Path(store)), context


def run_stages(
    settings: Mapping[str, Any], store: str | Path, kinds: "Sequence[type[Stage]]"
) -> "list[Materialization]":
    """Run stages of a declared pipeline without Dagster, in order, with their checks; the materialization of each."""
    materializations = []
    for kind in kinds:
        stage, context = prepare_stage(settings, store, kind)
        materialization = stage.run(context)
        stage.run_checks(context, materialization)
        context.store.set_current(stage.declaration.name, stage.name, materialization)
        materializations.append(materialization)
    return materializations


def ingest(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """The stages before extraction; not timed."""
    from tl_dagster.graph.stages.augmented_splits import AugmentedSplits
    from tl_dagster.graph.stages.dataset import Dataset

    return {"rows": run_stages(settings, store, [Dataset, AugmentedSplits])[-1].artifact.summary.rows}


def open_engine(settings: dict[str, Any], store: str) -> "tuple[LocalEngine, pd.DataFrame]":
    """The engine that computes the declared features, and the table of views."""
    from tl_dagster.data.splits import read_views
    from tl_dagster.graph.engine import build_engine
    from tl_dagster.graph.stages.bottleneck_features import BottleneckFeatures

    stage, context = prepare_stage(settings, store, BottleneckFeatures)
    return build_engine(stage.declaration, context), read_views(context.inputs["augmented_splits"].path)


def extract(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """Fill the feature cache."""
    begun = time.perf_counter()
    engine, views = open_engine(settings, store)
    done = engine.compute_missing(views, engine.features.columns())
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "rate": done.views_per_second, "compiled": done.compiled, "computed": done.views}


def compile_network(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """Compile the network, also where that would not repay itself: its seconds, and whether it could be compiled."""
    import numpy as np

    engine, _ = open_engine(settings, store)
    runner, size = build_runner(engine), engine.features.backbone.size
    pixels = np.zeros((runner.batch_size, size, size, 3), np.uint8)
    runner(pixels)()
    begun = time.perf_counter()
    runner.consider_compiling(pixels, len(pixels), lambda line: None, always=True)
    return {"seconds": time.perf_counter() - begun, "compiled": runner.compiled}


def build_runner(engine: "LocalEngine") -> "InferenceRunner":
    """The network that gives the declared taps, as extraction runs it."""
    from tl_dagster.backbones.inference import InferenceRunner
    from tl_dagster.backbones.taps import build_extractor

    features, backbone = engine.features, engine.features.backbone
    keys = [column.key for column in features.columns()]
    taps = [(key["tap"], key["pooling"]) for key in keys]
    return InferenceRunner(
        lambda: build_extractor(features.load(), taps),
        keys,
        backbone.precision,
        backbone.mean,
        backbone.std,
        engine.batch_size,
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

    In the smallest form, the table only: its figures are not those of the benchmark.

    Args:
        name: of the benchmark.
        figures: None for what could not be measured.
        targets: of some figures.
        part: only a part of the benchmark ran: the other figures of this machine stay in the file.
    """
    if is_smallest():
        targets = {}
    else:
        figures = _write(name, figures, targets, part=part)
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


def _write(
    name: str, figures: dict[str, float | None], targets: dict[str, dict[str, float]], *, part: bool
) -> dict[str, float | None]:
    """Write the results of a benchmark; return all figures that then stand in the file."""
    path, here = RESULTS / f"{name}.json", machine()
    RESULTS.mkdir(exist_ok=True)
    if part and path.exists() and (earlier := json.loads(path.read_text()))["machine"] == here:
        figures = earlier["figures"] | {key: value for key, value in figures.items() if value is not None}
    result = {"name": name, "machine": here, "figures": figures, "targets": targets}
    path.write_text(json.dumps(result, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    MODULE, NAME, ARGUMENTS = sys.argv[1:]
    print(json.dumps(_call(getattr(importlib.import_module(MODULE), NAME), json.loads(ARGUMENTS))))
