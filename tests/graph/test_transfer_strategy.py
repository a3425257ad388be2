"""The strategy on real photographs, and its verification."""

import json
import shutil

import pytest

from tl_dagster import InputError
from tl_dagster.graph.stage import StageContext
from tl_dagster.graph.stages.augmented_splits import AugmentedSplits
from tl_dagster.graph.stages.bottleneck_features import BottleneckFeatures
from tl_dagster.graph.stages.dataset import Dataset
from tl_dagster.graph.stages.strategy_verification import StrategyVerification
from tl_dagster.graph.stages.transfer_strategy import TransferStrategy
from tl_dagster.runtime.progress import Progress
from tl_dagster.strategy.decision import read_decision

TO_STRATEGY = (Dataset, AugmentedSplits, BottleneckFeatures, TransferStrategy)


def run(pipeline, kinds=TO_STRATEGY, **changes):
    """Each stage's materialization, by name."""
    open_to_strategy = {"backbone": {"taps": ["lower", "higher"]}, "fine_tuning": {"depth": "auto"}}
    held, declaration = {}, pipeline.declaration(**{**open_to_strategy, **changes})
    for kind in kinds:
        stage = kind(declaration, pipeline.store.root.parent)
        inputs = {name: held[name].artifact for name in stage.inputs}
        held[kind.name] = stage.run(StageContext(pipeline.store, inputs, Progress(lambda line: None), None))
    return held


def test_a_small_set(pipeline):
    artifact = run(pipeline)["transfer_strategy"].artifact
    decision = read_decision(artifact.path)
    assert decision.cell.startswith("features") and decision.depth == "none"
    assert decision.evidence["size"]["images"] < 60 and decision.evidence["size"]["parameters"] > 1_000_000
    assert 0 < decision.evidence["own_confidence"] < 1
    assert [each["taps"] for each in decision.evidence["probes"]] == [["higher"], ["lower"], ["lower", "higher"]]
    assert (artifact.path / "strategy.png").stat().st_size < 75_000
    assert artifact.summary.metadata["quadrant"] == decision.quadrant
    assert len(artifact.summary.tables["Probes"]) == 3


def test_only_what_decides_is_measured_anew(pipeline):
    first = run(pipeline)["transfer_strategy"]
    again = run(pipeline, top_model={"l2": [1.0]}, transfer_strategy={"verify": True})["transfer_strategy"]
    other = run(pipeline, transfer_strategy={"strategy": "fine-tune-all"})["transfer_strategy"]
    assert again.reused and again.artifact.fingerprint == first.artifact.fingerprint
    declared, measured = read_decision(other.artifact.path), read_decision(first.artifact.path)
    assert (declared.cell, declared.depth) == ("fine-tune-all", "all")
    assert declared.evidence["measured_cell"] == measured.cell
    assert declared.evidence["probes"] == measured.evidence["probes"]
    assert measured.cell in other.artifact.summary.metadata["declared"]


def test_one_tap(pipeline):
    one = {"backbone": {"taps": ["higher"], "image_size": 64}}
    with pytest.raises(InputError, match=r"backbone\.taps"):
        run(pipeline, **one, transfer_strategy={"strategy": "features-low"})
    artifact = run(pipeline, **one)["transfer_strategy"].artifact
    assert read_decision(artifact.path).cell == "features-high"
    assert "lower tap" in artifact.summary.metadata["note"]


def test_one_training_image_per_class(pipeline, photos):
    given = photos.parent / "given"
    for folder in photos.iterdir():
        for number, file in enumerate(sorted(folder.iterdir())[:5]):
            split = "train" if number == 0 else "val" if number < 3 else "test"
            (given / split / folder.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, given / split / folder.name)
    artifact = run(pipeline, source={"kind": "folder", "path": str(given)})["transfer_strategy"].artifact
    decision = read_decision(artifact.path)
    assert (decision.cell, decision.taps) == ("features-high", ["higher"])
    assert "no class has two training images" in artifact.summary.metadata["note"]
    assert (artifact.path / "strategy.png").exists()


def test_verification(pipeline):
    """Every cell is trained, and what the pipeline's own cell trained is found again."""
    held = run(pipeline, (*TO_STRATEGY, StrategyVerification), augmentation={"preset": "none", "views": 1})
    artifact = held["strategy_verification"].artifact
    found = json.loads((artifact.path / "verification.json").read_text())
    cells = {row["cell"]: row for row in found["cells"]}
    assert list(cells) == ["features-high", "features-low", "fine-tune-top", "fine-tune-all"]
    best = max(row["test_accuracy"] for row in cells.values())
    assert found["regret_points"] == pytest.approx(100 * (best - cells[found["chosen"]]["test_accuracy"]))
    assert found["chosen"] == read_decision(held["transfer_strategy"].artifact.path).cell
    assert artifact.summary.tables["Cells"] and (artifact.path / "verification.png").stat().st_size < 75_000
    trained = len(list((pipeline.store.root / "artifacts" / "top_model").iterdir()))
    again = run(
        pipeline,
        (*TO_STRATEGY, StrategyVerification),
        augmentation={"preset": "none", "views": 1},
        fine_tuning={"depth": "top"},
    )
    assert again["strategy_verification"].reused  # a declared depth is set aside
    assert len(list((pipeline.store.root / "artifacts" / "top_model").iterdir())) == trained
