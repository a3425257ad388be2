"""Views: the plain image (view 0) and its augmented versions, each with a random state of its own.

The random state of a view comes from (seed, image id, view index), so a view is the same on any worker, in any
order, in any batch. A view's identity holds the serialised transforms and the versions of the libraries that
compute it: rotated pixels differ between OpenCV 4 and 5.
"""

import hashlib
import os
import threading
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from tl_dagster.data.settings import Augmentation, Transform
from tl_dagster.runtime.errors import InputError, suggest
from tl_dagster.store.digests import digest

__all__ = ["MIRRORED", "Augmenter", "compose_steps"]

MIRRORED = -1  # index of the view that is the mirror image
# Names of the eight symmetries of the square, in the order of the views; view 0 is the identity.
DIHEDRAL = ["e", "r90", "r180", "r270", "h", "v", "t", "hvt"]


class Augmenter:
    """Draws the views of images, and names them.

    Args:
        augmentation: the declared preset or transforms, and the seed.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        self._augmentation = augmentation
        self.steps = augmentation.steps
        self.dihedral = augmentation.transforms is None and augmentation.preset == "dihedral"
        self.seed = augmentation.seed
        self._threads = threading.local()  # a Compose has random state: each thread needs its own
        libraries = {name: version(name) for name in ("albumentations", "opencv-python-headless")}
        self._steps_digest = digest({"steps": self.steps, "libraries": libraries})

    def __reduce__(self) -> tuple[Any, ...]:
        return Augmenter, (self._augmentation,)  # worker processes build their own

    def identity(self, image_id: str, view: int) -> str:
        """Return a digest (64 hex digits) of everything that determines the view's pixels, except decoding."""
        return _digest_view(image_id, self._suffix(view))

    def identities(self, ids: pd.Series, views: pd.Series) -> list[str]:
        """Return the :meth:`identity` of each view, given image ids and view indices of the same length."""
        suffixes = {view: self._suffix(view) for view in views.unique().tolist()}
        return [_digest_view(image_id, suffixes[view]) for image_id, view in zip(ids, views, strict=True)]

    def _suffix(self, view: int) -> str:
        """Return the canonical JSON of what determines a view besides its image."""
        if view == 0:
            return "0"
        if self.dihedral or view == MIRRORED:
            return f'"dihedral","{self._symmetry(view)}"'
        return f'{view},{self.seed},"{self._steps_digest}"'

    def _symmetry(self, view: int) -> str:
        return "h" if view == MIRRORED else DIHEDRAL[view]

    def draw(self, pixels: np.ndarray, image_id: str, view: int) -> np.ndarray:
        """Return the view of an image: uint8 (size, size, 3), the shape of its input.

        Args:
            pixels: the decoded, resized image: uint8 (size, size, 3).
            image_id: the image's identity.
            view: view index.

        Raises:
            InputError: a declared transform changed the shape.
        """
        if view == 0:
            return pixels
        if self.dihedral or view == MIRRORED:
            return np.ascontiguousarray(_apply_symmetry(pixels, self._symmetry(view)))
        compose = self._compose(pixels.shape[0])
        state = hashlib.sha256(f"{self.seed}\0{image_id}\0{view}".encode()).digest()
        compose.set_random_seed(int.from_bytes(state[:4], "big"))
        augmented: np.ndarray = compose(image=pixels)["image"]
        if augmented.shape != pixels.shape:
            raise InputError(
                f"augmentation.transforms turn {pixels.shape} pixels into {augmented.shape}; end with a Resize, "
                'or write size: "image" where the image size is meant'
            )
        return augmented

    def check(self, size: int) -> None:
        """Draw a black image once, so that a bad transform is refused before anything is computed.

        Raises:
            InputError: see :meth:`draw` and :func:`compose_steps`.
        """
        if self.steps:
            self.draw(np.zeros((size, size, 3), np.uint8), "", 1)

    def _compose(self, size: int) -> Any:
        """Return this thread's Compose for a size."""
        composed: dict[str, Any] = vars(self._threads)
        key = str(size)
        if key not in composed:
            composed[key] = compose_steps(self.steps, size)
        return composed[key]


def compose_steps(steps: list[Transform], size: int) -> Any:
    """Return an albumentations Compose of the declared transforms, with "image" replaced by the image's own size.

    Raises:
        InputError: a name is not an albumentations transform, or its arguments do not fit.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask PyPI for its newest version
    import albumentations

    built = []
    for step in steps:
        ((name, declared),) = step.items()
        kind = getattr(albumentations, name, None)
        if not (isinstance(kind, type) and issubclass(kind, albumentations.BasicTransform)):
            known = sorted(public for public in vars(albumentations) if public[0].isupper())
            raise InputError(
                f"augmentation.transforms: '{name}' is not an albumentations transform: {suggest(name, known)}"
            )
        arguments = {key: (size, size) if value == "image" else _to_tuples(value) for key, value in declared.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # albumentations only warns of unknown arguments
            try:
                built.append(kind(**arguments))
            except (ValueError, TypeError, UserWarning) as error:
                raise InputError(f"augmentation.transforms: {name}: {error}") from error
    return albumentations.Compose(built)


def _digest_view(image_id: str, suffix: str) -> str:
    return hashlib.sha256(f'["{image_id}",{suffix}]'.encode()).hexdigest()


def _to_tuples(value: Any) -> Any:
    return tuple(_to_tuples(item) for item in value) if isinstance(value, list) else value


def _apply_symmetry(pixels: np.ndarray, name: str) -> np.ndarray:
    """Return a view of the array under one of the symmetries :data:`DIHEDRAL`, except the identity."""
    if name.startswith("r"):
        return np.rot90(pixels, int(name[1:]) // 90)
    flipped = {
        "h": pixels[:, ::-1],
        "v": pixels[::-1],
        "t": pixels.swapaxes(0, 1),
        "hvt": pixels[::-1, ::-1].swapaxes(0, 1),
    }
    return flipped[name]
