"""ResNet-50 on a GPU, end to end, against the network alone on the same card; and what bounds it.

End to end: read, decode, resize, forward in bf16 and write, as the stage does it, from the first batch on. The network
alone: compiled by torch in bf16, channels last, on pixels that are on the card. Without a GPU there are no figures; the
smallest form then runs on the CPU, uncompiled.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import apart, finish, fresh, ingest, is_smallest, open_engine, parse, photos, repeat_photos
from benchmarks.extraction import BACKBONES

ROUNDS, WARM_UP, BATCHES = 3, 10, 100
FIGURES = (
    "resnet50_images_per_second_end_to_end",
    "resnet50_images_per_second_network_alone",
    "resnet50_end_to_end_over_network_alone",
    "waited_for_pixels_share",
    "decode_core_seconds_per_1000_images",
)


def end_to_end(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """Fill the feature cache."""
    engine, table = open_engine(settings, store)
    done = engine.compute_missing(table, engine.features.columns())
    waited = done.seconds["wait"] / (done.views / done.views_per_second)
    decode = 1000 * (done.seconds["decode"] + done.seconds["augment"]) / done.images
    return {"rate": done.views_per_second, "waited": waited, "decode": decode, "compiled": done.compiled}


def network_alone(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """Images per second of the compiled network."""
    import torch

    engine, _ = open_engine(settings, store)
    backbone, device = engine.features.backbone, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = backbone.load().to(device, torch.bfloat16, memory_format=torch.channels_last)
    network, side = model if is_smallest() else torch.compile(model), backbone.size
    images = torch.rand(engine.batch_size, 3, side, side, device=device).to(
        torch.bfloat16, memory_format=torch.channels_last
    )
    rounds = (1, 1) if is_smallest() else (WARM_UP, BATCHES)
    wait = torch.cuda.synchronize if device.type == "cuda" else torch.cpu.synchronize
    with torch.inference_mode():
        for count in rounds:
            wait()
            begun = time.perf_counter()
            for _ in range(count):
                network(images)
            wait()
    return {"rate": rounds[-1] * len(images) / (time.perf_counter() - begun)}


def measure(source: Path, folder: Path, images: int, count: int) -> dict[str, float | None]:
    """Both in turn."""
    repeat_photos(source, folder / "photographs", range(images))
    settings = {
        "name": "photographs",
        "source": {"kind": "folder", "path": str(folder / "photographs")},
        "augmentation": {"preset": "none", "views": 1},
        "backbone": {**BACKBONES["resnet50"], "precision": "bf16"},
    }
    store, environment = folder / "store", fresh(folder)
    apart(ingest, settings, store, environment=environment)
    rounds = []
    for _ in range(count):
        shutil.rmtree(store / "features", ignore_errors=True)
        ours = apart(end_to_end, settings, store, environment=environment)
        rounds.append((ours, apart(network_alone, settings, store, environment=environment)))
    values = (
        [ours["rate"] for ours, _ in rounds],
        [bound["rate"] for _, bound in rounds],
        [ours["rate"] / bound["rate"] for ours, bound in rounds],
        [ours["waited"] for ours, _ in rounds],
        [ours["decode"] for ours, _ in rounds],
    )
    return {name: statistics.median(value) for name, value in zip(FIGURES, values, strict=True)}


def main() -> None:
    """Run the benchmark where there is a GPU, or in its smallest form."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parse(parser, images=80, rounds=1)
    figures: dict[str, float | None] = dict.fromkeys(FIGURES)
    if not torch.cuda.is_available() and not is_smallest():
        print("no GPU")
    elif source := photos():
        with tempfile.TemporaryDirectory() as temporary:
            measured = measure(source, Path(temporary), options.images, options.rounds)
            figures = {"images": options.images, **measured}
    finish("gpu", figures, {})


if __name__ == "__main__":
    main()
