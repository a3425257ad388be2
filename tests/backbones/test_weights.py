"""Where weights come from: real downloads from a local server, checked and stored, and found again."""

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading

import pytest
import torch

from tl_dagster import InputError
from tl_dagster.backbones import downloads
from tl_dagster.backbones.description import describe_backbone
from tl_dagster.backbones.settings import Backbone
from tl_dagster.backbones.weights import find_weights, locate_weights

CONTENT = b"not really weights" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()
HUB_FILE = "https://huggingface.co/timm/some_net/resolve/main/model.safetensors"
HUB_PATH = HUB_FILE.removeprefix("https://huggingface.co")
# Runs on its own, as HF_ENDPOINT and its like are read when huggingface_hub is imported.
LOCATE = f"""
import json, sys
from tl_dagster.backbones.settings import Backbone
from tl_dagster.backbones.weights import find_weights, locate_weights
try:
    answer = str(locate_weights(Backbone(weights={HUB_FILE!r}, sha256={SHA!r}), None).path)
    assert str(find_weights({SHA!r})) == answer
except Exception as error:
    answer = f"{{type(error).__name__}}: {{error}}"
print(json.dumps([answer, "torch" in sys.modules]))
"""


class Server(http.server.ThreadingHTTPServer):
    """Serves the content as a plain server does, and as huggingface.co does, which redirects to another host."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, str | None]] = []  # method, path, token
        self.announced = SHA
        self.short = 0  # answers that end too early
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self):
        if not self.path.startswith("/api/"):  # what the hub's client asks beside the file
            self.server.asked.append((self.command, self.path, self.headers["Authorization"]))
        if self.path == HUB_PATH:
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/weights.pth")
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("X-Linked-ETag", f'"{self.server.announced}"')
            self.send_header("X-Linked-Size", str(len(CONTENT)))
        elif self.path == "/weights.pth":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
        else:
            self.send_response({"/busy.pth": 503}.get(self.path, 404))
            self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        if self.path == "/weights.pth":
            self.server.short -= 1
            self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.server.short >= 0 else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("tl_dagster.runtime.retries.FIRST_WAIT", 0.01)
    monkeypatch.setattr("tl_dagster.runtime.retries.ATTEMPTS", 2)
    running = Server()
    yield running
    running.close()


def located(**fields):
    backbone = Backbone(name="torchvision/squeezenet1_1", **fields)
    return locate_weights(backbone, describe_backbone(backbone))


def test_downloaded_once_and_checked(store, server, tmp_path):
    for _ in range(2):
        weights = located(weights=f"{server.url}/weights.pth", sha256=SHA)
        assert weights.path == tmp_path / "torch" / "hub" / "checkpoints" / "weights.pth"
        assert weights.path.read_bytes() == CONTENT
        assert weights.identity == SHA
    assert [asked[:2] for asked in server.asked] == [("GET", "/weights.pth")]


def test_the_folder_is_that_of_torch(monkeypatch, tmp_path):
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        assert str(downloads._get_checkpoint_path("https://x/y.pth").parent.parent) == torch.hub.get_dir()
        monkeypatch.delenv("TORCH_HOME", raising=False)
        monkeypatch.setenv(name, str(tmp_path / name))
        assert str(downloads._get_checkpoint_path("https://x/y.pth").parent.parent) == torch.hub.get_dir()


def test_wrong_checksum_is_not_stored(store, server, tmp_path):
    with pytest.raises(InputError, match=r"not 00000000.*the server has another file"):
        located(weights=f"{server.url}/weights.pth", sha256="0" * 64)
    assert not [path for path in (tmp_path / "torch").rglob("*") if path.is_file()]


def test_a_connection_that_ends_early_is_tried_again(server):
    server.short = 1
    assert downloads.download(f"{server.url}/weights.pth", "").read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_an_unfinished_or_unanswered_download_says_where_the_file_belongs(server, tmp_path):
    place = tmp_path / "torch" / "hub" / "checkpoints"
    server.short = 9
    with pytest.raises(InputError, match=rf"cannot download .*, put the file at {place}/weights.pth yourself"):
        downloads.download(f"{server.url}/weights.pth", "")
    assert not list(place.iterdir())
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/name.pth"
        with pytest.raises(InputError, match=f"without a network, put the file at {place}/name.pth yourself"):
            downloads.download(url, "")
    (place / "name.pth").write_bytes(CONTENT)
    assert downloads.download(url, "") == place / "name.pth"


@pytest.mark.parametrize(("path", "requests"), [("/missing.pth", 1), ("/busy.pth", 2)])
def test_an_answer_is_not_asked_for_again_but_a_busy_server_is(server, path, requests):
    with pytest.raises(InputError, match=f"cannot download .*{path}"):
        downloads.download(f"{server.url}{path}", SHA)
    assert len(server.asked) == requests


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x.pth",
        "http://127.0.0.1.example/x.pth",
        "http://localhost@example.com/x.pth",
        "ftp://127.0.0.1/x.pth",
        "https:///x.pth",
    ],
)
def test_only_encrypted_or_local_servers_are_asked(server, url):
    with pytest.raises(InputError, match="only https:// is downloaded"):
        downloads.download(url, SHA)


def locate_from_hub(server, folder, **environment):
    """The path or the error, from a process that has this environment."""
    settings = {"HF_ENDPOINT": server.url, "HF_HOME": str(folder / "hf"), "HF_TOKEN": "hf_secret", **environment}
    done = subprocess.run(
        [sys.executable, "-c", LOCATE], env={**os.environ, **settings}, capture_output=True, text=True, check=True
    )
    answer, imported_torch = json.loads(done.stdout)
    assert not imported_torch
    return answer


def test_hub_files_come_through_huggingface_hub(server, tmp_path):
    place = tmp_path / "hf" / "hub" / "models--timm--some_net" / "snapshots" / ("c" * 40) / "model.safetensors"
    offline = locate_from_hub(server, tmp_path, HF_HUB_OFFLINE="1")
    assert offline.startswith("InputError") and not server.asked
    assert f"put the file at {tmp_path}/torch/hub/checkpoints/timm-some_net-model.safetensors yourself" in offline
    server.short = 1  # the rest is asked for again
    assert locate_from_hub(server, tmp_path) == str(place)
    assert server.asked[0] == ("HEAD", HUB_PATH, "Bearer hf_secret")
    assert server.asked[-1] == ("GET", "/weights.pth", None)  # another host is not shown the token
    server.asked.clear()
    assert locate_from_hub(server, tmp_path) == str(place) and not server.asked  # found again without a network


def test_a_hub_file_that_is_not_the_announced_one_is_deleted(server, tmp_path):
    server.announced = "0" * 64
    answer = locate_from_hub(server, tmp_path)
    assert f"has SHA-256 {SHA[:16]}…, not 0000000000000000…; it was damaged on the way and is deleted" in answer
    assert not list((tmp_path / "hf").rglob("model.safetensors")) and not list((tmp_path / "hf").rglob("0" * 64))


def test_a_hub_file_that_was_put_there_needs_no_hub(server, tmp_path):
    place = tmp_path / "torch" / "hub" / "checkpoints" / "timm-some_net-model.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert locate_from_hub(server, tmp_path) == str(place) and not server.asked


def test_weights_are_found_by_their_checksum(server, tmp_path):
    shipped = locate_weights(Backbone(), None)
    assert find_weights(shipped.identity) == shipped.path and shipped.in_order
    assert find_weights(SHA) is None
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "other-12345678.pth").write_bytes(CONTENT)  # by its name it is something else
    assert find_weights(SHA) is None
    (folder / f"net-{SHA[:8]}.pth").write_bytes(CONTENT)
    assert find_weights(SHA) == folder / f"net-{SHA[:8]}.pth"
    hint = tmp_path / "hint"
    hint.write_bytes(CONTENT)
    assert find_weights(SHA, [tmp_path / "nowhere", folder, hint]) == hint


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("./nowhere.pth", "no file"),
        ("random:x", "random:SEED"),
        ("package:nowhere/x.pth", "not installed"),
        ("https://x/y.pth", "need the file's SHA-256"),
    ],
)
def test_bad_weights(store, weights, words):
    with pytest.raises(InputError, match=words):
        located(weights=weights)
