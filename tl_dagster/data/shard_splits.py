"""The splits that the paths of shards name: tar and Parquet files in folders, or with names, of splits."""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urlsplit

from tl_dagster.data.remote import is_web
from tl_dagster.data.split_names import IGNORED, SPLIT_OF, SplitChoice, ask, resolve_terms, terms_in
from tl_dagster.runtime.errors import InputError, printable

__all__ = ["find_shard_splits"]


def find_shard_splits(declared: str, uris: Sequence[str], names: Mapping[str, SplitChoice] | None) -> list[str | None]:
    """Return the split (or :data:`IGNORED`) of each shard; None for all where no path names one.

    Args:
        declared: the address that they were found under, which may hold a glob or braces.
        uris: their addresses.
        names: declared choices for words in their paths; they go before the field's names.

    Raises:
        InputError: a path names two splits, some paths name one and others none, or two names mean the same split.
    """
    where = f"source.path: {printable(declared)}"
    shards = [_parts_below(declared, uri) for uri in uris]
    parts = {part for shard in shards for part in shard}
    splits: dict[str, str] = {part: choice for part in parts if (choice := _declared_choice(part, names or {}))}
    splits |= resolve_terms({part: term for part in parts - set(splits) if (term := _term(part, where))}, where)
    found = [{splits[part] for part in shard if splits.get(part, "none") != "none"} for shard in shards]
    found = [{IGNORED} if IGNORED in each else each for each in found]
    for shard, each in zip(shards, found, strict=True):
        if len(each) > 1:
            raise InputError(ask(where, f"'{printable('/'.join(shard))}' names two splits", shard[0]))
    named = next((shard for shard, each in zip(shards, found, strict=True) if each - {IGNORED}), None)
    unnamed = next((shard for shard, each in zip(shards, found, strict=True) if not each), None)
    if named and unnamed:
        words = f"'{printable('/'.join(named))}' names a split and '{printable('/'.join(unnamed))}' does not"
        raise InputError(ask(where, words, _name_in(unnamed)))
    return [min(each) if each else None for each in found]


def _parts_below(declared: str, uri: str) -> list[str]:
    """Return the folders and the name of a file, below the folders that its declared address names too."""
    top, parts = _split_path(declared), _split_path(uri)
    same = next((number for number, (a, b) in enumerate(zip(top, parts, strict=False)) if a != b), len(top))
    return parts[same:] or parts[-1:]


def _split_path(uri: str) -> list[str]:
    path = unquote(urlsplit(uri).path) if is_web(uri) else uri.rpartition("://")[2]
    return path.strip("/").split("/")


def _declared_choice(part: str, names: Mapping[str, SplitChoice]) -> SplitChoice | None:
    """Return the choice for the longest declared name whose words are in a part of a path."""
    text = _spaced(part)
    matching = [name for name in names if _spaced(name) in text]
    return names[max(matching, key=len)] if matching else None


def _spaced(name: str) -> str:
    words = re.findall(r"[^\W_]+", name.casefold())
    return f" {' '.join(words)} "


def _term(part: str, where: str) -> str | None:
    terms, _ = terms_in(part)
    if len({SPLIT_OF[term] for term in terms}) > 1:
        raise InputError(ask(where, f"'{printable(part)}' names two splits", part))
    return min(terms, default=None)


def _name_in(shard: list[str]) -> str:
    """Return what a user would call the split of a shard: the words that its name, or else its folder, begins with."""
    words = [match[0] for part in reversed(shard) if (match := re.match(r"[^\W\d_]+(?:[ _-][^\W\d_]+)*", part))]
    return words[0] if words else shard[-1]
