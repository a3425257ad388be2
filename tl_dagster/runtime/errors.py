"""Errors that users read: what is wrong, where, and how to fix it."""

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "UnknownFieldError", "printable", "suggest"]


class InputError(Exception):
    """A file, field or folder of the user cannot be used; the message names it and the fix."""


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


def printable(uri: str) -> str:
    """Return an address for one line of a message or log: control characters are escaped."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in uri)
