"""Requests to servers that are repeated when they fail in a way that may pass."""

import errno
from collections.abc import Callable
from typing import TypeVar

from tl_dagster.runtime.errors import InputError, TransientError

__all__ = ["call_with_retries", "is_passing_fault", "is_transient"]

T = TypeVar("T")
ATTEMPTS = 5
PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EREMOTEIO}
FIRST_WAIT = 0.5  # seconds; doubles with each attempt


def call_with_retries(request: Callable[[], T]) -> T:
    """Call a function, again after 0.5, 1, 2 and 4 s (with jitter) while it fails with a transient error.

    Raises:
        Exception: the last error of the function.
    """
    import tenacity

    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_exponential(FIRST_WAIT) + tenacity.wait_random(0, FIRST_WAIT / 2),
        retry=tenacity.retry_if_exception(is_transient),
        reraise=True,
    )
    return attempts(request)


def is_transient(error: BaseException) -> bool:
    """Return whether a request may succeed when repeated: no answer, a server error, or too many requests."""
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return is_transient(error.__cause__)  # fsspec says "not found" of a web server that does not answer, too
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | ValueError | TypeError | InputError):
        return False
    if "Credentials" in type(error).__name__ or getattr(error, "errno", None) == errno.ENOSPC:
        return False
    status = _http_status(error)
    return not (isinstance(status, int) and 400 <= status < 500 and status not in (408, 429))


def is_passing_fault(error: BaseException) -> bool:
    """Return whether work that failed is worth beginning again by itself: the network or a mounted disk was away."""
    number = getattr(error, "errno", None)
    return isinstance(error, TransientError | ConnectionError | TimeoutError) or number in PASSING


def _http_status(error: BaseException) -> object:
    """Return the HTTP status of a server's answer, where botocore, aiohttp and gcsfs put it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return getattr(error, "status", None) or getattr(error, "code", None)
