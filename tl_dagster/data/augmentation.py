"""Views: the plain image (view 0) and its augmented versions, each with a random state of its own.

The random state of a view comes from (seed, image id, view index), so a view is the same on any worker, in any
order, in any batch. A view's identity holds the serialised transform and the versions of the libraries that
draw it: rotated pixels differ between OpenCV 4 and 5.
"""

import hashlib
import json
import os
import sys
import threading
import warnings
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from tl_dagster.data.settings import Augmentation
from tl_dagster.runtime.errors import InputError, suggest
from tl_dagster.store.answers import ask_module
from tl_dagster.store.digests import digest

__all__ = ["MIRRORED", "Augmenter", "check_transforms"]

MIRRORED = -1  # index of the view that is the mirror image

# Names of the eight symmetries of the square, in the order that views take them; view 0 is the identity.
DIHEDRAL = ["e", "r90", "r180", "r270", "h", "v", "t", "hvt"]


class Augmenter:
    """Draws the views of images, and names them.

    Args:
        augmentation: the declared preset or steps, and the seed.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        self._augmentation = augmentation
        self.steps = augmentation.steps
        self.dihedral = augmentation.transforms is None and augmentation.preset == "dihedral"
        self.seed = augmentation.seed
        self._threads = threading.local()  # a Compose holds random state: each thread has its own
        libraries = {name: version(name) for name in ("albumentations", "opencv-python-headless")}
        self._recipe = digest({"steps": self.steps, "libraries": libraries})

    def __reduce__(self) -> tuple[Any, ...]:
        return Augmenter, (self._augmentation,)  # worker processes make their own

    def identity(self, image_id: str, view: int) -> str:
        """Digest (64 hex digits) of everything that determines the view's pixels, but for decoding."""
        return _key(image_id, self._rest(view))

    def identities(self, ids: pd.Series, views: pd.Series) -> list[str]:
        """:meth:`identity` of many views."""
        rests = {view: self._rest(view) for view in views.unique().tolist()}
        return [_key(image_id, rests[view]) for image_id, view in zip(ids, views, strict=True)]

    def _rest(self, view: int) -> str:
        """The canonical JSON of what determines a view besides its image."""
        if view == 0:
            return "0"
        if self.dihedral or view == MIRRORED:
            return f'"dihedral","{self._symmetry(view)}"'
        return f'{view},{self.seed},"{self._recipe}"'

    def _symmetry(self, view: int) -> str:
        return "h" if view == MIRRORED else DIHEDRAL[view]

    def draw(self, pixels: np.ndarray, image_id: str, view: int) -> np.ndarray:
        """The view of an image: uint8 (size, size, 3) → uint8 of the same shape.

        Args:
            pixels: the decoded, resized image.
            image_id: its identity.
            view: view index.

        Raises:
            InputError: a declared transform changed the shape.
        """

        if view == 0:
            return pixels
        if self.dihedral or view == MIRRORED:
            return np.ascontiguousarray(_symmetric(pixels, self._symmetry(view)))
        compose = self._composed(pixels.shape[0])
        state = hashlib.sha256(f"{self.seed}\0{image_id}\0{view}".encode()).digest()
        compose.set_random_seed(int.from_bytes(state[:4], "big"))
        drawn: np.ndarray = compose(image=pixels)["image"]
        if drawn.shape != pixels.shape:
            raise InputError(
                f"augmentation.transforms turn {pixels.shape} pixels into {drawn.shape}; end with a Resize, "
                'or write size: "image" where the image size is meant'
            )
        return drawn

    def check(self, size: int) -> None:
        """Draw a black image once, so that a transform that cannot be drawn is refused before anything is computed.

        Raises:
            InputError: see :meth:`draw`.
        """

        if self.steps:
            self.draw(np.zeros((size, size, 3), np.uint8), "", 1)

    def _composed(self, size: int) -> Any:
        made: dict[str, Any] = vars(self._threads)
        key = str(size)
        if key not in made:
            made[key] = compose_steps(self.steps, size)
        return made[key]


def compose_steps(steps: list[dict[str, dict[str, Any]]], size: int) -> Any:
    """An albumentations Compose of the declared steps, with "image" standing for the image's own size.

    Raises:
        InputError: a step is not an albumentations transform, or its arguments do not fit.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask PyPI for its newest version
    import albumentations

    built = []
    for step in steps:
        ((name, arguments),) = step.items()
        kind = getattr(albumentations, name, None)
        if not (isinstance(kind, type) and issubclass(kind, albumentations.BasicTransform)):
            known = sorted(public for public in vars(albumentations) if public[0].isupper())
            raise InputError(
                f"augmentation.transforms: '{name}' is no albumentations transform: {suggest(name, known)}"
            )
        given = {key: (size, size) if value == "image" else _tuples(value) for key, value in arguments.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # albumentations only warns of unknown arguments
            try:
                built.append(kind(**given))
            except (ValueError, TypeError, UserWarning) as error:
                raise InputError(f"augmentation.transforms: {name}: {error}") from error
    return albumentations.Compose(built)


def _key(image_id: str, rest: str) -> str:
    return hashlib.sha256(f'["{image_id}",{rest}]'.encode()).hexdigest()


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _symmetric(pixels: np.ndarray, name: str) -> np.ndarray:
    if name.startswith("r"):
        return np.rot90(pixels, int(name[1:]) // 90)
    flipped = {
        "h": pixels[:, ::-1],
        "v": pixels[::-1],
        "t": pixels.swapaxes(0, 1),
        "hvt": pixels[::-1, ::-1].swapaxes(0, 1),
    }
    return flipped[name]


def main() -> None:
    """Draw the steps (JSON) at a size, both from the command line; print {} or the error as JSON."""
    steps, size = json.loads(sys.argv[1]), int(sys.argv[2])
    try:
        Augmenter(Augmentation(transforms=steps)).check(size)
        sys.stdout.write("{}")
    except InputError as error:
        sys.stdout.write(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main()


def check_transforms(augmentation: Augmentation, size: int) -> None:
    """Draw the declared transforms once (in a process of its own, and only the first time).

    Raises:
        InputError: a transform does not exist, its arguments do not fit, or it changes the image's size.
    """
    if augmentation.transforms is not None:
        steps = json.dumps(augmentation.transforms, sort_keys=True)
        ask_module("tl_dagster.data.augmentation", (steps, str(size)), version("albumentations"))
