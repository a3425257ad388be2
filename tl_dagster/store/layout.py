"""The layout of a store: the only module that knows where things lie in it.

Under one root::

    artifacts/<stage>/<fingerprint>/   written once, committed by one atomic rename; `artifact.json` describes it
    backbones/                         answers of processes that looked at a backbone, and where weights were last seen
    checkpoints/                       what a training that was killed resumes from
    features/                          the feature cache (see `tl_dagster.features.cache`)
    groups/                            which images were compared and grouped (see `tl_dagster.data.near_copies`)
    index/                             what was learnt of each source's files (see `tl_dagster.data.file_index`)
    registry/<pipeline>/<number>.json  which model was in service when, and why (see `tl_dagster.store.registry`)
    refs/<pipeline>/<asset>.json       the current artifact of each asset of a pipeline, and how it came about
    reports/<pipeline>/<fingerprint>.html   the report of each evaluation of a pipeline
    splits/                            which image was assigned to which split (see `tl_dagster.data.split_memory`)
    sources/                           local copies of sources (see `tl_dagster.data.source_cache`)
    tmp/                               work in progress; safe to delete when nothing runs
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["StoreLayout", "default_root"]


def default_root() -> Path:
    """Return ``TL_DAGSTER_STORE``, ``tl_dagster`` in ``DAGSTER_HOME``, or ``.tl_dagster`` in the working folder."""
    if store := os.environ.get("TL_DAGSTER_STORE"):
        return Path(store).absolute()
    home = os.environ.get("DAGSTER_HOME")
    return Path(home, "tl_dagster").absolute() if home else Path(".tl_dagster").absolute()


@dataclass(frozen=True)
class StoreLayout:
    """The paths in a store; nothing is created here.

    Attributes:
        root: the store's folder.
    """

    root: Path

    def artifact(self, stage: str, fingerprint: str) -> Path:
        """The folder of an artifact."""
        return self.artifacts(stage) / fingerprint

    def artifacts(self, stage: str) -> Path:
        """The folder of all artifacts of a stage."""
        return self.root / "artifacts" / stage

    def all_artifacts(self) -> Iterator[Path]:
        """The descriptions of all artifacts of all stages."""
        return (self.root / "artifacts").glob("*/*/artifact.json")

    def current(self, pipeline: str, asset: str) -> Path:
        """The file that names the current artifact of an asset."""
        return self.records(pipeline) / f"{asset}.json"

    def pipelines(self) -> list[str]:
        """The names of all pipelines of which something was materialized, sorted."""
        return sorted(path.name for path in (self.root / "refs").glob("*"))

    def assets(self, pipeline: str) -> list[str]:
        """The names of all assets of a pipeline that were materialized, sorted."""
        return sorted(path.stem for path in self.records(pipeline).glob("*.json"))

    def report(self, pipeline: str, fingerprint: str) -> Path:
        """The report of a pipeline on the evaluation under a fingerprint."""
        return self.reports / pipeline / f"{fingerprint}.html"

    @property
    def reports(self) -> Path:
        """The folder of all pipelines' reports."""
        return self.root / "reports"

    def records(self, pipeline: str) -> Path:
        """The folder of the files that name the current artifacts of a pipeline."""
        return self.root / "refs" / pipeline

    def registry(self, pipeline: str) -> Path:
        """The folder of the decisions on which model of a pipeline is in service."""
        return self.root / "registry" / pipeline

    def checkpoint(self, fingerprint: str) -> Path:
        """The file that the training of an artifact resumes from after a kill."""
        return self.checkpoints / f"{fingerprint}.safetensors"

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints."""
        return self.root / "checkpoints"

    @property
    def features(self) -> Path:
        """The folder of the feature cache."""
        return self.root / "features"

    @property
    def source_copies(self) -> Path:
        """The folder of local copies of sources."""
        return self.root / "sources"

    def file_index(self, name: str) -> Path:
        """The folder of what was learnt of one source's files."""
        return self.root / "index" / name

    def listing(self, index: str, name: str) -> Path:
        """The file that names the dataset artifact of a listing of a source that was seen before."""
        return self.file_index(index) / "seen" / name

    def group_registry(self, name: str) -> Path:
        """The folder of the groups of near copies of one source."""
        return self.root / "groups" / name

    def split_memory(self, name: str) -> Path:
        """The folder of what the images of one source were assigned to."""
        return self.root / "splits" / name

    def answer(self, name: str) -> Path:
        """The file of a kept answer of a process that looked at a backbone or at transforms."""
        return self.root / "backbones" / f"{name}.json"

    def weights(self, sha256: str) -> Path:
        """The file that says where weights of this digest were last seen on this machine."""
        return self.root / "backbones" / "weights" / f"{sha256}.json"

    @property
    def work(self) -> Path:
        """The folder of work in progress."""
        return self.root / "tmp"
