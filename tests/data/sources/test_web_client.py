"""Answers of web servers that are not trusted: endless bodies, redirects into private networks, secrets in errors."""

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.data.sources.conftest import png
from tl_dagster import InputError
from tl_dagster.data import files, remote, web_client
from tl_dagster.data.limits import TooLargeError

MIB = 2**20


class Handler(BaseHTTPRequestHandler):
    """Sends an image, an endless body, or elsewhere: as the path says."""

    protocol_version = "HTTP/1.1"
    sent = 0

    def do_GET(self):
        kind, _, rest = self.path.strip("/").partition("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", rest.replace("!", "://", 1))
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if kind.startswith("endless"):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Connection", "close")
            if "stated" in kind:
                self.send_header("Content-Length", str(3 * 2**30))
            self.end_headers()
            with suppress(OSError):
                for _ in range(3 * 2**10):
                    self.wfile.write(bytes(MIB))
                    Handler.sent += MIB
            return None
        self.send_response(200 if kind == "a.png" else 403)
        self.send_header("Content-Length", str(len(png(1))))
        self.end_headers()
        return self.wfile.write(png(1))

    def log_message(self, *_):
        pass


@pytest.fixture
def servers():
    """The addresses of two servers on this machine."""
    started = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    for server in started:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    Handler.sent = 0
    yield [f"127.0.0.1:{server.server_port}" for server in started]
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("tl_dagster.runtime.retries.FIRST_WAIT", 0.01)


@pytest.mark.parametrize("kind", ["endless", "endless-stated"])
def test_an_endless_body_is_not_read(servers, kind):
    with pytest.raises(TooLargeError, match="too large: over 2,097,152 bytes"):
        files.read(f"http://{servers[0]}/{kind}", 2 * MIB)
    assert Handler.sent < 20 * MIB


def test_an_endless_index_page_is_not_read(servers, monkeypatch):
    monkeypatch.setattr(web_client, "MAX_PAGE", MIB)
    with pytest.raises(TooLargeError, match="too large: over 1,048,576 bytes"):
        remote.find(f"http://{servers[0]}/endless/")


def test_redirects_within_a_server_are_followed(servers):
    assert files.read(f"http://{servers[0]}/to/http!{servers[0]}/a.png") == png(1)
    assert files.read(f"http://{servers[0]}/to//a.png") == png(1)


@pytest.mark.parametrize("host", ["{other}", "169.254.169.254", "localhost:1", "10.0.0.1", "0.0.0.0"])  # noqa: S104
def test_redirects_to_private_addresses_are_refused(servers, host):
    host = host.format(other=servers[1])
    with pytest.raises(OSError, match=r"PermissionError: http://.* redirects to http://.*, a private address; declare"):
        files.read(f"http://{servers[0]}/to/http!{host}/a.png")
    (row,) = remote.remote_stamps([f"http://{servers[0]}/to/http!{host}/a.png"])
    assert row[1].startswith("cannot be read: PermissionError") or "501" in row[1]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "100.64.0.1"])
def test_private_addresses_in_every_notation(address):
    assert not web_client._is_public(address) and web_client._is_public("93.184.215.14")


def test_redirects_to_public_addresses_are_followed(servers, monkeypatch):
    async def resolve(host, port):
        return ["93.184.215.14"]

    monkeypatch.setattr(web_client, "_resolve", resolve)
    assert files.read(f"http://{servers[0]}/to/http!{servers[1]}/a.png") == png(1)


def test_no_secret_of_a_url_is_in_an_error_or_its_causes(servers, tmp_path):
    with pytest.raises(OSError, match="403") as caught:
        files.read(f"http://me:5ec4e7@{servers[0]}/b.png?signature=5ec4e7")
    assert "5ec4e7" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_server_that_does_not_answer_is_named_without_its_password():
    with pytest.raises(InputError, match=r"http://127.0.0.1:9/a.png\?… did not answer") as caught:
        files.read("http://me:5ec4e7@127.0.0.1:9/a.png?signature=5ec4e7")
    assert "5ec4e7" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("https://me:5ec4e7@host.example/in/a.tar?signature=5e/c4", "a.tar"),
        ("HTTPS://host.example/in/a.tar?signature=5e/c4", "a.tar"),
        ("abfs://c@account/in/a.tar?sig=5e/c4", "a.tar"),
        ("s3://bucket/in/what?.tar", "what?.tar"),
    ],
)
def test_no_secret_of_a_url_becomes_part_of_a_name(uri, name):
    assert files.name_of(uri) == name
