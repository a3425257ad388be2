"""A manifest of 1,000,000 rows: splitting it, comparing it with the version before, and the memory of both.

No image is read: rows are made up as the dataset stage writes them. "Split" is all that `augmented_splits` computes
for one view of each image (split, view, identity of the view, data version); "diff" is what the drift check computes.
"""

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.common import finish

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


def measure(count: int) -> dict[str, float]:
    """Seconds of one split and one diff, and the process's peak memory in MB."""
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
    verdict = drift(before, now, Checks())
    diff = time.perf_counter()
    if verdict.numbers["added"] != count // 100:
        raise AssertionError(verdict)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"split": split - begun, "diff": diff - split, "peak_mb": peak}


def main() -> None:
    """Each size in a process of its own, in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int)
    given = parser.parse_args()
    if given.rows:
        measure(SIZES[0])  # imports and first calls are not what is measured
        print(json.dumps(measure(given.rows)))
        return
    found: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
    for _ in range(ROUNDS):
        for size in SIZES:
            command = [sys.executable, "-m", "benchmarks.manifest", "--rows", str(size)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[size].append(json.loads(done.stdout))
    small, _, large = SIZES

    def median(size: int, name: str) -> float:
        return statistics.median(each[name] for each in found[size])

    def per_row(name: str) -> float:
        return statistics.median(
            (b[name] / large) / (a[name] / small) for a, b in zip(found[small], found[large], strict=True)
        )

    figures: dict[str, float | None] = {
        **{f"{name}_{size}_rows_seconds": median(size, name) for name in ("split", "diff") for size in SIZES},
        "split_1000000_over_10000_rows_seconds_per_row": per_row("split"),
        "diff_1000000_over_10000_rows_seconds_per_row": per_row("diff"),
        "peak_mb": max(each["peak_mb"] for each in found[large]),
    }
    targets = {
        "peak_mb": {"at_most": 2000.0},
        "split_1000000_over_10000_rows_seconds_per_row": {"at_most": 1.5},
        "diff_1000000_over_10000_rows_seconds_per_row": {"at_most": 1.5},
    }
    finish("manifest", figures, targets)


if __name__ == "__main__":
    main()
