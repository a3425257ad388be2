"""Sources on a web server and in a bucket, both on 127.0.0.1: what is asked, kept, retried, and refused."""

import os
import sys
from urllib.parse import quote

import boto3
import fsspec
import pytest
from fsspec.registry import _registry
from moto.server import ThreadedMotoServer

from tests.data.sources.conftest import LABELS, TREE, labels_of, png, write_tree
from tests.data.sources.test_archive import contents, pack
from tests.data.sources.test_folder import ODD_NAMES
from tests.data.sources.test_parquet import structs, write
from tests.data.sources.test_webdataset import samples
from tl_dagster import InputError
from tl_dagster.data import files
from tl_dagster.data.file_index import FileIndex
from tl_dagster.data.ingestion import identify
from tl_dagster.data.remote import UnreachableError


@pytest.fixture(scope="module")
def endpoint():
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def bucket(endpoint, monkeypatch, tmp_path):
    """An empty bucket; its address and credentials are in the environment, as for any program."""
    named = {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1", "ENDPOINT_URL": endpoint}
    for name, value in {**named, "CONFIG_FILE": "/dev/null", "SHARED_CREDENTIALS_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    name = f"b{abs(hash(tmp_path))}"
    boto3.client("s3").create_bucket(Bucket=name)
    yield boto3.resource("s3").Bucket(name)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def served(server, kind):
    """A source of each kind on the server, and its path."""
    if kind == "folder":
        write_tree(server.folder / "photos")
        return "photos"
    if kind == "manifest":
        rows = [f"photos/{name},{name[:3]}" for name in TREE]
        (write_tree(server.folder / "photos").parent / "t.csv").write_text("\n".join(["uri,label", *rows]))
        return "t.csv?signature=" + "x" * 300
    if kind == "webdataset":
        pack(server.folder / "train-0.tar", samples(0, ["cat", "dog"] * 3))
        return "train-0.tar"
    if kind == "parquet":
        return write(server.folder / "train-0.parquet", structs(*range(6)), [0, 1] * 3).name
    return pack(server.folder / f"photos.{kind}", TREE).name


@pytest.mark.parametrize("kind", ["folder", "manifest", "zip", "tar", "tar.gz", "webdataset", "parquet"])
def test_over_http_and_unchanged_files_are_not_fetched_again(server, listing, cache_folder, kind, tmp_path):
    url = f"{server.url}/{served(server, kind)}"
    name = "archive" if kind in ("zip", "tar", "tar.gz") else kind
    listed = listing(name, url)
    identified, read, _ = identify(listed, FileIndex(tmp_path / "index"))
    assert labels_of(identified) == LABELS and read == 6
    asked = server.gets()
    identified, read, _ = identify(listing(name, url), FileIndex(tmp_path / "index"))
    assert (labels_of(identified), read, server.gets()) == (LABELS, 0, asked)


def test_a_changed_file_is_fetched_again(server, listing, tmp_path):
    url = f"{server.url}/{served(server, 'folder')}"
    identify(listing("folder", url), FileIndex(tmp_path / "index"))
    (server.folder / "photos" / "cat" / "0.png").write_bytes(png(99))
    identified, read, _ = identify(listing("folder", url), FileIndex(tmp_path / "index"))
    assert read == 1 and identified["id"].nunique() == 6


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_without_etags_everything_is_fetched_again(server, listing, kind):
    server.etags = False
    name = "archive" if kind == "zip" else kind
    url = f"{server.url}/{served(server, kind)}"
    assert labels_of(listing(name, url)) == LABELS
    write_tree(server.folder / "photos", {"cat/9.png": png(9)})
    pack(server.folder / "photos.zip", {**TREE, "cat/9.png": png(9)})
    listed = listing(name, url)
    assert labels_of(listed) == {"cat": 4, "dog": 3} and png(9) in contents(listed)


def test_an_archive_larger_than_one_block_of_fsspec(server, listing):
    pack(server.folder / "photos.zip", {**TREE, "cat/big.png": os.urandom(6 * 2**20)})
    assert len(contents(listing("archive", f"{server.url}/photos.zip"))) == 7


@pytest.mark.parametrize("name", [name for name in ODD_NAMES if b"\xff" not in name])
def test_odd_names_over_http(server, listing, name):
    label = name[:-4].decode()
    write_tree(server.folder / "photos", {f"{label}/{name.decode()}": png(1), "cat/0.png": png(2)})
    listed = listing("folder", f"{server.url}/photos/")
    assert labels_of(listed) == {label: 1, "cat": 1} and contents(listed) == sorted([png(1), png(2)])


def test_odd_names_in_a_table_are_paths_and_urls_are_urls(server, listing):
    write_tree(server.folder, {"in/a #%41?.png": png(1), "in/b.png": png(2)})
    (server.folder / "t.csv").write_text(f"uri,label\nin/a #%41?.png,x\n{server.url}/in/{quote('b')}.png,y\n")
    assert contents(listing("manifest", f"{server.url}/t.csv")) == sorted([png(1), png(2)])


def test_a_local_table_with_urls(server, listing, tmp_path):
    write_tree(server.folder)
    rows = [f"{server.url}/{name},{name[:3]}" for name in [*TREE, "cat/gone.png"]]
    (tmp_path / "t.csv").write_text("\n".join(["uri,label", *rows]))
    listed = listing("manifest", "t.csv")
    assert labels_of(listed) == LABELS and contents(listed) == sorted(TREE.values())
    assert listed["problem"].dropna().str.startswith("cannot be read: FileNotFoundError").tolist() == [True]


def test_links_of_an_index_page_that_lead_elsewhere(server, listing):
    write_tree(server.folder / "photos")
    links = ["?C=N;O=D", "/", "../", "../../", "./", "", "../secret/", "//x/y.png", "cat/../../secret/x.png", "cat//"]
    links += ["cat/", "dog/", "http://127.0.0.1:1/photos/x.png", "dog/a&amp;b.png", "#top"]
    write_tree(server.folder, {"secret/x.png": png(5), "photos/dog/a&b.png": png(6)})
    (server.folder / "photos" / "index.html").write_text("".join(f'<a href="{link}">x</a>' for link in links))
    listed = listing("folder", f"{server.url}/photos")
    assert labels_of(listed) == {"cat": 3, "dog": 4}
    assert not any("secret" in path for _, path in server.asked)


@pytest.mark.parametrize("answer", [503, 429, 0.6])
def test_what_fails_once_is_asked_again(server, listing, answer):
    server.broken = {"/cat/1.png": (answer, 1), "/dog": (answer, 1)}
    listed = listing("folder", f"{server.url}/{served(server, 'folder')}")
    assert labels_of(listed) == LABELS and listed["stamp"].notna().all()


@pytest.mark.parametrize("answer", [503, 0.6])
@pytest.mark.parametrize("part", ["/photos", "/dog"])
def test_a_listing_that_is_not_answered_is_no_smaller_one(server, listing, answer, part):
    server.broken = {part: (answer, 99)}
    with pytest.raises(UnreachableError, match=f"{part}.* did not answer in 3 attempts"):
        listing("folder", f"{server.url}/{served(server, 'folder')}")


@pytest.mark.parametrize("kind", ["zip", "webdataset", "parquet", "manifest"])
@pytest.mark.parametrize("answer", [503, 404])
def test_containers_that_are_not_answered(server, listing, cache_folder, kind, answer):
    path = served(server, kind)
    server.broken = {path: (answer, 99)}
    with pytest.raises(UnreachableError if answer == 503 else InputError, match=path.partition("?")[0]):
        listing("archive" if kind == "zip" else kind, f"{server.url}/{path}")
    assert not [file for file in cache_folder.rglob("*") if file.is_file()]


@pytest.mark.parametrize("answer", [503, 0.6])
def test_what_was_read_before_a_server_stopped_is_kept(server, listing, tmp_path, monkeypatch, answer):
    monkeypatch.setattr("tl_dagster.data.ingestion.PART", 1)  # files that are handed over together
    monkeypatch.setattr("tl_dagster.data.remote.MOST_UNANSWERED", 2)
    monkeypatch.setattr("tl_dagster.data.ingestion.REQUESTS", 1)
    listed = listing("folder", f"{server.url}/{served(server, 'folder')}")
    server.broken = {"/dog/": (answer, 99)}
    with pytest.raises(UnreachableError, match="what was read before is kept"):
        identify(listed, FileIndex(tmp_path / "index"), workers=1)
    server.broken = {}
    assert identify(listed, FileIndex(tmp_path / "index"))[1] == 3


@pytest.mark.parametrize("answer", [503, 0.6])
@pytest.mark.parametrize("moment", ["listing", "reading"])
def test_one_url_that_fails_is_set_aside_like_one_broken_file(server, listing, tmp_path, answer, moment):
    write_tree(server.folder)
    (tmp_path / "t.csv").write_text("\n".join(["uri,label", *(f"{server.url}/{name},{name[:3]}" for name in TREE)]))
    if moment == "listing":
        server.broken = {"/dog/1.png": (answer, 99)}
    listed = listing("manifest", "t.csv")
    server.broken = {"/dog/1.png": (answer, 99)}
    identified, _, _ = identify(listed, FileIndex(tmp_path / "index"))
    assert labels_of(identified) == {"cat": 3, "dog": 2}
    (problem,) = identified["problem"].dropna()
    assert problem.startswith("cannot be read: did not answer in 3 attempts (")
    server.broken = {}
    identified, read, _ = identify(listing("manifest", "t.csv"), FileIndex(tmp_path / "index"))
    assert labels_of(identified) == LABELS and read == 1


@pytest.mark.parametrize(("answer", "asked"), [(403, 1), (404, 1), (503, 3), (408, 3)])
def test_a_no_is_not_asked_again(server, answer, asked):
    server.broken = {"x.png": (answer, 99)}
    with pytest.raises(UnreachableError if asked == 3 else OSError):
        files.read(f"{server.url}/x.png")
    assert server.asked["GET", "/x.png"] == asked


def test_a_server_that_is_not_there(listing):
    with pytest.raises(UnreachableError, match=r"127.0.0.1:9/x.* did not answer in 3 attempts"):
        listing("folder", "http://127.0.0.1:9/x")


def test_the_configuration_of_fsspec_is_used(server, listing, monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "http", {"client_kwargs": {"headers": {"Authorization": "Bearer t"}}})
    listing("folder", f"{server.url}/{served(server, 'folder')}")
    assert server.headers["Authorization"] == "Bearer t"


@pytest.mark.parametrize("name", ["..", "..%2F..%2Fout", "%2e%2e"])
def test_no_name_of_a_container_leads_out_of_the_kept_folder(server, listing, cache_folder, tmp_path, name):
    before = {*tmp_path.rglob("*")}
    with pytest.raises(InputError):
        listing("archive", f"{server.url}/{name}")
    assert all(cache_folder in (new, *new.parents) for new in {*tmp_path.rglob("*")} - before)


@pytest.mark.parametrize("place", ["", "photos", "a b/#%41"])
def test_a_folder_in_a_bucket(bucket, listing, tmp_path, place):
    prefix = f"{place}/" if place else ""
    for name, content in {**TREE, "cat/": b"", ".hidden/x.png": b""}.items():
        bucket.put_object(Key=prefix + name, Body=content)
    if place:
        bucket.put_object(Key=f"{place}-2/cat/7.png", Body=b"")
    url = f"s3://{bucket.name}/{place}"
    identified, read, _ = identify(listing("folder", url), FileIndex(tmp_path / "index"))
    assert (labels_of(identified), read) == (LABELS, 6)
    bucket.put_object(Key=f"{prefix}cat/0.png", Body=png(99))
    bucket.put_object(Key=f"{prefix}cat/9.png", Body=png(98))
    identified, read, _ = identify(listing("folder", url), FileIndex(tmp_path / "index"))
    assert (labels_of(identified), read) == ({"cat": 4, "dog": 3}, 2)


def test_splits_in_a_bucket(bucket, listing):
    for part in ("train", "dev", "test"):
        for name, content in TREE.items():
            bucket.put_object(Key=f"in/{part}/{name}", Body=content)
    listed = listing("folder", f"s3://{bucket.name}/in")
    assert labels_of(listed) == {"cat": 9, "dog": 9}
    assert listed["split"].value_counts().to_dict() == {"train": 6, "validation": 6, "test": 6}
    bucket.put_object(Key="in/unlabeled/cat/0.png", Body=png(0))
    with pytest.raises(InputError, match=f"s3://{bucket.name}/in: .* is named like a split, and 'unlabeled' is not"):
        listing("folder", f"s3://{bucket.name}/in")


def test_shards_in_folders_of_splits_over_http_and_in_a_bucket(server, bucket, listing, tmp_path):
    for number, part in enumerate(("train", "test")):
        tar = pack(tmp_path / "x.tar", samples(10 * number, ["cat", "dog"]))
        write_tree(server.folder / "my test%20data" / part, {"000.tar": tar.read_bytes()})
        bucket.upload_file(str(tar), f"shards/{part}/000.tar")
    for url in (f"{server.url}/my%20test%2520data", f"s3://{bucket.name}/shards"):
        assert listing("webdataset", url)["split"].value_counts().to_dict() == {"train": 2, "test": 2}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_in_a_bucket(bucket, listing, tmp_path, kind):
    for tree in (TREE, {**TREE, "cat/9.png": png(9)}):
        bucket.upload_file(str(pack(tmp_path / f"photos.{kind}", tree)), f"in/photos.{kind}")
        listed = listing("archive", f"s3://{bucket.name}/in/photos.{kind}")
        assert contents(listed) == sorted(tree.values())


@pytest.mark.parametrize("path", ["train-{0..1}.tar", "train-*.tar", ""])
def test_shards_in_a_bucket(bucket, listing, tmp_path, path):
    for number in range(2):
        tar = pack(tmp_path / "x.tar", samples(10 * number, ["cat", "dog"]))
        bucket.upload_file(str(tar), f"shards/train-{number}.tar")
    listed = listing("webdataset", f"s3://{bucket.name}/shards/{path}")
    assert labels_of(listed) == {"cat": 2, "dog": 2} and set(listed["split"]) == {"train"}


@pytest.mark.parametrize("path", ["train-*.tar", ""])
def test_shards_over_http(server, listing, path):
    for number in range(2):
        pack(server.folder / f"train-{number}.tar", samples(10 * number, ["cat", "dog"]))
    assert labels_of(listing("webdataset", f"{server.url}/{path}")) == {"cat": 2, "dog": 2}


@pytest.mark.parametrize("name", [name.decode() for name in ODD_NAMES if name.isascii() and b"\n" not in name])
def test_odd_keys_in_a_bucket(bucket, listing, name):
    bucket.put_object(Key=f"cat/{name}", Body=png(1))
    bucket.put_object(Key="dog/0.png", Body=png(2))
    assert contents(listing("folder", f"s3://{bucket.name}")) == sorted([png(1), png(2)])


@pytest.mark.parametrize(
    ("kind", "path", "words"),
    [("folder", "nowhere", "holds no images"), ("archive", "x.zip", "cannot be read: FileNotFoundError")],
)
def test_keys_that_are_not_there(bucket, listing, kind, path, words):
    with pytest.raises(InputError, match=words):
        listing(kind, f"s3://{bucket.name}/{path}")


def test_a_bucket_that_is_not_there(bucket, listing):
    with pytest.raises(InputError, match="s3://no-such-bucket/x cannot be listed: FileNotFoundError"):
        listing("folder", "s3://no-such-bucket/x")


def test_no_credentials(bucket, listing, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InputError, match=r"cannot be listed: .*credentials"):
        listing("folder", f"s3://{bucket.name}/x")


@pytest.mark.parametrize(
    ("url", "module", "words"),
    [
        ("s3://b/x", "s3fs", r"pip install 'tl-dagster\[s3\]'"),
        ("gs://b/x", "gcsfs", r"pip install 'tl-dagster\[gcs\]'"),
        ("abfs://b/x", "adlfs", "abfs:// needs another package: .*adlfs"),
        ("htp://b/x", "none", "Protocol not known: htp; use a path, https://"),
    ],
)
def test_protocols_without_their_package(listing, monkeypatch, url, module, words):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(_registry, url.partition(":")[0], raising=False)
    with pytest.raises(InputError, match=words):
        listing("folder", url)
