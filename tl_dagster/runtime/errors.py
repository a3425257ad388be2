"""Errors that users read: what is wrong, where, and how to fix it."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "InputError",
    "TransientError",
    "UnknownFieldError",
    "first_line",
    "printable",
    "redact",
    "redact_settings",
    "suggest",
]

# In a URL, what stands before the host, and what follows the path: passwords, signatures and tokens.
USER = re.compile(r"(?<=://)(?<!tar://)(?<!zip://)[^\s/?#'\"<>]*@")
WEB_QUERY = re.compile(r"(https?://[^\s?#'\"<>]*)[?#][^\s'\"<>]+", re.IGNORECASE)
QUERY = re.compile(r"\b((?!zip|tar|file)\w[\w+.-]*://[^\s?#'\"<>]*)[?#][^\s'\"<>]*=[^\s'\"<>]*")


class InputError(Exception):
    """A file, field or folder of the user cannot be used; the message names it and the fix.

    Args:
        message: one line; secrets in its URLs are left out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class TransientError(InputError):
    """Something failed that may work later, such as a server that does not answer."""


class UnknownFieldError(ValueError):
    """A declared field that does not exist; the message has the nearest match and the allowed fields.

    Args:
        field: the name that was declared.
        allowed: the fields of the section.
    """

    def __init__(self, field: str, allowed: Iterable[str]) -> None:
        super().__init__(f"unknown field '{field}': {suggest(field, allowed)}")
        self.path = (field,)


def suggest(word: str, allowed: Iterable[str]) -> str:
    """Return a "did you mean" sentence for a word, and the allowed values (at most 12 of them).

    Args:
        word: the word that was not accepted.
        allowed: the words that are.
    """
    names = [str(name) for name in allowed]
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    guess = f"did you mean '{close[0]}'? " if close else ""
    named = ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
    return f"{guess}allowed: {named}"


def redact(text: str) -> str:
    """Return a text without the users, passwords and queries of the URLs in it: they may be secret."""
    if "://" not in text:  # a million times, for the addresses of local files
        return text
    return QUERY.sub(r"\1?…", WEB_QUERY.sub(r"\1?…", USER.sub("", text)))


def redact_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON-serialisable settings as they may be kept and shown; see :func:`redact`."""

    def redacted(value: Any) -> Any:
        if isinstance(value, Mapping):
            return redact_settings(value)
        if isinstance(value, list | tuple):
            return [redacted(each) for each in value]
        return redact(value) if isinstance(value, str) else value

    return {name: redacted(value) for name, value in settings.items()}


def first_line(error: BaseException | str) -> str:
    """Return the first line of an error's message; "" where it has none."""
    return str(error).strip().partition("\n")[0]


def printable(uri: str) -> str:
    """Return an address for one line of a message or log: control characters are escaped."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in uri)
