"""What the benchmarks share: the machine, the form of the results, and the verdict on the targets."""

import json
import platform
import sys
from pathlib import Path
from typing import Any

__all__ = ["finish", "machine"]

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """The machine that a figure belongs to."""
    import torch

    from tl_dagster.features.hardware import processors

    cpu = next(
        (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": processors(), "gpu": gpu, "torch": torch.__version__}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def finish(name: str, figures: dict[str, float | None], targets: dict[str, dict[str, float]]) -> None:
    """Print the table, write ``results/<name>.json``, and exit with 1 when a target is missed."""
    RESULTS.mkdir(exist_ok=True)
    result = {"name": name, "machine": machine(), "figures": figures, "targets": targets}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
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
