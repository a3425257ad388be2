"""The memory that hostile inputs take: archives, tables, servers and images that say less than they hold, or too much.

:func:`hostile_peak_mb` reads each of them as a source, as ``dataset`` does. To be called in a process of its own:
it returns the most memory that the process ever had.
"""

import io
import random
import resource
import struct
import sys
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ZEROS = bytes(2**20)
GIB = 1024  # of ZEROS


def lying_zip(folder: Path, method: int, size: int) -> dict[str, Any]:
    """A zip file whose members say that they have 1,000 bytes, and unpack to ``size`` MiB."""
    path = folder / f"lying-{method}.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in ("cat/0.png", "dog/0.png"):
            with archive.open(name, "w", force_zip64=True) as member:
                for _ in range(size):
                    member.write(ZEROS)
    content = bytearray(path.read_bytes())
    at = 0
    while (at := content.find(b"PK\1\2", at)) >= 0:
        content[at + 24 : at + 28] = struct.pack("<I", 1000)
        at += 4
    path.write_bytes(content)
    return {"kind": "archive", "path": str(path)}


def long_header(folder: Path) -> dict[str, Any]:
    """A tar.gz of some megabytes, with a member's name of 1 GiB."""
    path = folder / "header.tar.gz"
    packer = zlib.compressobj(1, wbits=31)
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, GIB * len(ZEROS)
    with path.open("wb") as file:
        file.write(packer.compress(header.tobuf(tarfile.GNU_FORMAT)))
        for _ in range(GIB):
            file.write(packer.compress(ZEROS))
        file.write(packer.compress(tarfile.TarInfo("cat/0.png").tobuf()) + packer.flush())
    return {"kind": "archive", "path": str(path)}


def many_members(folder: Path) -> dict[str, Any]:
    """A tar file of 2,900 members of three bytes each: read by threads of this process."""
    path = folder / "many.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(2_900):
            member = tarfile.TarInfo(f"{'cat' if number % 2 else 'dog'}/{number}.png")
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    return {"kind": "archive", "path": str(path)}


def repeated_value(folder: Path, content: bytes, rows: int) -> dict[str, Any]:
    """A Parquet file that stores one value and repeats it in each row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"repeated-{rows}.parquet"
    images = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([content], pa.binary()))
    table = pa.table({"image": images, "label": ["cat", "dog"] * (rows // 2)})
    pq.write_table(table, path, dictionary_pagesize_limit=2**30, compression="zstd", store_schema=False)
    return {"kind": "parquet", "path": str(path)}


def large_images(folder: Path) -> dict[str, Any]:
    """Two folders of PNG files of a few kB, each as large as an image may be when it is decoded, or larger."""
    for label in ("cat", "dog"):
        (folder / "large" / label).mkdir(parents=True)
        for side in (10_900, 60_000):
            (folder / "large" / label / f"{side}.png").write_bytes(_flat_png(side))
    return {"kind": "folder", "path": str(folder / "large")}


def _flat_png(side: int) -> bytes:
    """Return a black PNG of RGBA pixels; made without its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer, row = zlib.compressobj(), bytes(1 + 4 * side)
    rows = b"".join(packer.compress(row) for _ in range(min(side, 2**29 // len(row)))) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _links(number: int) -> bytes:
    return b"".join(b'<a href="%x">' % (number << 16 | link) for link in range(2**16))


class Endless(BaseHTTPRequestHandler):
    """A server that answers every request with 3 GiB: zeros, or an index page of short links."""

    def do_GET(self) -> None:
        """Send until the client has enough."""
        page = self.path.endswith("/")
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if page else "image/png")
        if "stated" in self.path:
            self.send_header("Content-Length", str(3 * 2**30))
        self.end_headers()
        with suppress(OSError):
            for number in range(3 * GIB):
                self.wfile.write(_links(number) if page else ZEROS)

    def do_HEAD(self) -> None:
        """Send the type and an etag."""
        self.send_response(200)
        self.send_header("ETag", "x")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def endless_server() -> Iterator[str]:
    """Yield the URL of an :class:`Endless` server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def endless_urls(folder: Path, url: str) -> dict[str, Any]:
    """A table of URLs of 3 GiB each."""
    rows = [f"{url}/{number}{'-stated' * (number % 4 == 0)}.png,{'cd'[number % 2]}" for number in range(8)]
    (folder / "urls.csv").write_text("\n".join(["uri,label", *rows]))
    return {"kind": "manifest", "path": str(folder / "urls.csv")}


def ingest(source: dict[str, Any], folder: Path) -> str:
    """Read a source as ``dataset`` does; return what became of it."""
    from pydantic import TypeAdapter

    from tl_dagster.data.file_index import FileIndex
    from tl_dagster.data.ingestion import identify
    from tl_dagster.data.source_cache import SourceCache, SourceContext
    from tl_dagster.data.sources import Source, list_images
    from tl_dagster.runtime.errors import InputError

    declared: Any = TypeAdapter(Source).validate_python(source)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        try:
            listing = list_images(declared, SourceContext(folder, SourceCache(Path(work, "sources"))))
            identified, _, _ = identify(listing, FileIndex(Path(work, "index")))
        except InputError as error:
            return str(error)
    problems = identified["problem"].dropna()
    return f"{len(problems)} of {len(identified)} set aside: {problems.iloc[0] if len(problems) else ''}"


def peak_mb() -> float:
    """Return the most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def hostile_peak_mb() -> float:
    """Return the peak memory (MB) of this process after it has read every hostile input; call it in a fresh one."""
    with tempfile.TemporaryDirectory() as temporary, endless_server() as url:
        folder = Path(temporary)
        inputs: list[Callable[[], dict[str, Any]]] = [
            lambda: lying_zip(folder, zipfile.ZIP_DEFLATED, GIB),
            lambda: lying_zip(folder, zipfile.ZIP_BZIP2, GIB // 4),
            lambda: long_header(folder),
            lambda: many_members(folder),
            lambda: repeated_value(folder, bytes(2**25), 300),
            lambda: repeated_value(folder, random.Random(0).randbytes(2**22), 60),  # noqa: S311
            lambda: large_images(folder),
            lambda: endless_urls(folder, url),
            lambda: {"kind": "folder", "path": f"{url}/index/"},
        ]
        for build in inputs:
            source = build()
            print(f"{peak_mb():7.0f} MB before {source['path']}", file=sys.stderr)
            print(f"{'':11}{ingest(source, folder)[:150]}", file=sys.stderr)
    return peak_mb()


if __name__ == "__main__":
    print(f"{hostile_peak_mb():.0f} MB")
