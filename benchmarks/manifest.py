"""A manifest of 1,000,000 rows: splitting it, comparing it with the version before, and the memory of both.

No image is read: rows are made up as the dataset stage writes them. "Split" is all that `augmented_splits` computes
for one view of each image (split, view, identity of the view, data version); "diff" is what the drift check computes.
"""

import argparse
import hashlib
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.common import apart, finish, parse

if TYPE_CHECKING:
    import pandas as pd

SIZES, ROUNDS = (10_000, 100_000, 1_000_000), 3


def rows(count: int, changed: int = 0) -> "pd.DataFrame":
    """A manifest of 100 classes; of the second version the first ``changed`` images are new."""
    import numpy as np
    import pandas as pd

    names = [f"{'new' if number < changed else 'old'}{number}" for number in range(count)]
    ids = pd.Series([hashlib.sha256(name.encode()).hexdigest() for name in names], dtype="str")
    classes = pd.Series([f"class{number:02d}" for number in range(100)], dtype="str")
    frame = pd.DataFrame({"id": ids, "label": classes.take(np.arange(count) % 100).reset_index(drop=True)})
    frame["uri"] = "/photos/" + frame["label"] + "/" + pd.Series(names, dtype="str") + ".jpg"
    frame["group"] = frame["id"].where(np.arange(count) % 20 == 0, None)
    random = np.random.default_rng(0)
    for name, mean in (("brightness", 120), ("contrast", 50), ("width", 500), ("height", 400), ("bytes", 40_000)):
        frame[name] = random.normal(mean, mean / 5, count)
    return frame.assign(split=None, confidence=np.nan, problem=None).astype({"split": "str", "problem": "str"})


def measure_warm(count: int) -> dict[str, float]:
    """Seconds of one split and one diff, without imports and first calls."""
    measure(SIZES[0])
    return measure(count)


def measure(count: int) -> dict[str, float]:
    """Seconds of one split and one diff."""
    from tl_dagster.data.augmentation import Augmenter
    from tl_dagster.data.manifest import usable
    from tl_dagster.data.settings import Augmentation, Splits
    from tl_dagster.data.splits import assign_splits, list_views
    from tl_dagster.declaration import Checks
    from tl_dagster.graph.checks import drift
    from tl_dagster.store.digests import digest_columns

    before, now = rows(count), rows(count, changed=count // 100)
    plain = Augmentation(preset="none")
    begun = time.perf_counter()
    images = usable(now).sort_values("id", ignore_index=True)
    table = list_views(images, assign_splits(images, Splits()), plain)
    table["key"] = Augmenter(plain).identities(table["id"], table["view"])
    digest_columns(table[["key", "split", "label", "confidence"]])
    split = time.perf_counter()
    del images, table
    result = drift(before, now, Checks())
    diff = time.perf_counter()
    if result.metrics["added"] != count // 100:
        raise AssertionError(result)
    return {"split": split - begun, "diff": diff - split}


def main() -> None:
    """Each size in a process of its own, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="rising")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parse(parser, sizes=[10_000, 20_000], rounds=1)
    runs: dict[int, list[dict[str, float]]] = {size: [] for size in options.sizes}
    for _ in range(options.rounds):
        for size in options.sizes:
            runs[size].append(apart(measure_warm, size, environment={}))
    small, large = options.sizes[0], options.sizes[-1]

    def median(size: int, name: str) -> float:
        return statistics.median(each[name] for each in runs[size])

    def per_row(name: str) -> float:
        return statistics.median(
            (b[name] / large) / (a[name] / small) for a, b in zip(runs[small], runs[large], strict=True)
        )

    figures: dict[str, float | None] = {
        **{f"{name}_{size}_rows_seconds": median(size, name) for name in ("split", "diff") for size in options.sizes},
        f"split_{large}_over_{small}_rows_seconds_per_row": per_row("split"),
        f"diff_{large}_over_{small}_rows_seconds_per_row": per_row("diff"),
        "peak_mb": max(each["peak_mb"] for each in runs[large]),
    }
    targets = {
        "peak_mb": {"at_most": 2000.0},
        f"split_{large}_over_{small}_rows_seconds_per_row": {"at_most": 1.5},
        f"diff_{large}_over_{small}_rows_seconds_per_row": {"at_most": 1.5},
    }
    finish("manifest", figures, targets)


if __name__ == "__main__":
    main()
