"""What the cache holds, whether it is whole, and what of it may go; what is in use stays."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tl_dagster import ArtifactStore
from tl_dagster.cli.main import main
from tl_dagster.features.cache import list_columns
from tl_dagster.features.housekeeping import prune, stats


def cached(pipeline) -> int:
    """Recipes in the cache: features, the five stages' maxima, the activations that fine-tuning starts from."""
    return len(list_columns(pipeline.store.root / "features"))


def test_only_features_of_removed_images_are_pruned(pipeline, photos, capsys):
    assert pipeline.run().success
    assert prune(pipeline.store).rows == 0
    removed = sorted((photos / "functional").iterdir())[:3]
    contents = [path.read_bytes() for path in removed]
    for path in removed:
        path.unlink()
    assert pipeline.run().success
    held = pipeline.held()["bottleneck_features"].artifact
    main(["cache", "prune", "--dry-run"])
    counted = prune(pipeline.store, dry_run=True)
    assert capsys.readouterr().out.startswith(f"{counted.rows:,} rows") and counted.size > 0
    assert prune(ArtifactStore(pipeline.store.root)) == counted
    assert pipeline.run().success
    again = pipeline.held()["bottleneck_features"]
    assert again.reused and again.computed == 0 and again.artifact.fingerprint == held.fingerprint
    for path, content in zip(removed, contents, strict=True):
        path.write_bytes(content)
    assert pipeline.run().success
    assert 3 <= pipeline.held()["bottleneck_features"].computed <= 9


def test_unused_recipes_are_pruned_and_used_ones_stay(pipeline, capsys):
    assert pipeline.run().success
    before = cached(pipeline)
    assert pipeline.run(backbone={"resize": "squash"}).success
    assert cached(pipeline) == 2 * before
    main(["cache", "stats"])
    assert "tf_efficientnet_lite0" in capsys.readouterr().out
    assert [bool(held.pipelines) for held in stats(pipeline.store)].count(True) == before
    assert prune(pipeline.store, unused=True, older_than=1).rows == 0
    in_use, old = list_columns(pipeline.store.root / "features")[0], time.time() - 3 * 86_400
    for column in list_columns(pipeline.store.root / "features"):
        os.utime(column.folder / "recipe.json", (old, old))
    with in_use.lock, ThreadPoolExecutor(1) as another:
        busy = another.submit(prune, pipeline.store, older_than=2, dry_run=True).result()
    assert busy.busy == 1 and busy.rows > 0
    assert prune(pipeline.store, unused=True, older_than=2).size > 0
    assert cached(pipeline) == before
    assert pipeline.run(backbone={"resize": "squash"}).success
    assert pipeline.held()["bottleneck_features"].computed == 0
    assert prune(pipeline.store, older_than=0).rows > 0 and cached(pipeline) == 0


def test_damage_is_found_and_computed_anew(pipeline, capsys):
    assert pipeline.run().success
    (column,) = (each for each in list_columns(pipeline.store.root / "features") if each.key["pooling"] == "avg")
    damaged = column.shards()[0]
    content = bytearray(damaged.path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.path.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main(["cache", "verify"])
    assert ended.value.code == 1
    assert "1 damaged shards" in capsys.readouterr().out
    assert pipeline.run().success
    assert pipeline.held()["bottleneck_features"].computed == len(damaged)
    with pytest.raises(SystemExit) as ended:
        main(["cache", "verify"])
    assert ended.value.code == 0
