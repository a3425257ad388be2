"""A data set that torchvision downloads by name, with its own checksums."""

import inspect
import io
import operator
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import Field

from tl_dagster.data.source_cache import SourceCache, SourceContext, write_tar
from tl_dagster.data.sources.archive import tar_members
from tl_dagster.data.sources.base import SPLITS, ImageSource, build_listing
from tl_dagster.runtime.errors import InputError, suggest

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["TorchvisionSource"]


class TorchvisionSource(ImageSource):
    """A labelled data set of torchvision, such as FashionMNIST, CIFAR10, Flowers102 or OxfordIIITPet.

    torchvision downloads it once and checks it; its images are then kept losslessly in a tar file of the store.
    """

    kind: Literal["torchvision"]
    name: str = Field(description="Name of the class in torchvision.datasets.")
    options: dict[str, str | int | bool] = Field({}, description="Further arguments of that class.")

    def where(self, place: SourceContext) -> str:
        """The data set's name."""
        return f"torchvision.datasets.{self.name}"

    def signature(self, place: SourceContext) -> object:
        """A published data set does not change."""
        return self.model_dump(mode="json")

    def listing(self, place: SourceContext) -> "pd.DataFrame":
        """See :meth:`ImageSource.listing`; the data set's own parts are the given splits."""
        import pandas as pd

        identity = (self.name, repr(sorted(self.options.items())))
        tar = place.kept.path("torchvision", *identity, name=f"{self.name}.tar")
        place.kept.file(tar, lambda file: self._unpack(file, place.kept))
        rows: list[tuple[str, str, str | None]] = []
        for member, address, _, _ in tar_members(tar, "kept", place.kept):
            part, label, _ = member.split("/")
            rows.append((address, bytes.fromhex(label).decode(), SPLITS.get(part)))
        return build_listing(pd.DataFrame(rows, columns=["uri", "label", "split"]).assign(stamp="kept"))

    def _unpack(self, file: IO[bytes], kept: SourceCache) -> None:
        from tl_dagster.runtime.libraries import import_torchvision

        datasets = import_torchvision().datasets
        make = getattr(datasets, self.name, None)
        if not inspect.isclass(make) or not issubclass(make, datasets.VisionDataset):
            raise InputError(
                f"source.name: torchvision has no data set '{self.name}': {suggest(self.name, datasets.__all__)}"
            )

        def images() -> Iterator[tuple[str, bytes]]:
            parts = [("all", {})] if {"split", "train"} & set(self.options) else _parts(make)
            for part, arguments in parts:
                whole, count = self._made(make, {**arguments, **self.options}, str(kept.folder / "torchvision"))
                names = getattr(whole, "classes", None)
                for number in range(count):
                    picture, label = self._sample(whole[number], names)
                    buffer = io.BytesIO()
                    picture.save(buffer, "PNG", compress_level=1)
                    # Labels may hold any character; hexadecimal ones fit every member name.
                    yield f"{part}/{label.encode().hex()}/{number:07d}.png", buffer.getvalue()

        write_tar(file, images())

    def _sample(self, sample: Any, names: Any) -> tuple[Any, str]:
        """The picture of a sample, and the name of its class."""
        from PIL import Image

        try:
            picture, target = sample
            if not isinstance(picture, Image.Image):
                raise TypeError(type(picture).__name__)
            number = None if isinstance(target, str) else operator.index(target)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"source.name: torchvision.datasets.{self.name} is no set of images with one class each ({error})"
            ) from error
        return picture, str(target if number is None else number if names is None else names[number])

    def _made(self, make: Any, arguments: dict[str, Any], folder: str) -> tuple[Any, int]:
        """The data set, and how many samples it has."""
        if "download" in inspect.signature(make).parameters:
            arguments["download"] = True
        try:
            whole = make(folder, **arguments)
            return whole, len(whole)
        except (OSError, RuntimeError, TypeError, ValueError, ImportError) as error:
            said = " ".join(str(error).split())
            raise InputError(
                f"source.name: torchvision.datasets.{self.name} cannot be loaded: {said}; check the network and "
                f"`options`, or put its files into {folder} yourself"
            ) from error


def _parts(make: Any) -> list[tuple[str, dict[str, Any]]]:
    """The parts of a data set, by the way in which its class names them."""
    parameters = inspect.signature(make).parameters
    if "train" in parameters:
        return [("train", {"train": True}), ("test", {"train": False})]
    if "split" in parameters:
        said = str(parameters["split"].annotation) + (make.__doc__ or "") + str(getattr(make, "_VALID_SPLITS", ""))
        known = [
            name for name in ("train", "trainval", "val", "valid", "test") if f'"{name}"' in said or f"'{name}'" in said
        ]
        if "trainval" in known:  # it holds the others but for the test part
            known = [name for name in known if name in ("trainval", "test")]
        return [("train" if name == "trainval" else name, {"split": name}) for name in known]
    return [("all", {})]
