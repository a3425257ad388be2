"""Names and tags of a pipeline's jobs and runs, by which they are found and filtered in the UI."""

import subprocess
from functools import cache
from pathlib import Path

from dagster._core.storage.tags import MAX_RUNTIME_SECONDS_TAG, PRIORITY_TAG

from tl_dagster.declaration import Runs

__all__ = ["COMMIT", "GPU_TAG", "LEADERBOARD_JOB", "PIPELINE", "TRIGGER", "leaderboard_job", "limit_tags", "run_tags"]

GPU_TAG = {"tl_dagster/device": "gpu"}  # of assets and steps of the pool gpu
LEADERBOARD_JOB = "__leaderboard"  # how the names of jobs beside pipelines end
PIPELINE, COMMIT, TRIGGER = "tl_dagster/pipeline", "tl_dagster/commit", "tl_dagster/trigger"


def run_tags(pipeline: str, root: Path, trigger: str = "manual") -> dict[str, str]:
    """Return the tags of a pipeline's run: pipeline, commit and trigger.

    Args:
        pipeline: its name.
        root: the project's folder; outside of a git repository there is no commit.
        trigger: what starts the run: "manual", "schedule", "on_change" or "command".
    """
    commit = _describe_commit(root)
    return {PIPELINE: pipeline, TRIGGER: trigger, **({COMMIT: commit} if commit else {})}


def leaderboard_job(pipeline: str) -> str:
    """Return the name of the job of a pipeline's leaderboard: not that of its asset, which Dagster gives to its op."""
    return f"{pipeline}{LEADERBOARD_JOB}"


def limit_tags(runs: Runs) -> dict[str, str]:
    """Return the tags by which Dagster queues and ends runs."""
    priority = {PRIORITY_TAG: str(runs.priority)} if runs.priority else {}
    minutes = runs.max_runtime_minutes
    return priority | ({MAX_RUNTIME_SECONDS_TAG: str(round(minutes * 60))} if minutes else {})


@cache
def _describe_commit(root: Path) -> str:
    """Return the commit of a folder, with "-dirty" behind it where tracked files were changed; "" without one."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
