"""The manifest: copies, and the tables of an artifact."""

import pandas as pd

from tl_dagster.data.manifest import (
    image_uris,
    read_groups,
    read_manifest,
    read_pairs,
    reject_copies,
    shown_uris,
    usable,
    write_manifest,
)


def test_of_copies_in_given_splits_the_held_out_one_is_kept():
    rows = {
        "id": "a",
        "label": "x",
        "group": None,
        "uri": ["1", "2", "3"],
        "split": ["train", "validation", "test"],
        "problem": None,
    }
    kept = reject_copies(pd.DataFrame(rows).astype({"problem": "str"}))
    assert usable(kept)["split"].tolist() == ["test"]


def test_tables_are_read_as_they_were_written(tmp_path):
    rows = {"id": ["1", "2", "3"], "uri": ["/a", "/b", "/c"], "group": ["g", None, None], "problem": [None, None, "x"]}
    manifest, pairs = pd.DataFrame(rows, dtype="str"), pd.DataFrame({"a": ["1"], "b": ["2"], "distance": [3]})
    write_manifest(tmp_path, manifest, pairs)
    pd.testing.assert_frame_equal(read_manifest(tmp_path), manifest)
    assert read_pairs(tmp_path).to_dict("records") == [{"a": "1", "b": "2", "distance": 3}]
    assert read_groups(tmp_path, pd.Series(["2", "1"])).tolist() == ["2", "g"]
    assert image_uris(manifest).to_dict() == {"1": "/a", "2": "/b"}
    assert shown_uris(manifest, pd.Series(["2", "3"])).tolist() == ["/b", "no longer in the dataset"]
