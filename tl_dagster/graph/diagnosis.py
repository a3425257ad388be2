"""What may be wrong with a machine, an instance and a store before a run fails of it: each with its mend."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from dagster._core.instance.config import PoolGranularity

from tl_dagster.graph.history import open_instance
from tl_dagster.graph.root import find_root
from tl_dagster.graph.runs import find_dead_runs, find_stray_slots
from tl_dagster.runtime.errors import InputError, first_line
from tl_dagster.runtime.hardware import has_gpu, has_gpu_device, is_torch_for_cpus, processors
from tl_dagster.store.artifacts import ArtifactStore
from tl_dagster.store.files import free_bytes

__all__ = ["Finding", "diagnose"]

PACKAGES = ("tl-dagster", "dagster", "torch", "torchvision", "timm", "pandas", "pyarrow", "albumentations")
OLDEST_PYTHON = (3, 11)
FREE_GB = 5.0
CLOCK_SECONDS = 5.0
HUBS = ("https://huggingface.co", "https://download.pytorch.org")
HUB_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """The state of one thing.

    Attributes:
        name: of the thing.
        state: "ok", "warning" (things work, but less well) or "failed".
        description: what was found.
        mend: what to do; "" where all is well.
    """

    name: str
    state: str
    description: str
    mend: str = ""


def diagnose() -> Iterator[Finding]:
    """Yield what was found, one thing after the other; nothing that goes wrong on the way ends it."""
    for name, look in LOOKS.items():
        try:
            yield look(name)
        except InputError as error:
            yield Finding(name, "failed", str(error))
        except Exception as error:  # a broken thing is a finding
            yield Finding(name, "failed", f"{type(error).__name__}: {first_line(error)}")


def _versions(name: str) -> Finding:
    found, missing = [f"Python {sys.version.split()[0]}"], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if sys.version_info < OLDEST_PYTHON:
        return Finding(name, "failed", ", ".join(found), "use Python 3.11 or newer")
    if missing:
        return Finding(name, "failed", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Finding(name, "ok", ", ".join(found))


def _home(name: str) -> Finding:
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        return Finding(name, "failed", "DAGSTER_HOME is not set", "set it to a folder that all processes see")
    if not Path(home, "dagster.yaml").is_file():
        return Finding(
            name, "warning", f"{home} has no dagster.yaml", "copy the project's: it limits the GPU and ends dead runs"
        )
    return Finding(name, "ok", home)


def _project(name: str) -> Finding:
    root = find_root()
    if root is None:
        return Finding(name, "warning", f"none in {Path.cwd()} or above it", "go to the project's folder")
    from tl_dagster.graph.project import find_project

    project = find_project()
    if problems := [problem.description for problem in project.problems]:
        return Finding(name, "failed", "; ".join(problems), "mend these; the other pipelines go on")
    return Finding(name, "ok", str(root))


def _store(name: str) -> Finding:
    store = ArtifactStore()
    if not store.root.exists() and find_root() is None:
        return Finding(name, "warning", f"{store.root} is not there yet", "go to the project, or set TL_DAGSTER_STORE")
    store.check_writable()
    free, ahead = free_bytes(store.root) / 1e9, _measure_clock(store.layout.work)
    if abs(ahead) > CLOCK_SECONDS:
        return Finding(name, "failed", f"the clock of its disk is {ahead:+.0f} s ahead of this machine's", "use NTP")
    if free < FREE_GB:
        return Finding(
            name, "warning", f"{store.root}: {free:.1f} GB free", "tl-dagster prune --artifacts, or a larger disk"
        )
    return Finding(name, "ok", f"{store.root} is writable; {free:,.0f} GB free; same clock as this machine")


def _measure_clock(folder: Path) -> float:
    """Return by how many seconds a disk is ahead: whether files are settled or stale is judged by their times."""
    probe = folder / f"clock-{os.getpid()}"
    probe.write_bytes(b"")
    try:
        return probe.stat().st_mtime - time.time()
    finally:
        probe.unlink()


def _gpu(name: str) -> Finding:
    if not has_gpu():
        if has_gpu_device() and is_torch_for_cpus():
            return Finding(
                name, "warning", "there is one, but this torch is for processors only", "install a CUDA build of torch"
            )
        return Finding(name, "ok", f"none; {processors()} processors")
    import torch

    if not torch.cuda.is_available():
        return Finding(name, "failed", "there is one, but torch cannot use it", "update the driver: see nvidia-smi")
    properties = torch.cuda.get_device_properties(0)
    return Finding(
        name, "ok", f"{torch.cuda.device_count()} × {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    )


def _compiler(name: str) -> Finding:
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        return Finding(
            name,
            "warning",
            "no C++ compiler: networks are not compiled",
            "apt-get install g++, or compute.compile: never",
        )
    return Finding(name, "ok", found)


def _hubs(name: str) -> Finding:
    away = [hub for hub in HUBS if not _answers(hub)]
    if away:
        return Finding(
            name,
            "warning",
            f"not reachable: {', '.join(away)}",
            "declare backbone.weights as a file, or set HTTPS_PROXY or HF_ENDPOINT",
        )
    return Finding(name, "ok", "reachable")


def _answers(url: str) -> bool:
    try:
        with urlopen(Request(url, method="HEAD"), timeout=HUB_SECONDS):  # noqa: S310  (one of two constants)
            return True
    except HTTPError:
        return True
    except OSError:
        return False


def _pools(name: str) -> Finding:
    with open_instance() as instance:
        pools = instance.get_concurrency_config().pool_config
        gpu = [each.limit for each in instance.event_log_storage.get_pool_limits() if each.name == "gpu"]
    limit = gpu[0] if gpu else pools.default_pool_limit
    mend = "copy concurrency.pools from the project's dagster.yaml: default_limit 1, granularity op"
    if limit is None:
        return Finding(name, "failed", "the pool gpu has no limit: GPU stages of two runs overlap", mend)
    if pools.pool_granularity is not PoolGranularity.OP:
        return Finding(name, "failed", "pools count runs, not steps: GPU stages of one run overlap", mend)
    return Finding(name, "ok", f"gpu: {limit} at a time")


def _runs(name: str) -> Finding:
    with open_instance() as instance:
        dead, held = len(find_dead_runs(instance)), len(find_stray_slots(instance))
    if dead or held:
        return Finding(
            name,
            "failed",
            f"{dead} whose process is gone are not marked as failed; {held} that ended hold slots of pools",
            "start any run, or dagster-daemon: either mends both",
        )
    return Finding(name, "ok", "none died unnoticed, and none that ended holds a slot")


def _daemon(name: str) -> Finding:
    with open_instance() as instance:
        statuses = instance.get_daemon_statuses(daemon_types=["SENSOR", "SCHEDULER"])
    if not all(status.healthy for status in statuses.values()):
        return Finding(
            name, "warning", "not running: schedules and sensors do not tick", "dagster dev, or dagster-daemon run"
        )
    return Finding(name, "ok", "running")


LOOKS: dict[str, Callable[[str], Finding]] = {
    "versions": _versions,
    "DAGSTER_HOME": _home,
    "project": _project,
    "store": _store,
    "GPU": _gpu,
    "compiler": _compiler,
    "model hubs": _hubs,
    "pools": _pools,
    "runs": _runs,
    "daemon": _daemon,
}
