"""The HTTP client: it reads no more than a limit, and follows no redirect into a private network.

A web server is asked on behalf of a table that somebody else may have written: what it answers is not trusted.
"""

import asyncio
import io
import ipaddress
from functools import cache
from types import SimpleNamespace
from typing import Any

import aiohttp
from yarl import URL

from tl_dagster.data.limits import MAX_BYTES, append, check_size
from tl_dagster.runtime.errors import redact

__all__ = ["BoundedResponse", "build_trace"]

MAX_PAGE = 16 * 2**20  # bytes of an index page: some 100,000 links, each of which takes half a kilobyte


class BoundedResponse(aiohttp.ClientResponse):
    """A response whose body is read up to a limit.

    Attributes:
        limit: bytes; set for one request by its ``trace_request_ctx``, as ``cut`` is.
        cut: end at the limit, instead of refusing what is longer.
    """

    limit = MAX_BYTES
    cut = False

    async def read(self) -> bytes:
        """Return the body.

        Raises:
            TooLargeError: it is longer than the limit.
        """
        if self._body is None:
            content = io.BytesIO()
            try:
                check_size(0 if self.cut else self.content_length or 0, self.limit)
                async for chunk in self.content.iter_any():
                    append(content, chunk[: self.limit - content.tell()] if self.cut else chunk, self.limit)
                    if self.cut and content.tell() == self.limit:
                        self.close()
                        break
            except BaseException:
                self.close()
                raise
            self._body = content.getvalue()
        return self._body

    async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        """Return the body of a page as text; see :meth:`read`."""
        self.limit = min(self.limit, MAX_PAGE)
        return await super().text(encoding, errors)


@cache
def build_trace() -> aiohttp.TraceConfig:
    """Return what a session does with each request; always the same, so that sessions are used again."""
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_refuse_private)
    trace.on_request_end.append(_set_limit)
    return trace


async def _set_limit(_: aiohttp.ClientSession, context: SimpleNamespace, end: aiohttp.TraceRequestEndParams) -> None:
    if context.trace_request_ctx is not None and isinstance(end.response, BoundedResponse):
        end.response.limit, end.response.cut = context.trace_request_ctx


async def _refuse_private(
    _: aiohttp.ClientSession, context: SimpleNamespace, redirect: aiohttp.TraceRequestRedirectParams
) -> None:
    """Refuse a redirect to an address of this machine or a private network, unless it stays on the server asked."""
    asked = redirect.response.url
    try:
        target = asked.join(URL(redirect.response.headers.get("Location", "")))
    except ValueError:
        return  # the client refuses what is not a URL itself
    if target.host is None or _server(target) in (_server(asked), _server(asked.with_scheme("https").with_port(None))):
        return
    if not all(map(_is_public, await _resolve(target.host, target.port or 0))):
        raise PermissionError(
            f"{redact(str(asked))} redirects to {redact(str(target))}, a private address; "
            "declare that address itself if it is meant"
        )


def _server(url: URL) -> tuple[str | None, int | None]:
    return url.host, url.port


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found: list[Any] = await asyncio.get_running_loop().getaddrinfo(host, port)
    except OSError:
        return []  # the request fails too, or a proxy knows the name
    return [place[0] for *_, place in found]


def _is_public(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_global
