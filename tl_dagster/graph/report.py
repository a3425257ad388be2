"""The report of a pipeline's evaluation: the artifact's content, with the pipeline's name, date, settings and links."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tl_dagster.declaration import Declaration
from tl_dagster.evaluation.results import METRICS
from tl_dagster.graph.stage import RunInfo
from tl_dagster.reporting.evaluation_report import ReportHead, render_evaluation
from tl_dagster.runtime.errors import redact_settings
from tl_dagster.runtime.settings import flatten
from tl_dagster.store.artifacts import Artifact, ArtifactStore
from tl_dagster.store.files import write_atomically

__all__ = ["write_report"]

WIDTH = 10_000  # a URL that is folded would not be known for one


def write_report(
    declaration: Declaration, store: ArtifactStore, evaluation: Artifact, inputs: Mapping[str, Path], run: RunInfo
) -> Path:
    """Write the report, and return its file.

    Args:
        declaration: the pipeline's.
        store: where the report goes.
        evaluation: the artifact.
        inputs: asset → folder of the artifact that was evaluated, or that it was made from.
        run: that materializes it.

    Raises:
        DiskError: the store cannot be written.
    """
    import yaml

    path = store.layout.report(declaration.name, evaluation.fingerprint)
    now = datetime.now().astimezone()
    declared = declaration.model_dump(mode="json", exclude_defaults=True, exclude={"name", "description"})
    declared, everything = redact_settings(declared), redact_settings(declaration.model_dump(mode="json"))
    places = {"metrics.json: every number of this report": evaluation.path / METRICS, **_name_folders(inputs)}
    head = ReportHead(
        pipeline=declaration.name,
        byline=[
            *([declaration.description] if declaration.description else []),
            f"{now:%Y-%m-%d %H:%M %Z}",
            f"run {run.run_id[:8]}",
            *([f"commit {run.commit}"] if run.commit else []),
        ],
        settings=[(name, _show(value)) for name, value in flatten(declared)],
        all_settings=yaml.safe_dump(everything, sort_keys=False, allow_unicode=True, width=WIDTH),
        # Relative: a store that was copied or is mounted elsewhere has whole links too.
        links=[(text, Path(os.path.relpath(place, path.parent)).as_posix()) for text, place in places.items()],
    )
    write_atomically(path, render_evaluation(evaluation.path, head).encode())
    return path


def _name_folders(inputs: Mapping[str, Path]) -> dict[str, Path]:
    return {f"{name}: the artifact": folder for name, folder in inputs.items()}


def _show(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
