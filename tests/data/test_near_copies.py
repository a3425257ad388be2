"""Near copies share a group, a group is never cut, and nothing that comes or goes moves another image."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tl_dagster.data.decoding import inspect_image
from tl_dagster.data.near_copies import GroupRegistry, group_near_copies, near_pairs
from tl_dagster.data.splits import unit_hash

RANDOM = np.random.default_rng(0)
# Twelve families of five: the members of a family are three bits away from its first, six from each other.
FIRSTS = RANDOM.integers(0, 256, (12, 32), dtype=np.uint8)


def member(family: int, number: int) -> np.ndarray:
    bits = np.unpackbits(FIRSTS[family])
    bits[[3 * number, 100 + number, 200 + number]] ^= number > 0
    return np.packbits(bits)


def images(chosen) -> pd.DataFrame:
    rows = [
        (f"{unit_hash(*each):.12f}", f"/{each}", None, None, member(*each).tobytes().hex(), 50.0) for each in chosen
    ]
    frame = pd.DataFrame(rows, columns=["id", "uri", "group", "split", "perceptual", "contrast"])
    return frame.astype(dict.fromkeys(("id", "uri", "group", "split", "perceptual"), "str"))


def slow_pairs(hashes: np.ndarray, distance: int) -> set[tuple[int, int]]:
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(-1)
    return {(a, b) for a in range(len(hashes)) for b in range(a + 1, len(hashes)) if apart[a, b] <= distance}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 4)), min_size=2, max_size=40), st.integers(1, 16))
def test_all_pairs_within_the_distance_are_found(chosen, distance):
    hashes = np.array([member(*each) for each in dict.fromkeys(chosen)])
    found = near_pairs(hashes, np.ones(len(hashes), dtype=bool), distance)
    assert {(int(a), int(b)) for a, b, _ in found} == slow_pairs(hashes, distance)


def test_equal_hashes_are_joined_through_one_of_them(tmp_path):
    equal = pd.concat([images([(0, 0)]).assign(id=f"{number:04d}") for number in range(1000)], ignore_index=True)
    found, pairs = group_near_copies(equal, GroupRegistry(tmp_path), 8)
    assert len(pairs) == 999 and set(pairs["a"]) == {"0000"}
    assert set(found["group"].dropna()) == {"0000"}


MEMBERS = st.tuples(st.integers(0, 11), st.integers(0, 4))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(MEMBERS, min_size=1, max_size=25, unique=True), min_size=2, max_size=5), st.sampled_from([4, 8])
)
def test_whatever_comes_and_goes_no_image_moves_and_no_group_is_cut(versions, distance):
    """A pipeline's life: each version of the source holds other images, in another order."""
    groups: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for chosen in versions:
            found, pairs = group_near_copies(images(chosen), GroupRegistry(Path(folder)), distance)
            used = found[found["problem"].isna()]
            now = dict(zip(used["id"], used["group"].where(used["group"].notna(), used["id"]), strict=True))
            assert {key: now[key] for key in now.keys() & groups.keys()} == {
                key: groups[key] for key in now.keys() & groups.keys()
            }
            groups.update(now)
            for a, b, _ in pairs.itertuples(index=False):
                assert now.get(a) == now.get(b) or a not in now or b not in now


def test_a_fresh_ingest_does_not_depend_on_the_order(tmp_path):
    chosen = [(family, number) for family in range(4) for number in range(5)]
    forward, pairs = group_near_copies(images(chosen), GroupRegistry(tmp_path / "a"), 8)
    backward, same = group_near_copies(images(chosen[::-1]), GroupRegistry(tmp_path / "b"), 8)
    pd.testing.assert_frame_equal(pairs, same)
    pd.testing.assert_frame_equal(
        forward.sort_values("id", ignore_index=True), backward.sort_values("id", ignore_index=True)
    )


def test_an_image_that_would_join_two_groups_is_set_aside(tmp_path):
    registry = GroupRegistry(tmp_path)
    group_near_copies(images([(0, 1), (0, 2)]), registry, 4)  # six bits apart: two groups
    found, _ = group_near_copies(images([(0, 1), (0, 2), (0, 0)]), registry, 4)
    assert found["problem"].tolist()[2] == "near copies of images in different groups: /(0, 1) and /(0, 2)"
    assert "a removed" not in found["problem"][2]
    alone, _ = group_near_copies(images([(0, 1), (0, 0)]), registry, 4)
    assert alone["problem"][1].endswith("an image that was removed")  # it may come back


def test_given_groups_stay_and_lend_their_name(tmp_path):
    given_groups = images([(0, 1), (1, 0)]).assign(group=["module 1", None])
    found, _ = group_near_copies(
        pd.concat([given_groups, images([(0, 0)])], ignore_index=True), GroupRegistry(tmp_path), 8
    )
    assert found["group"].tolist()[0] == found["group"].tolist()[2] == "module 1"
    assert pd.isna(found["group"].tolist()[1])


def test_real_copies_and_no_others(photos, tmp_path):
    paths = sorted(photos.rglob("*.png"))
    first = Image.open(paths[0]).convert("RGB")
    first.save(tmp_path / "other_format.jpg", quality=80)
    first.resize((220, 220)).save(tmp_path / "smaller.png")
    looks = [
        inspect_image(path.read_bytes()) for path in [*paths, tmp_path / "other_format.jpg", tmp_path / "smaller.png"]
    ]
    hashes = np.array([list(bytes.fromhex(each.perceptual)) for each in looks], dtype=np.uint8)
    found = near_pairs(hashes, np.ones(len(hashes), dtype=bool), 8)
    assert {(0, 60), (0, 61)} <= {(int(a), int(b)) for a, b, _ in found}
    assert len(found) <= 4  # cells of one module look much the same


def test_flat_images_have_no_near_copies(tmp_path):
    flat = images([(0, 0), (0, 1)]).assign(contrast=0.5)
    assert group_near_copies(flat, GroupRegistry(tmp_path), 8)[1].empty
