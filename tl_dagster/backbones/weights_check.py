"""The check of a declared weights file: ``python -m tl_dagster.backbones.weights_check BACKBONE``, settings as JSON.

A file that cannot be used is refused before any image is read. It is looked at in a process of its own, as
:mod:`tl_dagster.backbones.inspection` looks at the network, once for each state of the file.
"""

import json
import sys
from importlib.metadata import version

from tl_dagster.backbones.description import describe_backbone
from tl_dagster.backbones.settings import Backbone
from tl_dagster.backbones.weights import find_declared_file, locate_weights
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.answers import ask_module

__all__ = ["check_weights_file"]

CHECK_VERSION = 1  # bumped by hand when other files are accepted


def check_weights_file(backbone: Backbone) -> None:
    """Check that the declared weights, where they are a file on this machine, can be read and fit the backbone.

    Raises:
        InputError: there is no such file, it has another checksum, or it does not fit; the message says which.
    """
    path = find_declared_file(backbone)
    if path is None:
        return
    status = path.stat()
    state = [str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    settings = backbone.model_dump_json(include={"name", "weights", "sha256", "image_size", "taps"})
    versions = [version(name) for name in ("timm", "torchvision", "torch")]
    ask_module("tl_dagster.backbones.weights_check", (settings,), json.dumps([CHECK_VERSION, versions, state]))


def main() -> None:
    """Print an empty JSON object, or the error as ``{"error": …}``."""
    from tl_dagster.backbones.building import create_on_meta
    from tl_dagster.backbones.checkpoint_loading import read_fitting

    backbone = Backbone.model_validate_json(sys.argv[1])
    answer = {}
    try:
        info = describe_backbone(backbone)
        own = create_on_meta(info.name, info.preprocess["size"]).state_dict()
        read_fitting(locate_weights(backbone, info), own, info, backbone.taps, mapped=True)
    except InputError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
