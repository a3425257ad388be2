"""Where weights come from: a real download from a local server, checked and kept."""

import hashlib
import http.server
import socket
import threading
from dataclasses import replace

import pytest

from tl_dagster import InputError
from tl_dagster.backbones import weights as weights_module
from tl_dagster.backbones.description import describe_backbone
from tl_dagster.backbones.settings import Backbone
from tl_dagster.backbones.weights import locate_weights

CONTENT = b"not really weights" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path.startswith("/resolve/"):  # as huggingface.co does
                self.send_response(302)
                self.send_header("Location", "/weights.pth")
                self.send_header("X-Linked-ETag", f'"{self.path.rpartition("/")[2].removesuffix(".safetensors")}"')
                self.end_headers()
                return
            self.send_response(200 if self.path in ("/weights.pth", "/short.pth") else 404)
            if self.path == "/short.pth":
                self.send_header("Content-Length", str(len(CONTENT) + 1))
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
    return locate_weights(backbone, describe_backbone(backbone))


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


def pre_trained(url):
    """The library's own weights, as if they were there."""
    backbone = Backbone(name="torchvision/squeezenet1_1")
    return locate_weights(backbone, replace(describe_backbone(backbone), weights={"url": url, "sha256": ""}))


def test_the_checksum_that_the_hub_announces_is_checked(store, server, tmp_path):
    url, asked = server
    assert pre_trained(f"{url}/resolve/{SHA}.safetensors").identity == SHA
    assert asked == [f"/resolve/{SHA}.safetensors", "/weights.pth"]
    with pytest.raises(InputError, match=r"has SHA-256 .*, not 0000.*announced: it was damaged on the way"):
        pre_trained(f"{url}/resolve/{'0' * 64}.safetensors")
    assert not list((tmp_path / "torch").rglob("0000*"))


def test_an_unfinished_or_unanswered_download_says_where_the_file_belongs(store, server, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "ATTEMPTS", 1)
    with pytest.raises(InputError, match=r"only 18,000 of 18,001 bytes came"):
        pre_trained(f"{server[0]}/short.pth")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/name.pth"
        place = tmp_path / "torch" / "hub" / "checkpoints" / "name.pth"
        with pytest.raises(InputError, match=f"without a network, put the file at {place} yourself"):
            pre_trained(url)
    place.write_bytes(CONTENT)
    assert pre_trained(url).path == place


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
