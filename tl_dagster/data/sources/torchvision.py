"""A data set that torchvision downloads by name, with its own checksums."""

import inspect
import io
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tl_dagster.data.source_cache import SourceContext
from tl_dagster.data.sources.base import ImageSource
from tl_dagster.data.split_names import split_of
from tl_dagster.data.tar_files import tar_members, write_tar
from tl_dagster.runtime.errors import InputError, suggest
from tl_dagster.runtime.libraries import import_torchvision
from tl_dagster.store.files import writing

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["TorchvisionSource"]

STAMP = "kept"  # of every image: a published data set does not change


class TorchvisionSource(ImageSource):
    """A labelled data set of torchvision, such as FashionMNIST, CIFAR10, Flowers102 or OxfordIIITPet.

    torchvision downloads it once and checks it; its images are then stored losslessly in a tar file of the store.
    """

    kind: Literal["torchvision"]
    name: str = Field(description="Name of the class in torchvision.datasets.")
    options: dict[str, str | int | bool] = Field({}, description="Further arguments of that class.")

    def where(self, context: SourceContext) -> str:
        """Return the data set's name."""
        return f"torchvision.datasets.{self.name}"

    def signature(self, context: SourceContext) -> object:
        """Return the declaration: a published data set does not change."""
        return self.model_dump(mode="json")

    def listing(self, context: SourceContext) -> "pd.DataFrame":
        """Return one row per image; see :meth:`ImageSource.listing`. The data set's own parts are the splits."""
        from tl_dagster.data.listing import build_listing

        identity = (self.name, repr(sorted(self.options.items())))
        tar = context.cache.path("torchvision", *identity, name=f"{self.name}.tar")
        downloads = str(context.cache.folder / "torchvision")
        context.cache.file(tar, lambda file: write_tar(file, self._images(downloads)))
        members = list(tar_members(tar, STAMP, context.cache))
        names = [member.path.split("/") for member in members]
        return build_listing(
            {
                "uri": [member.uri for member in members],
                "label": [bytes.fromhex(label).decode() for _, label, _ in names],
                "split": [split_of(part) for part, _, _ in names],
                "stamp": STAMP,
            }
        )

    def _images(self, downloads: str) -> Iterator[tuple[str, bytes]]:
        """Yield the member name (part/label in hexadecimal/number) and PNG bytes of each image of the data set."""
        datasets = import_torchvision().datasets
        dataset = getattr(datasets, self.name, None)
        if not inspect.isclass(dataset) or not issubclass(dataset, datasets.VisionDataset):
            raise InputError(
                f"source.name: torchvision has no data set '{self.name}': {suggest(self.name, datasets.__all__)}"
            )
        parts = [("all", {})] if {"split", "train"} & set(self.options) else _parts(dataset)
        for part, arguments in parts:
            samples, count = self._load(dataset, {**arguments, **self.options}, downloads)
            classes = getattr(samples, "classes", None)
            for number in range(count):
                image, label = self._split_sample(samples[number], classes)
                buffer = io.BytesIO()
                image.save(buffer, "PNG", compress_level=1)
                # Labels may hold any character; hexadecimal ones fit every member name.
                yield f"{part}/{label.encode().hex()}/{number:07d}.png", buffer.getvalue()

    def _split_sample(self, sample: Any, classes: Any) -> tuple[Any, str]:
        """Return the image of a sample, and the name of its class."""
        from PIL import Image

        try:
            image, target = sample
            if not isinstance(image, Image.Image):
                raise TypeError(type(image).__name__)
            number = None if isinstance(target, str) else operator.index(target)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"source.name: torchvision.datasets.{self.name} is not a set of images with one class each ({error})"
            ) from error
        return image, str(target if number is None else number if classes is None else classes[number])

    def _load(self, dataset: Any, arguments: dict[str, Any], folder: str) -> tuple[Any, int]:
        """Return the data set, downloaded into a folder, and its number of samples."""
        if "download" in inspect.signature(dataset).parameters:
            arguments["download"] = True
        try:
            with writing(Path(folder)):
                samples = dataset(folder, **arguments)
            return samples, len(samples)
        except (OSError, RuntimeError, TypeError, ValueError, ImportError) as error:
            message = " ".join(str(error).split())
            raise InputError(
                f"source.name: torchvision.datasets.{self.name} cannot be loaded: {message}; check the network and "
                f"`options`, or put its files into {folder} yourself"
            ) from error


def _parts(dataset: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the parts of a data set and the arguments that choose them, by the way in which its class names them."""
    parameters = inspect.signature(dataset).parameters
    if "train" in parameters:
        return [("train", {"train": True}), ("test", {"train": False})]
    if "split" not in parameters:
        return [("all", {})]
    described = [parameters["split"].annotation, dataset.__doc__ or "", getattr(dataset, "_VALID_SPLITS", "")]
    text = "".join(map(str, described))
    names = ("train", "trainval", "val", "valid", "test")
    known = [name for name in names if f'"{name}"' in text or f"'{name}'" in text]
    if "trainval" in known:  # it holds the others but for the test part
        known = [name for name in known if name in ("trainval", "test")]
    return [("train" if name == "trainval" else name, {"split": name}) for name in known]
