"""What the tests of sources share: small real images, a place to read from, and a web server on 127.0.0.1."""

import hashlib
import io
import threading
import time
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image
from pydantic import TypeAdapter

from tl_dagster.data.source_cache import SourceCache, SourceContext
from tl_dagster.data.sources import Source, list_images


def png(value: int, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (value % 256, value // 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


# What a folder, an archive, a bucket and a server hold, where a test does not say otherwise.
TREE = {f"{label}/{number}.png": png(number + 10 * (label == "dog")) for label in ("cat", "dog") for number in range(3)}
LABELS = {"cat": 3, "dog": 3}


def write_tree(folder: Path, tree: dict = TREE) -> Path:
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def labels_of(listed) -> dict:
    return listed.loc[listed["problem"].isna(), "label"].value_counts().to_dict()


@pytest.fixture
def cache_folder(tmp_path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def listing(tmp_path, cache_folder):
    """Lists a declared source."""

    def list_(kind, path, **fields):
        named = {"name": path} if kind == "torchvision" else {"path": str(path)}
        source = TypeAdapter(Source).validate_python({"kind": kind, **named, **fields})
        return list_images(source, SourceContext(tmp_path, SourceCache(cache_folder)))

    return list_


class Server:
    """A web server of a folder: counts requests, tells etags, and breaks where it is told to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.asked: Counter = Counter()
        self.broken: dict = {}  # part of a path → (answer or seconds to stall, how many times)
        self.headers: dict = {}
        self.etags = True
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def send_head(self):
                path = unquote(self.path, errors="surrogateescape")
                server.asked[self.command, path] += 1
                server.headers = dict(self.headers)
                for part, (answer, times) in list(server.broken.items()):
                    if part in path and times > 0:
                        server.broken[part] = (answer, times - 1)
                        if answer < 100:
                            time.sleep(answer)
                            return None
                        return self.send_error(answer)
                return super().send_head()

            def end_headers(self):
                file = Path(self.translate_path(self.path))
                if server.etags and file.is_file():
                    self.send_header("ETag", hashlib.md5(file.read_bytes()).hexdigest())  # noqa: S324
                super().end_headers()

            def send_header(self, keyword, value):
                if server.etags or keyword != "Last-Modified":
                    super().send_header(keyword, value)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def gets(self) -> int:
        """How many files were fetched."""
        return sum(count for (verb, path), count in self.asked.items() if verb == "GET" and path[-1] != "/")

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "served")
    yield server
    server.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Retries that wait for milliseconds, and servers that have a third of a second to answer."""
    monkeypatch.setattr("tl_dagster.runtime.retries.FIRST_WAIT", 0.01)
    monkeypatch.setattr("tl_dagster.runtime.retries.ATTEMPTS", 3)
    monkeypatch.setattr("tl_dagster.data.remote.READ_SECONDS", 0.3)
