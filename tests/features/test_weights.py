"""Where weights come from: a real download from a local server, checked and kept."""

import hashlib
import http.server
import threading

import pytest

from tl_dagster import InputError
from tl_dagster.features.catalogue import look_up
from tl_dagster.features.weights import locate
from tl_dagster.spec import Backbone

CONTENT = b"not really weights" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path == "/weights.pth" else 404)
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()


def located(**fields):
    backbone = Backbone(name="torchvision/squeezenet1_1", **fields)
    return locate(backbone, look_up(backbone))


def test_downloaded_once_and_checked(store, server):
    url, asked = server
    for _ in range(2):
        weights = located(weights=f"{url}/weights.pth", sha256=SHA)
        assert weights.path.read_bytes() == CONTENT
        assert weights.identity == SHA
    assert asked == ["/weights.pth"]


def test_wrong_checksum_is_not_kept(store, server, tmp_path):
    with pytest.raises(InputError, match="not 00000000"):
        located(weights=f"{server[0]}/weights.pth", sha256="0" * 64)
    assert not list((tmp_path / "torch").rglob("*weights*"))


@pytest.mark.parametrize(
    ("weights", "sha256", "words"),
    [
        ("/missing", SHA, "put the file at .*missing yourself"),
        ("/weights.pth", None, "need the file's SHA-256"),
    ],
)
def test_bad_urls(store, server, weights, sha256, words):
    with pytest.raises(InputError, match=words):
        located(weights=server[0] + weights, sha256=sha256)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("./nowhere.pth", "no file"),
        ("random:x", "random:SEED"),
        ("package:nowhere/x.pth", "not installed"),
        ("ftp://x/y.pth", "SHA-256"),
    ],
)
def test_bad_weights(store, weights, words):
    with pytest.raises(InputError, match=words):
        located(weights=weights)
