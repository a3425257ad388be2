"""The same work without transfer: networks with random weights, trained on the same splits, for the comparison."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_dagster.declaration import Declaration
from tl_dagster.graph.stage import Stage, StageContext
from tl_dagster.store.artifacts import Artifact, ArtifactSummary, Materialization
from tl_dagster.training.settings import ScratchBaseline as Settings

if TYPE_CHECKING:
    from tl_dagster.training.scratch_architectures import ScratchArchitecture

__all__ = ["ScratchBaseline"]

SCRATCH = "scratch.json"
NETWORK = "scratch_network"  # the artifacts of single networks, of which the asset's is put together
CURVES = "Training from scratch"


class ScratchBaseline(Stage):
    """The same images, splits and views, but random weights to begin with: what transfer learning gains."""

    name = "scratch_baseline"
    version = 3
    description = (
        "Networks trained from random weights on the same splits: the small convnet of Chollet's blog post and, "
        "if declared, the backbone's architecture."
    )
    kinds = frozenset({"pytorch"})
    inputs = ("dataset", "augmented_splits")
    gpu = True

    @classmethod
    def is_enabled(cls, declaration: Declaration) -> bool:
        """Only where it is declared."""
        return declaration.scratch_baseline is not None

    def settings(self) -> dict[str, Any]:
        """Return the declared baseline, and what it uses of augmentation and backbone."""
        augmentation, backbone = self.declaration.augmentation, self.declaration.backbone
        steps = augmentation.steps
        used = {
            **self._baseline.model_dump(mode="json"),
            "views": {"transforms": steps, "seed": augmentation.seed} if steps else {"distinct": augmentation.views},
            "resize": backbone.resize,
            "precision": backbone.precision,
        }
        if "backbone" in self._baseline.architectures:
            used["backbone"] = {"name": backbone.name, "image_size": backbone.image_size}
        return used

    @classmethod
    def describe_result(cls, summary: ArtifactSummary) -> str:
        """Return how good each network is on the validation images."""
        ending = "_validation_accuracy"
        scores = {name: value for name, value in summary.metrics.items() if name.endswith(ending)}
        shown = [f"{name.removesuffix(ending)} {value:.3f}" for name, value in scores.items()]
        return f"validation accuracy: {', '.join(shown)}"

    def versions(self, context: StageContext) -> dict[str, str]:
        """Only the views count: where the images lie does not."""
        return {"augmented_splits": context.inputs["augmented_splits"].data_version}

    def run(self, context: StageContext) -> Materialization:
        """Train once for the same images, views and settings."""
        from tl_dagster.training.scratch_architectures import declared_architectures

        architectures = declared_architectures(self._baseline, self.declaration.backbone)
        addresses = {each.name: self._address(context, each) for each in architectures}
        fingerprint = self.fingerprint(context, {**self.settings(), "networks": addresses})

        def write(folder: Path) -> ArtifactSummary:
            reused = all(context.store.find(NETWORK, address) for address in addresses.values())
            parts = {each.name: self._train(context, each, addresses[each.name]) for each in architectures}
            return self._gather(context, folder, parts, reused=reused)

        return self.find_or_build(context, fingerprint, write)

    @property
    def _baseline(self) -> Settings:
        return self.declaration.scratch_baseline or Settings()

    def _address(self, context: StageContext, architecture: "ScratchArchitecture") -> str:
        """Return the fingerprint of one network: another one that is declared beside it changes nothing."""
        others = {"architectures", "image_size"} | ({"backbone"} - {architecture.name})
        settings = {name: each for name, each in self.settings().items() if name not in others}
        resolved = architecture.resolved(self.declaration.augmentation, self.declaration.backbone.precision)
        return self.fingerprint(context, {**settings, "network": architecture.name, "resolved": resolved})

    def _train(self, context: StageContext, architecture: "ScratchArchitecture", address: str) -> Artifact:
        def write(folder: Path) -> ArtifactSummary:
            from tl_dagster.data.manifest import read_manifest
            from tl_dagster.data.splits import read_views
            from tl_dagster.training.checkpoints import Checkpoint
            from tl_dagster.training.scratch_model import ScratchJob, train_scratch_model

            job = ScratchJob(
                architecture,
                read_views(context.inputs["augmented_splits"].path),
                read_manifest(context.inputs["dataset"].path),
                self._baseline,
                self.declaration.augmentation,
                self.declaration.compute,
                self.declaration.backbone.precision,
                version=self.version,
                inputs=self.versions(context),
            )
            checkpoint = Checkpoint(context.store.layout.checkpoint(address), context.progress.log)
            return train_scratch_model(job, folder, checkpoint, context.progress)

        trained = context.store.find(NETWORK, address) or context.store.build(
            NETWORK,
            address,
            write,
            inputs=self.versions(context),
            settings=self.settings(),
            origin=context.run.describe(),
        )
        context.store.layout.checkpoint(address).unlink(missing_ok=True)
        return trained

    def _gather(
        self, context: StageContext, folder: Path, parts: Mapping[str, Artifact], *, reused: bool
    ) -> ArtifactSummary:
        """Copy the artifacts of single networks into this one."""
        from tl_dagster.reporting.curves import scratch_curves

        records = {name: dict(part.summary.metadata) for name, part in parts.items()}
        for name, part in parts.items():
            shutil.copytree(part.path, folder / name, ignore=shutil.ignore_patterns("artifact.json"))
        (folder / SCRATCH).write_text(json.dumps(records, indent=1))
        scratch_curves(folder / "curves.png", records)
        images = int(context.inputs["augmented_splits"].summary.metrics["train_images"])
        return ArtifactSummary(
            rows=images,
            computed=0 if reused else images,
            metrics={
                f"{name}_{key}": value for name, part in parts.items() for key, value in part.summary.metrics.items()
            },
            metadata={key: {name: record[key] for name, record in records.items()} for key in ("parameters", "epoch")},
            figures={CURVES: "curves.png"},
        )
