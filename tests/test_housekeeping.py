"""Features of removed images can be pruned; those of present ones stay."""

from tl_dagster import ArtifactStore
from tl_dagster.cli import main
from tl_dagster.housekeeping import prune_features


def test_only_features_of_removed_images_are_pruned(pipeline, photos, capsys):
    assert pipeline.run().success
    assert prune_features(pipeline.store) == (0, 0)
    removed = sorted((photos / "functional").iterdir())[:3]
    contents = [path.read_bytes() for path in removed]
    for path in removed:
        path.unlink()
    assert pipeline.run().success
    held = pipeline.held()["bottleneck_features"].artifact
    main(["cache", "prune", "--dry-run"])
    rows, freed = prune_features(pipeline.store, dry_run=True)
    assert capsys.readouterr().out.startswith(f"{rows:,} rows") and freed > 0
    assert prune_features(ArtifactStore(pipeline.store.root)) == (rows, freed)
    assert 3 <= rows / 2 <= 9  # of two columns: features and the activations that fine-tuning starts from
    assert pipeline.run().success
    again = pipeline.held()["bottleneck_features"]
    assert again.reused and again.computed == 0 and again.artifact.fingerprint == held.fingerprint
    for path, content in zip(removed, contents, strict=True):
        path.write_bytes(content)
    assert pipeline.run().success
    assert pipeline.held()["bottleneck_features"].computed == rows / 2
