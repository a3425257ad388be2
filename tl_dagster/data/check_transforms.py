"""The check of declared albumentations transforms, in a process of its own: definitions must not load albumentations.

``python -m tl_dagster.data.check_transforms TRANSFORMS SIZE`` (a JSON list, pixels) prints {} or {"error": message}.
"""

import json
import sys
from importlib.metadata import version

from tl_dagster.data.settings import Augmentation
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.answers import ask_module

__all__ = ["check_transforms"]


def check_transforms(augmentation: Augmentation, size: int) -> None:
    """Draw an image with the declared transforms; an earlier answer for them is reused.

    Args:
        augmentation: what is declared; presets need no check.
        size: pixels of the network's square input.

    Raises:
        InputError: a transform does not exist, its arguments do not fit, or it changes the image's size.
    """
    if augmentation.transforms is not None:
        transforms = json.dumps(augmentation.transforms, sort_keys=True)
        ask_module("tl_dagster.data.check_transforms", (transforms, str(size)), version("albumentations"))


def main() -> None:
    """Draw the transforms (JSON) at a size, both from the command line; print {} or the error as JSON."""
    from tl_dagster.data.augmentation import Augmenter

    transforms, size = json.loads(sys.argv[1]), int(sys.argv[2])
    try:
        Augmenter(Augmentation(transforms=transforms)).check(size)
        sys.stdout.write("{}")
    except InputError as error:
        sys.stdout.write(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main()
