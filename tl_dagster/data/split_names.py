"""The names that people give to splits, in folders, in names of shards and in columns: the only place that knows them.

A name is a split's when it is one of :data:`NAMES`, whatever its case, perhaps with a number or a word such as "set"
("Dev", "test_set", "train2017"); or when its siblings differ from it in that word alone ("seg_train", "seg_test").
In the name of a shard one such word is enough, as for Hugging Face (``datasets.data_files``): "mnist-train-00.tar".
"""

import re
from collections.abc import Collection, Mapping
from typing import Literal

from tl_dagster.runtime.errors import InputError, printable

__all__ = [
    "ANY",
    "FLAGS",
    "IGNORED",
    "LEFT_OUT",
    "NAMES",
    "SPLIT_OF",
    "SplitChoice",
    "ask",
    "find_splits",
    "holds_splits",
    "may_name_splits",
    "resolve_terms",
    "split_of",
    "terms_in",
]

SplitChoice = Literal["train", "validation", "test", "none", "ignore"]
IGNORED = "ignore"  # the split of rows that the declaration leaves out
LEFT_OUT = "left out by source.split_names"  # why they are not looked at
# The split that each term means, and its other spellings.
SPLIT_OF = {
    **{"train": "train", "trainval": "train"},
    **{"val": "validation", "dev": "validation"},
    **{"test": "test", "eval": "test", "holdout": "test"},
}
SPELLINGS = {
    **{"training": "train", "trn": "train"},
    **{"valid": "val", "validation": "val", "devel": "dev", "development": "dev"},
    **{"testing": "test", "tst": "test", "evaluation": "eval", "heldout": "holdout"},
}
NAMES = (*SPLIT_OF, *SPELLINGS)
ANY = re.compile("trai?n|val|dev|te?st|h[eo]ld", re.IGNORECASE)  # is in every name of a split; there may be a million
# Two words that are one term; the words around a term that say nothing; and those that are written together with it.
JOINED = re.compile(r"(h[eo]ld|train)[\W_]?(out|val)(?![a-z])")
PLAIN = {
    *("set", "split", "subset", "part", "partial", "data", "dataset", "folder"),
    *("image", "images", "img", "imgs"),
}
GLUED = re.compile("(?:set|split|data|images?|imgs?)$")
COLUMN_WORDS = {"splits", "partition", "phase", "usage"}  # beside the plain ones
FLAGS = ({"0", "1"}, {"false", "true"})
CAMEL = re.compile("(?<=[a-z])(?=[A-Z])")


def split_of(name: str) -> str | None:
    """Return the split that a name means by itself; None where it is not a split's."""
    terms, rest = terms_in(name)
    return SPLIT_OF[terms.pop()] if len(terms) == 1 and not rest else None


def find_splits(names: Collection[str], declared: Mapping[str, SplitChoice] | None, where: str) -> dict[str, str]:
    """Return the split (or :data:`IGNORED`) of each name that is a split's, among names that stand side by side.

    Args:
        names: folders, or values of a column.
        declared: choices that go before the field's names.
        where: file or folder, for the message.

    Raises:
        InputError: two names mean the same split, such as "val" and "dev".
    """
    choices = {name.strip().casefold(): choice for name, choice in (declared or {}).items()}
    chosen = {name: choices[name.strip().casefold()] for name in names if name.strip().casefold() in choices}
    terms: dict[str, str] = {}
    siblings: dict[tuple[str, ...], dict[str, str]] = {}
    for name in sorted(name for name in names if ANY.search(name) and name not in chosen):
        found, rest = terms_in(name)
        if len(found) == 1:
            (siblings.setdefault(rest, {}) if rest else terms)[name] = found.pop()
    for group in siblings.values():
        splits = {SPLIT_OF[term] for term in group.values()}
        if "train" in splits and len(splits) > 1:
            terms.update(group)
    return {name: choice for name, choice in chosen.items() if choice != "none"} | resolve_terms(terms, where)


def holds_splits(column: str, values: Collection[str]) -> bool:
    """Return whether a column that nobody declared looks like one of splits.

    Args:
        column: its name.
        values: its distinct values.
    """
    splits = {split_of(value) for value in values}
    if {"train"} < splits and None not in splits:
        return True
    terms, rest = terms_in(column)  # is_train, is_training_image, …
    flag = terms == {"train"} or (len(terms) == 1 and "is" in rest)
    return flag and not set(rest) - {"is", "in"} and {value.casefold() for value in values} in FLAGS


def may_name_splits(column: str) -> bool:
    """Return whether a column may hold splits, by its name."""
    terms, rest = terms_in(column)
    return bool(terms) or not set(rest) - COLUMN_WORDS


def resolve_terms(terms: Mapping[str, str], where: str) -> dict[str, str]:
    """Return the split of each name, from the terms that all of them use: "eval" beside "test" is for validation.

    Args:
        terms: by name; see :func:`terms_in`.
        where: file or folder, for the message.

    Raises:
        InputError: two terms mean the same split.
    """
    used = set(terms.values())
    meaning = dict(SPLIT_OF)
    if "eval" in used and used & {"test", "holdout"} and not used & {"val", "dev"}:
        meaning["eval"] = "validation"
    by_split: dict[str, tuple[str, str]] = {}
    for name, term in terms.items():
        first, other = by_split.setdefault(meaning[term], (term, name))
        if first != term:
            words = f"'{printable(other)}' and '{printable(name)}' both mean the {meaning[term]} split"
            raise InputError(ask(where, words, name))
    return {name: meaning[term] for name, term in terms.items()}


def terms_in(name: str) -> tuple[set[str], tuple[str, ...]]:
    """Return the terms in a name, and its other words but for the plain ones."""
    text = JOINED.sub(r"\1\2", CAMEL.sub(" ", name).casefold())
    words = re.findall(r"[^\W\d_]+", text)
    terms = {word: term for word in words if (term := _term(word) or _term(GLUED.sub("", word)))}
    return set(terms.values()), tuple(word for word in words if word not in terms and word not in PLAIN)


def _term(word: str) -> str | None:
    return word if word in SPLIT_OF else SPELLINGS.get(word)


def ask(where: str, words: str, name: str) -> str:
    """Return a message that asks what a name means.

    Args:
        where: file or folder.
        words: what is unclear.
        name: the name to declare.
    """
    return (
        f"{where}: {words}; declare it as source.split_names: {{'{printable(name)}': …}}, one of train, validation, "
        "test, ignore (its images are left out) or none (not a split)"
    )
