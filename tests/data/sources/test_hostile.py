"""What is read of one input never exceeds its limit, whatever the input says of itself."""

import gzip
import io
import lzma
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.sources.conftest import TREE, labels_of, png
from tests.data.sources.test_archive import pack
from tl_dagster import InputError
from tl_dagster.data import files, tar_files
from tl_dagster.data.limits import TooLargeError, read_bounded

MIB = 2**20


@pytest.fixture
def peak():
    """Returns the bytes that Python has allocated at most since the last call."""
    tracemalloc.start()

    def measure() -> int:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        return most

    yield measure
    tracemalloc.stop()


class Endless(io.RawIOBase):
    """A stream that never ends, and counts what was taken from it."""

    taken = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        self.taken += size
        return bytes(size)


@pytest.mark.parametrize("limit", [0, 10, MIB, MIB + 1])
def test_one_byte_more_than_the_limit_is_read_at_most(limit):
    stream = Endless()
    with pytest.raises(TooLargeError, match=f"over {limit:,} bytes"):
        read_bounded(stream, limit)
    assert stream.taken == limit + 1
    assert read_bounded(io.BytesIO(b"x" * limit), limit) == b"x" * limit


def lying_zip(path, method, content: bytes):
    """A zip file whose first member says that it has 1,000 bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("cat/lie.png", content)
        for name, photo in TREE.items():
            archive.writestr(name, photo)
    packed = bytearray(path.read_bytes())
    at = packed.find(b"PK\1\2") + 24
    packed[at : at + 4] = struct.pack("<I", 1000)
    path.write_bytes(packed)
    return path


@pytest.mark.parametrize(("method", "size"), [(zipfile.ZIP_DEFLATED, 64), (zipfile.ZIP_BZIP2, 64)])
def test_a_zip_member_that_holds_more_than_it_says(tmp_path, listing, peak, method, size):
    listed = listing("archive", lying_zip(tmp_path / "photos.zip", method, bytes(size * MIB)))
    uri = next(uri for uri in listed["uri"] if "lie" in uri)
    peak()
    with pytest.raises(OSError, match="Bad CRC-32"):
        files.read(uri)
    assert peak() < size * MIB * 2 / 3
    assert len([files.read(uri) for uri in listed["uri"] if "lie" not in uri]) == len(TREE)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_files_of_every_method(tmp_path, listing, method):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", method) as archive:
        for name, photo in TREE.items():
            archive.writestr(name, photo)
    listed = listing("archive", "photos.zip")
    assert sorted(files.read(uri) for uri in listed["uri"]) == sorted(TREE.values())


@pytest.mark.parametrize("kind", ["zip", "tar", "file"])
def test_a_file_that_is_too_large_is_not_read(tmp_path, listing, kind):
    if kind == "file":
        (tmp_path / "a.png").write_bytes(png(1))
        uri = str(tmp_path / "a.png")
    else:
        uri = listing("archive", pack(tmp_path / f"photos.{kind}", TREE))["uri"][0]
    assert len(files.read(uri)) > 10
    with pytest.raises(TooLargeError, match="too large: over 10 bytes"):
        files.read(uri, 10)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_of_a_tar_file_that_would_fill_the_memory(tmp_path, listing, peak, kind):
    header = tarfile.TarInfo("cat/x")
    header.type, header.size = kind, 64 * MIB
    path = tmp_path / "photos.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(64 * MIB), 1))
    peak()
    with pytest.raises(InputError, match=r"photos.tar.gz is a damaged tar file: a header of 67,108,864 bytes"):
        listing("archive", path)
    assert peak() < 20 * MIB


def test_headers_that_follow_each_other_without_end(tmp_path, listing):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1
    (tmp_path / "photos.tar").write_bytes((header.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")) * 3000)
    with pytest.raises(InputError, match=r"photos.tar is a damaged tar file"):
        listing("archive", "photos.tar")


def with_large_dictionary(content: bytes) -> bytes:
    """The same .xz file, which asks for a dictionary of 1.5 GiB."""
    at = 12  # after the stream's header
    size = 4 * content[at] + 4
    block = bytearray(content[at : at + size])
    block[block.index(b"\x21\x01") + 2] = 39
    block[-4:] = struct.pack("<I", zlib.crc32(block[:-4]))
    return content[:at] + bytes(block) + content[at + size :]


def test_a_tar_file_that_takes_much_memory_to_unpack(tmp_path, listing):
    path = pack(tmp_path / "photos.tar.xz", TREE)
    path.write_bytes(with_large_dictionary(path.read_bytes()))
    with pytest.raises(InputError, match=r"photos.tar.xz is damaged: .*[Mm]emory"):
        listing("archive", path)


def test_a_tar_xz_of_several_streams(tmp_path, listing, monkeypatch):
    monkeypatch.setattr(tar_files, "CHUNK", 100)
    plain = pack(tmp_path / "photos.tar", TREE).read_bytes()
    parts = [lzma.compress(plain[:700]), bytes(8), lzma.compress(plain[700:]), bytes(4)]
    (tmp_path / "photos.tar.xz").write_bytes(b"".join(parts))
    assert labels_of(listing("archive", "photos.tar.xz")) == {"cat": 3, "dog": 3}


def repeat(path, content: bytes, rows: int):
    """A Parquet file that holds one value once, and repeats it in each row."""
    images = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([content], pa.binary()))
    table = pa.table({"image": images, "label": ["cat", "dog"] * (rows // 2)})
    pq.write_table(table, path, dictionary_pagesize_limit=2**30, compression="zstd", store_schema=False)
    return path


def test_parquet_files_that_repeat_a_large_value(tmp_path, listing, monkeypatch):
    monkeypatch.setattr("tl_dagster.data.parquet_images.BATCH_BYTES", MIB)
    for size, rows in ((8 * MIB, 2), (MIB // 4, 40)):  # one value too large, and many rows of a small one
        with pytest.raises(InputError, match=r"bomb.parquet: column 'image' unpacks [\d,]+ bytes to \d,\d+,\d+ or"):
            listing("parquet", repeat(tmp_path / "bomb.parquet", bytes(size), rows))
    content = png(1) + np.random.default_rng(0).bytes(340_000)
    before = pa.default_memory_pool().max_memory()
    assert labels_of(listing("parquet", repeat(tmp_path / "photos.parquet", content, 90))) == {"cat": 45, "dog": 45}
    assert pa.default_memory_pool().max_memory() <= max(before, 20 * MIB)
