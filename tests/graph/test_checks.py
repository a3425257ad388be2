"""Asset checks: what they find in real folders, and when they stop a run."""

import os
import shutil

import dagster as dg
import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance

from tests.conftest import Pipeline, copy_photos
from tests.data.sources.conftest import write_tree
from tl_dagster.data.manifest import read_manifest
from tl_dagster.declaration import Checks
from tl_dagster.graph import checks
from tl_dagster.graph.checks import class_balance, drift
from tl_dagster.graph.dataset_checks import classes


def checked(pipeline: Pipeline, **changes) -> dict[str, dg.AssetCheckEvaluation]:
    result = pipeline.run(raise_on_error=False, **changes)
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def table(evaluation) -> list[dict]:
    return [record.data for record in evaluation.metadata["table"].records]


def table_or_none(evaluation) -> list[dict]:
    return table(evaluation) if "table" in evaluation.metadata else []


def test_what_was_not_decoded_is_not_opened_for_its_thumbnail(pipeline, photos, tmp_path):
    """A link out of the folder may lead to a secret, or to a pipe that never ends."""
    Image.new("RGB", (50, 50), "red").save(tmp_path / "secret.png")
    (photos / "functional" / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(tmp_path / "pipe")
    (photos / "functional" / "pipe.png").symlink_to(tmp_path / "pipe")
    readable = checked(pipeline)["readable"]
    assert {row["reason"].partition(";")[0] for row in table(readable)} == {"a link out of the folder"}
    sheet = Image.open(pipeline.held()["dataset"].artifact.path / "set_aside.jpg").convert("RGB")
    assert not any(red > 200 and green < 80 for _, (red, green, _) in sheet.getcolors(1_000_000))


def test_drift_against_a_version_that_had_fewer_columns(pipeline):
    assert pipeline.run().success
    now = read_manifest(pipeline.held()["dataset"].artifact.path)
    result = drift(now.drop(columns=["brightness", "contrast", "bytes"]), now, Checks())
    assert result.passed and "height" in result.metrics and "contrast" not in result.metrics


def test_a_clean_folder_passes(pipeline):
    found = checked(pipeline)
    assert set(found) == {
        *("readable", "label_conflicts", "per_class", "class_balance", "drift", "leakage", "near_identical"),
        *("label_suspects", "classes", "contrast", "feature_drift"),
        *("better_than_majority", "no_worse_than_top_model", "calibrated", "every_class_predicted"),
    }
    failed = {name for name, each in found.items() if not each.passed}
    assert failed <= {"near_identical", "label_suspects"}  # sixty cells at 64 pixels: those two may see something
    assert all(each.description for each in found.values())


def test_set_aside_files_are_shown_and_too_many_stop_the_run(pipeline, photos):
    broken, other = sorted((photos / "functional").iterdir())[:2]
    broken.write_bytes(broken.read_bytes()[:3000])
    shutil.copy(other, photos / "defective" / "<script>|\n.png")
    found = checked(pipeline)
    assert not found["readable"].passed and not found["label_conflicts"].passed
    readable = found["readable"]
    assert readable.severity == dg.AssetCheckSeverity.WARN
    assert readable.metadata["set_aside_share"].value == 0.04918  # of 3 / 61, as it is shown
    assert {row["file"].rpartition("/")[2] for row in table(readable)} == {
        *(broken.name, other.name, "<script>|\\n.png"),
    }
    assert "data:image/jpeg" in readable.metadata["Set aside"].value
    assert len(table(found["label_conflicts"])) == 2
    stopped = checked(pipeline, checks={"set_aside": 0.04})
    assert stopped["readable"].severity == dg.AssetCheckSeverity.ERROR
    assert "checks.set_aside = 0.04" in stopped["readable"].description
    assert "leakage" not in stopped  # nothing below ran
    assert checked(pipeline)["leakage"].passed


def test_a_stopped_run_keeps_what_was_ingested(pipeline, photos):
    first = sorted((photos / "functional").iterdir())[0]
    first.write_bytes(b"")
    checked(pipeline, checks={"set_aside": 0.0})
    assert pipeline.held()["dataset"].artifact.summary.metrics["set_aside"] == 1


def test_small_and_unequal_classes(pipeline, photos):
    found = checked(pipeline, checks={"per_class": 31, "imbalance": 1.0})
    assert found["class_balance"].passed and not found["per_class"].passed
    assert table(found["per_class"]) == [{"class": "defective", "images": 30}, {"class": "functional", "images": 30}]
    for path in sorted((photos / "defective").iterdir())[20:]:
        path.unlink()
    found = checked(pipeline, checks={"imbalance": 1.4})
    assert not found["class_balance"].passed
    assert found["class_balance"].description.startswith("'functional' has 1.5 times the images of 'defective'")


def test_classes_of_equal_size_are_not_compared_with_themselves():
    balance = class_balance(pd.Series({"cat": 12, "dog": 12}), Checks())
    assert balance.passed and balance.description == "each of 2 classes has 12 images"


def test_a_class_without_a_usable_image_stops_the_run(pipeline, photos):
    (photos / "bird").mkdir()
    write_tree(photos, {"fox/1.xyz": b"a text", "owl/1.png": b"", "docs/a.txt": b"", "docs/b.txt": b""})
    classes = checked(pipeline)["classes"]
    assert not classes.passed and classes.severity == dg.AssetCheckSeverity.ERROR
    assert {row["name"]: row["why"].partition(";")[0] for row in table(classes)} == {
        **{"bird": "files: 0", "docs": "files: 2", "fox": "files: 1", "owl": "files: 1"}
    }
    assert "can be used: 'bird' (an empty folder), 'docs' (files: 2, the first: not" in classes.description
    assert set(pipeline.held()) == {"dataset"}


def test_a_folder_of_documents_is_named_and_stops_nothing(pipeline, photos):
    write_tree(photos, {"docs/a.txt": b"", ".git/x": b"", "functional/Thumbs.db": b""})
    found = checked(pipeline, upto="augmented_splits")
    assert not found["classes"].passed and found["classes"].severity == dg.AssetCheckSeverity.WARN
    assert "'docs' (files: 1, the first: not an image by its name)" in found["classes"].description
    rows = pipeline.held()["dataset"].artifact.summary.tables["not_looked_at"]
    assert {row["first"] for row in rows} == {"docs/a.txt", ".git", "functional/Thumbs.db"}
    assert "leakage" in found


def test_the_classes_of_a_pattern_are_those_that_it_finds(pipeline, photos):
    write_tree(photos, {"docs/a.txt": b"", "bird/a.xyz": b""})
    pipeline.settings["source"]["pattern"] = "^(?P<label>functional|defective)/"
    assert checked(pipeline, upto="dataset")["classes"].passed


def test_names_that_look_alike_are_named(photos):
    labels = ["Cat", "cat", "great white", "great_white", "gr\u200beat  white", "dog", "straße", "STRASSE"]
    rows = {"label": labels, "group": ["m1", "M1", *["x"] * 6], "problem": None}
    found = classes(pd.DataFrame(rows), pd.DataFrame({"label": [], "reason": [], "entries": []}))
    assert not found.passed and not found.blocking
    assert "'Cat' and 'cat'" in found.description and "group 'M1' and 'm1'" in found.description
    assert found.metrics == {"lost_classes": 0, "names_alike": 5}


def test_images_of_nearly_no_contrast_are_named_with_their_usual_causes(pipeline, photos):
    """12 bits in a file of 16, a fourth band that is taken for transparency, and a lens cap."""
    for number, path in enumerate(sorted((photos / "functional").iterdir())[:3]):
        grey = np.asarray(Image.open(path).convert("L"))
        Image.fromarray(grey.astype(np.uint16) * 16).save(photos / "functional" / f"twelve{number}.png")
        bands = Image.merge("RGBA", [Image.fromarray(grey)] * 3 + [Image.new("L", grey.shape[::-1], 12)])
        bands.save(photos / "defective" / f"infrared{number}.tif")
    Image.new("RGB", (64, 64), "black").save(photos / "functional" / "cap.jpg")
    found = checked(pipeline, upto="dataset")["contrast"]
    causes = {row["file"].rpartition("/")[2]: row["usual cause"] for row in table(found)}
    assert set(causes) == {"cap.jpg", *(f"twelve{n}.png" for n in range(3)), *(f"infrared{n}.tif" for n in range(3))}
    assert "bits in a file of 16" in causes["twelve0.png"] and "transparency" in causes["infrared0.tif"]
    assert causes["cap.jpg"] == "wrongly exposed, or empty"
    assert not found.passed and "7 of 67 images show almost nothing" in found.description
    right = {"acknowledged": ["functional/cap.jpg"], "contrast": 3}
    assert "6 of 67" in checked(pipeline, upto="dataset", checks=right)["contrast"].description
    assert checked(pipeline, upto="dataset", checks={"contrast": 0})["contrast"].passed


def test_drift_is_reported_until_the_data_changes_again(pipeline, photos):
    assert checked(pipeline)["drift"].description.startswith("the first version")
    for path in sorted((photos / "functional").iterdir()):
        ImageEnhance.Brightness(Image.open(path).convert("L")).enhance(0.5).save(path)
    for _ in range(2):  # the second run reuses everything, and says the same
        drift = checked(pipeline)["drift"]
        assert not drift.passed
        assert "30 added, 30 removed" in drift.description and "brightness" in drift.description
    for path in sorted((photos / "functional").iterdir())[:3]:
        path.unlink()
    drift = checked(pipeline)["drift"]
    assert drift.passed and drift.description == "3 removed"


def test_given_splits_that_leak_are_listed(pipeline, tmp_path, labels):
    given = tmp_path / "given"
    copy_photos(given / "train", labels, 30)
    for name in ("functional", "defective"):
        (given / "test" / name).mkdir(parents=True)
        for path in sorted((given / "train" / name).iterdir())[:8]:
            path.rename(given / "test" / name / path.name)
    exact, near = sorted((given / "test" / "functional").iterdir())[:2]
    shutil.copy(exact, given / "train" / "functional" / "copy.png")
    Image.open(near).convert("RGB").save(given / "train" / "functional" / "near.jpg", quality=85)
    pipeline.settings["source"]["path"] = str(given)
    leakage = checked(pipeline)["leakage"]
    assert not leakage.passed and leakage.severity == dg.AssetCheckSeverity.WARN
    pairs = {frozenset(row[name].rpartition("/")[2] for name in ("image", "near copy")) for row in table(leakage)}
    assert {frozenset((exact.name, "copy.png")), frozenset((near.name, "near.jpg"))} <= pairs
    stopped = checked(pipeline, checks={"leakage": "stop"})
    assert stopped["leakage"].severity == dg.AssetCheckSeverity.ERROR and "near_identical" not in stopped
    (given / "train" / "functional" / "copy.png").unlink()  # mended as the check asks: no usable image changed
    (given / "train" / "functional" / "near.jpg").unlink()
    assert {exact.name, near.name}.isdisjoint(
        row["image"].rpartition("/")[2] for row in table_or_none(checked(pipeline)["leakage"])
    )


def test_copies_that_were_left_out_of_training_are_no_leak(pipeline, tmp_path, labels):
    given = copy_photos(tmp_path / "given" / "train", labels, 30).parent
    for name in ("functional", "defective"):
        (given / "test" / name).mkdir(parents=True)
        for path in sorted((given / "train" / name).iterdir())[:8]:
            shutil.copy(path, given / "test" / name)
    (given / "train" / "defective" / "copy.png").write_bytes(path.read_bytes())
    pipeline.settings["source"]["path"] = str(given)
    found = checked(pipeline, upto="augmented_splits", checks={"leakage": "stop"}, duplicates={"distance": 0})
    assert (
        found["leakage"].passed
        and "17 files that the source also gives in another split" in found["leakage"].description
    )
    assert {row["state"] for row in table(found["leakage"])} == {"the second is left out"}


def test_held_out_copies_are_found_by_their_features(pipeline, tmp_path, labels):
    given = tmp_path / "given"
    copy_photos(given / "train", labels, 30)
    copied = set()
    for name in ("functional", "defective"):
        (given / "test" / name).mkdir(parents=True)
        paths = sorted((given / "train" / name).iterdir())
        for path in paths[:8]:
            path.rename(given / "test" / name / path.name)
        for path in paths[8:11]:
            Image.open(path).convert("RGB").save(given / "test" / name / f"{path.stem}.jpg", quality=95)
            copied.add((f"{path.stem}.jpg", path.name))
    pipeline.settings["source"]["path"] = str(given)
    near = checked(pipeline, checks={"near_identical": 0})["near_identical"]
    assert not near.passed and "data:image/jpeg" in near.metadata["Near-identical pairs"].value
    pairs = [tuple(row[name].rpartition("/")[2] for name in ("image", "nearly the same as")) for row in table(near)]
    # A copied training image may have been drawn for validation: then its copy leaks nothing.
    assert pairs[0] in copied and len(copied & set(pairs)) >= 2


def test_swapped_labels_are_suspected(pipeline, photos):
    for label, colour in (("functional", "red"), ("defective", "blue")):
        for number in range(30):
            Image.new("RGB", (64, 64), colour).resize((64 + number, 64)).save(photos / label / f"{colour}{number}.png")
    (photos / "functional" / "red3.png").rename(photos / "defective" / "red3.png")
    suspects = checked(pipeline, checks={"label_suspects": 0})["label_suspects"]
    assert not suspects.passed and "data:image/jpeg" in suspects.metadata["Label suspects"].value
    (swapped,) = [row for row in table(suspects)[:5] if row["image"].endswith("defective/red3.png")]
    assert (swapped["label"], swapped["looks like"]) == ("defective", "functional")
    right = {"label_suspects": 0, "acknowledged": ["defective/red3.png"]}
    names = [row["image"] for row in table_or_none(checked(pipeline, checks=right)["label_suspects"])]
    assert len(names) < len(table(suspects)) and not any(name.endswith("/red3.png") for name in names)


def test_few_suspects_and_pairs_are_named_and_warn_of_nothing():
    rows = [{"image": "/a.png"}]
    for check in (checks.label_suspects, checks.near_identical):
        result = check(rows, 1, 398, Checks(), "")
        assert result.passed and "1 of 398" in result.description and result.table == rows
        assert not check(rows, 5, 398, Checks(), "").passed


def test_images_are_acknowledged_by_id_address_or_the_end_of_it():
    uris = pd.Series(["/in/cat/1.png", "/in/cat/11.png", "zip://cat/2.png::/a.zip", "/in/cat/3.png"])
    names = ["cat/1.png", "d" * 64, "/in/cat/11.png"]
    assert checks.are_acknowledged(pd.Series(["a", "b", "c", "d" * 64]), uris, names).tolist() == [
        True,
        True,
        False,
        True,
    ]
    assert not checks.are_acknowledged(uris, uris, []).any() and checks.are_acknowledged(uris[:0], uris[:0], []).empty


def test_thresholds_are_no_part_of_any_fingerprint(pipeline):
    checked(pipeline)
    held = {name: each.artifact.fingerprint for name, each in pipeline.held().items()}
    checked(pipeline, checks=Checks(per_class=1, imbalance=3, drift=0.9).model_dump())
    assert {name: each.artifact.fingerprint for name, each in pipeline.held().items()} == held
