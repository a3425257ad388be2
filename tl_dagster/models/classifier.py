"""A trained image classifier as one object: loaded from its own folder alone, it predicts and can be explained."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image

from tl_dagster.backbones.inference import normalize, per_channel
from tl_dagster.data.augmentation import Augmenter
from tl_dagster.data.decoding import DECODER_VERSION, Resize, image_id
from tl_dagster.data.files import local_uri, read
from tl_dagster.data.splits import held_out_views
from tl_dagster.models.bundle import copy_bundle, read_state
from tl_dagster.models.calibration import averaged_softmax
from tl_dagster.models.export import export_model
from tl_dagster.models.predictors import FeaturePredictor, Predictor, build_predictor
from tl_dagster.models.spec import MODEL, ModelSpec, read_spec
from tl_dagster.runtime.errors import InputError, printable
from tl_dagster.runtime.hardware import processors
from tl_dagster.store.layout import StoreLayout, default_root

__all__ = ["ImageClassifier", "ImageLike"]

ImageLike = str | Path | np.ndarray | Image.Image
BLOCK = 64  # images decoded at a time


@dataclass(frozen=True)
class ImageClassifier:
    """A trained model, complete in itself: nothing about it is looked up in a pipeline's declaration.

    Attributes:
        folder: where it was loaded from.
        spec: its description.
        predictor: computes logits from pixels.

    Example::

        classifier = ImageClassifier.load("exported/flowers")
        classifier.predict(["photos/1.jpg"])  # [{"daisy": 0.97, "tulip": 0.03}]
    """

    folder: Path
    spec: ModelSpec
    predictor: Predictor

    @classmethod
    def load(cls, folder: str | Path, store: Path | None = None) -> Self:
        """Load a model from its folder: an artifact of a store, or what :meth:`save` wrote.

        Args:
            folder: the model's.
            store: root of the store that may know where the backbone's weights are; the default one when not given.

        Raises:
            InputError: a field is missing or wrong, a file is missing, cut short, changed or not safetensors, or the
                backbone's file is not on this machine; the message names it.
        """
        folder = Path(folder)
        spec = read_spec(folder)
        if spec.decoder != DECODER_VERSION:
            raise InputError(
                f"{folder / MODEL}: decoder {spec.decoder}: this version of tl-dagster decodes with {DECODER_VERSION}, "
                "and would show the network other pixels; use the version that trained the model"
            )
        state = read_state(folder, spec)
        return cls(folder, spec, build_predictor(folder, spec, state, StoreLayout(store or default_root())))

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the outputs."""
        return self.spec.classes

    def predict(self, images: Sequence[ImageLike]) -> list[dict[str, float]]:
        """Return calibrated probabilities by class name, one dictionary per image.

        Args:
            images: paths or addresses of files, uint8 arrays (height, width, 3) or (height, width), or Pillow images.

        Raises:
            InputError: an image cannot be read or decoded; the message names it.
        """
        return [dict(zip(self.classes, row, strict=True)) for row in self.predict_probabilities(images).tolist()]

    def predict_probabilities(self, images: Sequence[ImageLike]) -> np.ndarray:
        """Return calibrated probabilities: float64 (n, classes), rows summing to one; see :meth:`predict`."""
        if not len(images):
            return np.zeros((0, len(self.classes)))
        logits = np.concatenate([self.predictor.logits(pixels) for pixels in self._batches(images)])
        return averaged_softmax(logits, np.repeat(np.arange(len(images)), len(self._views)))

    def features(self, images: Sequence[ImageLike]) -> np.ndarray:
        """Return the frozen backbone's features of the plain views of images: (n, D), as the feature cache holds them.

        Raises:
            InputError: an image cannot be read or decoded, or the model was trained from random weights.
        """
        if not isinstance(self.predictor, FeaturePredictor):
            raise InputError(f"{self.folder} was trained from random weights: it has no features")
        return self.predictor.features(np.stack([self._decode(image)[0] for image in images]))

    def normalized(self, images: Sequence[ImageLike]) -> torch.Tensor:
        """Return the plain views of images as :attr:`network` reads them: float32 (n, 3, size, size)."""
        pixels = [torch.from_numpy(np.array(self._decode(image)[0])) for image in images]
        return normalize(torch.stack(pixels), per_channel(self.spec.mean), per_channel(self.spec.std))

    @cached_property
    def network(self) -> torch.nn.Module:
        """The whole model in evaluation mode, for explanations: normalized images (n, 3, size, size) → logits."""
        return self.predictor.network()

    def save(self, folder: str | Path, *, with_backbone: bool = False) -> None:
        """Copy the model into a folder.

        Args:
            folder: created where it does not exist.
            with_backbone: the file of the backbone's pre-trained weights too: the folder then needs nothing else.

        Raises:
            InputError: the folder cannot be written.
        """
        copy_bundle(self.folder, Path(folder), self.predictor.weights if with_backbone else None)

    def export(self, folder: str | Path, format: str = "bundle") -> None:
        """Write the model in a format; see :func:`tl_dagster.models.export.list_formats`.

        Args:
            folder: created where it does not exist.
            format: its name.

        Raises:
            InputError: there is no such format, or the folder cannot be written.
        """
        export_model(self, Path(folder), format)

    @cached_property
    def _views(self) -> list[int]:
        return held_out_views(self.spec.augmentation)

    @cached_property
    def _resize(self) -> Resize:
        return Resize(**self.spec.resize.model_dump())

    def _batches(self, images: Sequence[ImageLike]) -> Iterator[np.ndarray]:
        """Yield the views of all images in order, a full batch at a time: uint8 (n, size, size, 3)."""
        augmenter, size = Augmenter(self.spec.augmentation), self.spec.batch_size
        waiting: list[np.ndarray] = []
        with ThreadPoolExecutor(processors()) as pool:
            for start in range(0, len(images), BLOCK):
                for pixels, identity in pool.map(self._decode, images[start : start + BLOCK]):
                    waiting += [augmenter.draw(pixels, identity, view) for view in self._views]
                while len(waiting) >= size:
                    yield np.stack(waiting[:size])
                    waiting = waiting[size:]
        if waiting:
            yield np.stack(waiting)

    def _decode(self, image: ImageLike) -> tuple[np.ndarray, str]:
        """Return the plain view of an image, uint8 (size, size, 3), and its identity."""
        content = _content(image)
        try:
            return self._resize(content), image_id(content)
        except Exception as error:
            # Pillow's decoders raise a dozen kinds of error on a broken file; each means the same.
            raise InputError(f"{_name(image)} cannot be decoded: {error}") from error


def _content(image: ImageLike) -> bytes:
    """Return the bytes of an image's file; arrays and Pillow images are encoded without loss."""
    if isinstance(image, str | Path):
        try:
            return read(image if isinstance(image, str) and "://" in image else local_uri(Path(image).absolute()))
        except OSError as error:
            raise InputError(f"{_name(image)} cannot be read: {error.strerror or error}") from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise InputError(
                f"an array of {image.dtype} and shape {image.shape} is not an image: give uint8 (height, width, 3)"
            )
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _name(image: ImageLike) -> str:
    return printable(str(image)) if isinstance(image, str | Path) else f"the {type(image).__name__}"
