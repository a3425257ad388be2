"""Runs all benchmarks, or the one that is named."""

import subprocess
import sys

NAMES = (
    "demo",
    "ingest",
    "manifest",
    "extraction",
    "precision",
    "incremental",
    "reuse",
    "commands",
    "crash",
    "accuracy",
    "finetune",
    "time_to_accuracy",
    "strategy",
    "promotion",
    "operations",
    "leaderboard",
    "lineage",
    "gpu",
    "load",
    "layout",
    "families",
)


def main() -> None:
    """Each benchmark in a process of its own; exits with 1 when one missed a target."""
    chosen = sys.argv[1:] or NAMES
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        sys.exit(f"no benchmark {unknown[0]}; there are: {', '.join(NAMES)}")
    results = [subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode for name in chosen]
    sys.exit(max(results))


if __name__ == "__main__":
    main()
