"""Time to the better of two accuracies: features and a top model against fastai's ``fine_tune(4)``.

The same photographs (hymenoptera with its given split), the same EfficientNet-lite0 weights, the same cores, in turn,
each in a process of its own, timed from its start to its end. fastai (a dependency of this benchmark alone, see
requirements.txt) runs as its documentation has it: ``vision_learner(dls, architecture).fine_tune(4)``. A side that ends
below the better accuracy never reaches it; then its whole time stands for it, and the ratio is a lower bound.
Without fastai our side alone is timed.
"""

import argparse
import importlib.util
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.accuracy import evaluate, write_split
from benchmarks.common import apart, finish, fresh, parse, photos

PAIRS, EPOCHS, SIZE = 3, 4, 224
TARGETS = {"fastai_over_ours_seconds": {"at_least": 8.0}}


def ours(table: str, store: str) -> dict[str, Any]:
    """The pipeline up to its selected model; plain images: these few can be told apart without more views."""
    source = {"kind": "manifest", "path": table, "uri": "image", "label": "label", "split": "split"}
    settings = {"name": "ants_and_bees", "source": source, "augmentation": {"preset": "none", "test_views": "mirrored"}}
    result = evaluate(settings, store)
    return {"accuracy": result["champion"], "cell": result["cell"]}


def fastai(source: str) -> dict[str, Any]:
    """The other side: ``fine_tune`` on the same: accuracy on the same test images."""
    from tl_dagster.runtime.libraries import import_timm

    timm = import_timm()  # torchvision beside a CPU build of torch; fastai needs it too
    from fastai.vision.all import (
        ImageDataLoaders,
        Normalize,
        Resize,
        accuracy,
        aug_transforms,
        set_seed,
        vision_learner,
    )

    from tl_dagster.backbones.checkpoint_loading import load_weights
    from tl_dagster.backbones.description import describe_backbone
    from tl_dagster.backbones.settings import Backbone
    from tl_dagster.backbones.weights import locate_weights

    set_seed(0)
    declared = Backbone(taps=["penultimate"])
    info = describe_backbone(declared)
    size = info.preprocess["size"]
    loaders = ImageDataLoaders.from_folder(
        source,
        train="train",
        valid="val",
        item_tfms=Resize(2 * size),
        batch_tfms=[*aug_transforms(size=size), Normalize.from_stats(info.preprocess["mean"], info.preprocess["std"])],
    )
    learner = vision_learner(
        loaders, "tf_efficientnet_lite0", metrics=accuracy, normalize=False, pretrained=False, cut=None
    )
    # Its own download is not used: the same weights go in by name.
    reference = timm.create_model("tf_efficientnet_lite0")
    load_weights(reference, info, locate_weights(declared, info), declared.taps)
    body = learner.model[0].model
    body.load_state_dict({name: value for name, value in reference.state_dict().items() if name in body.state_dict()})
    learner.freeze()
    learner.fine_tune(EPOCHS)
    return {"accuracy": float(learner.validate()[1])}


def summarize(runs: list[dict[str, Any]]) -> dict[str, float]:
    """The medians of one side's runs."""
    return {
        "accuracy": statistics.median(each["accuracy"] for each in runs),
        "seconds": statistics.median(each["process_seconds"] for each in runs),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    options = parse(parser, pairs=1)
    figures: dict[str, float | None] = dict.fromkeys(TARGETS)
    peer = importlib.util.find_spec("fastai") is not None
    if not peer:
        print("no fastai: pip install -c constraints.txt -r benchmarks/requirements.txt")
    if source := photos():
        theirs, mine = [], []
        for _ in range(options.pairs):
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                table = write_split(source, folder)
                theirs += [apart(fastai, source, environment=fresh(folder))] if peer else []
                mine.append(apart(ours, table, folder / "store", environment=fresh(folder)))
        figures |= {f"our_{name}": value for name, value in summarize(mine).items()}
        if peer:
            reached = [ours["accuracy"] >= theirs["accuracy"] for ours, theirs in zip(mine, theirs, strict=True)]
            ratios = [a["process_seconds"] / b["process_seconds"] for a, b in zip(theirs, mine, strict=True)]
            figures["fastai_over_ours_seconds"] = statistics.median(ratios) if all(reached) else 0.0
            figures |= {f"fastai_{name}": value for name, value in summarize(theirs).items()}
    finish("time_to_accuracy", figures, TARGETS)


if __name__ == "__main__":
    main()
