"""The same work without transfer: networks with random weights, trained on the same splits, for the comparison."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_dagster.backbones.description import BackboneInfo, describe_backbone
from tl_dagster.backbones.settings import Backbone
from tl_dagster.data.augmentation import Augmenter, transforms
from tl_dagster.data.decoding import DECODER_VERSION, Resize
from tl_dagster.data.labels import class_indices, class_names
from tl_dagster.data.manifest import read_manifest
from tl_dagster.data.splits import read_views
from tl_dagster.data.views import View, views_to_draw
from tl_dagster.declaration import Declaration
from tl_dagster.features.loading import Loader
from tl_dagster.graph.stage import Stage, StageContext
from tl_dagster.models.predictions import write_predictions
from tl_dagster.reporting.curves import scratch_curves
from tl_dagster.runtime.hardware import has_gpu, resolve_precision
from tl_dagster.store.artifacts import Artifact, ArtifactSummary, Materialization
from tl_dagster.training.feature_batches import build_targets
from tl_dagster.training.settings import ScratchBaseline as Settings

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from tl_dagster.training.scratch import Examples


__all__ = ["ScratchBaseline"]

SCRATCH, WEIGHTS = "scratch.json", "model.safetensors"
NETWORK = "scratch_network"  # the artifacts of single networks, of which the asset's is put together
CURVES = "Training from scratch"


@dataclass(frozen=True)
class ScratchNetwork:
    """A network to train.

    Attributes:
        name: as declared, and its folder in the artifact.
        resize: from file to its input.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        build: classes → the network with random weights.
    """

    name: str
    resize: Resize
    mean: Sequence[float]
    std: Sequence[float]
    build: "Callable[[int], torch.nn.Module]"


@dataclass(frozen=True)
class ScratchImages:
    """Pixels by row of the table of views; see :class:`tl_dagster.training.scratch.PixelSource`.

    Attributes:
        views: of each table row.
        loader: draws them.
        distinct: how many views an image has; None: every epoch has new ones.
    """

    views: list[View]
    loader: Loader
    distinct: int | None

    def __call__(self, rows: "np.ndarray", epoch: int = 0) -> "Iterator[np.ndarray]":
        """Batches of table rows' own views, or of an epoch's."""
        wanted = [self.views[row] for row in rows]
        if epoch:
            index = (epoch - 1) % self.distinct if self.distinct else epoch - 1
            wanted = [replace(view, index=index) for view in wanted]
        return self.loader.batches(wanted)


class ScratchBaseline(Stage):
    """What transfer learning is worth: the same images, splits and views, but random weights to begin with."""

    name = "scratch_baseline"
    version = 1
    description = (
        "Networks trained from random weights on the same splits: the small convnet of Chollet's blog post and, "
        "if declared, the backbone's architecture."
    )
    kinds = frozenset({"pytorch"})
    inputs = ("dataset", "augmented_splits")
    gpu = True

    @classmethod
    def is_enabled(cls, declaration: Declaration) -> bool:
        """Only where it is asked for."""
        return declaration.scratch_baseline is not None

    def settings(self) -> dict[str, Any]:
        """The declared baseline, and what it uses of augmentation and backbone."""
        augmentation, backbone = self.declaration.augmentation, self.declaration.backbone
        drawn = transforms(augmentation)
        used = {
            **self._baseline.model_dump(mode="json"),
            "views": {"transforms": drawn, "seed": augmentation.seed} if drawn else {"distinct": augmentation.views},
            "resize": backbone.resize,
            "precision": backbone.precision,
        }
        if "backbone" in self._baseline.architectures:
            used["backbone"] = {"name": backbone.name, "image_size": backbone.image_size}
        return used

    def versions(self, work: StageContext) -> dict[str, str]:
        """Only the views count: where the images lie does not."""
        return {"augmented_splits": work.inputs["augmented_splits"].data_version}

    def run(self, work: StageContext) -> Materialization:
        """Trained once for the same images, views and settings."""
        networks = self._networks()
        addresses = {each.name: self._address(work, each) for each in networks}
        fingerprint = self.fingerprint(work, {**self.settings(), "networks": addresses})
        return self.find_or_build(work, fingerprint, lambda folder: self._gather(work, folder, networks, addresses))

    def _address(self, work: StageContext, network: ScratchNetwork) -> str:
        """The fingerprint of one network: another one that is declared beside it changes nothing."""
        others = {"architectures", "image_size"} | ({"backbone"} - {network.name})
        settings = {name: each for name, each in self.settings().items() if name not in others}
        resolved = {
            "decode": DECODER_VERSION,
            "precision": resolve_precision(self.declaration.backbone.precision),
            "view": Augmenter(self.declaration.augmentation).identity("", 1),  # transforms, seed and libraries
            "input": [asdict(network.resize), network.mean, network.std],
        }
        return self.fingerprint(work, {**settings, "network": network.name, "resolved": resolved})

    @property
    def _baseline(self) -> Settings:
        return self.declaration.scratch_baseline or Settings()

    def _networks(self) -> list[ScratchNetwork]:
        """The declared networks, each once."""
        backbone, size = self.declaration.backbone, self._baseline.image_size
        square = Resize(size, backbone.resize, crop_fraction=1.0, interpolation="bicubic")
        known = {
            "convnet": ScratchNetwork("convnet", square, [0.0] * 3, [1.0] * 3, lambda classes: _convnet(size, classes)),
            "backbone": _architecture(backbone),
        }
        return [known[name] for name in dict.fromkeys(self._baseline.architectures)]

    def _gather(
        self, work: StageContext, folder: Path, networks: list[ScratchNetwork], addresses: Mapping[str, str]
    ) -> ArtifactSummary:
        """Train what was not trained yet, each network to an artifact of its own, and copy all into this one."""
        told: dict[str, dict[str, Any]] = {}
        metrics: dict[str, float] = {}
        reused = all(work.store.find(NETWORK, address) for address in addresses.values())
        for network in networks:
            found = self._trained(work, network, addresses[network.name])
            shutil.copytree(found.path, folder / network.name, ignore=shutil.ignore_patterns("artifact.json"))
            told[network.name] = dict(found.outcome.metadata)
            metrics |= {f"{network.name}_{name}": value for name, value in found.outcome.metrics.items()}
        (folder / SCRATCH).write_text(json.dumps(told, indent=1))
        scratch_curves(folder / "curves.png", told)
        images = int(work.inputs["augmented_splits"].outcome.metrics["train_images"])
        parameters = {name: each["parameters"] for name, each in told.items()}
        metadata = {"parameters": parameters, "epoch": {name: each["epoch"] for name, each in told.items()}}
        computed = 0 if reused else images
        return ArtifactSummary(
            rows=images, computed=computed, metrics=metrics, metadata=metadata, figures={CURVES: "curves.png"}
        )

    def _trained(self, work: StageContext, network: ScratchNetwork, address: str) -> Artifact:
        found = work.store.find(NETWORK, address) or work.store.build(
            NETWORK,
            address,
            lambda folder: self._train(work, folder, network, address),
            inputs=self.versions(work),
            settings=self.settings(),
        )
        work.store.checkpoint(address).unlink(missing_ok=True)
        return found

    def _train(self, work: StageContext, folder: Path, network: ScratchNetwork, address: str) -> ArtifactSummary:
        """Train one network, and write its weights and predictions."""
        import torch
        from safetensors.torch import save_file

        from tl_dagster.backbones.inference import select_device
        from tl_dagster.training.scratch import FromPixels, predict, train

        table = read_views(work.inputs["augmented_splits"].path)
        table = table[(table["split"] != "train") | (table["view"] == 0)].reset_index(drop=True)
        views = views_to_draw(table, read_manifest(work.inputs["dataset"].path))
        settings, classes = self._baseline, class_names(table)
        precision, kept = resolve_precision(self.declaration.backbone.precision), work.store.checkpoint(address)
        torch.manual_seed(settings.seed)
        model = FromPixels(network.build(len(classes)), network.mean, network.std).to(select_device())
        parameters = sum(parameter.numel() for parameter in model.parameters())
        work.progress.log(f"{network.name}: {parameters:,} parameters, {network.resize.size} pixels, {precision}")
        with self._loader(network.resize, len(views) * settings.epochs) as loader:
            images, examples = ScratchImages(views, loader, self._distinct()), _examples(table, classes)
            trained = train(model, images, examples, settings, precision, kept, work.progress)
            rows = (table["split"] != "train").to_numpy().nonzero()[0]
            logits = predict(model, images, rows, precision).numpy()
        metrics = write_predictions(folder, table.iloc[rows], classes, logits)
        save_file({name: each.cpu().contiguous() for name, each in model.state_dict().items()}, folder / WEIGHTS)
        told = {
            "seconds": round(trained.seconds, 3),
            "parameters": parameters,
            "epoch": trained.epoch,
            "history": trained.history,
        }
        return ArtifactSummary(
            rows=len(examples.train),
            computed=len(examples.train),
            metrics={"validation_accuracy": metrics["validation_accuracy"], "seconds": round(trained.seconds, 1)},
            metadata=told,
        )

    def _loader(self, resize: Resize, work: int) -> Loader:
        compute, gpu = self.declaration.compute, has_gpu()
        return Loader(
            resize,
            Augmenter(self.declaration.augmentation),
            batch_size=self._baseline.batch_size,
            workers=compute.workers,
            work=work,
            yielding=not gpu,
        )

    def _distinct(self) -> int | None:
        return None if transforms(self.declaration.augmentation) else self.declaration.augmentation.views


def _convnet(size: int, classes: int) -> "torch.nn.Module":
    from tl_dagster.training.scratch import convnet

    return convnet(size, classes)


def _architecture(backbone: Backbone) -> ScratchNetwork:
    info = describe_backbone(backbone)
    resize, (mean, std) = info.resize(backbone), (info.preprocess[name] for name in ("mean", "std"))
    return ScratchNetwork("backbone", resize, mean, std, lambda classes: _untrained(info, resize.size, classes))


def _untrained(info: BackboneInfo, size: int, classes: int) -> "torch.nn.Module":
    """A backbone with random weights and a classifier: images (N, 3, size, size) → logits (N, classes)."""
    from tl_dagster.training.scratch import UntrainedBackbone

    return UntrainedBackbone(info, size, classes)


def _examples(table: "pd.DataFrame", classes: list[str]) -> "Examples":
    import numpy as np

    from tl_dagster.training.scratch import Examples

    train = np.flatnonzero(table["split"] == "train")
    held_out = np.flatnonzero(table["split"] == "validation")
    return Examples(
        train=train,
        targets=build_targets(table.iloc[train], classes),
        validation=held_out,
        labels=class_indices(table["label"].iloc[held_out], classes),
        images=np.unique(table["id"].to_numpy()[held_out], return_inverse=True)[1],
    )
