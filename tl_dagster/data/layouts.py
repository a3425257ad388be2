"""The layout of a source's folders: which of them are splits, and which are classes.

A folder level is one of splits when every folder of it is named like a split. Known layouts are ``class/…``,
``split/class/…`` and ``class/split/``; in each, everything may lie in the same split's folder twice
(``train/train/cat``, as many archives have it). Where only some folders are named like splits, nothing is guessed.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from tl_dagster.data.split_names import IGNORED, SplitChoice, find_splits
from tl_dagster.runtime.errors import InputError, printable

__all__ = ["FolderRole", "class_folder", "find_split_levels", "read_layout"]

Parts = tuple[str, ...]


class FolderRole(NamedTuple):
    """The class and split that a folder gives the images in it.

    Attributes:
        label: the class; None: none.
        split: train, validation, test, or :data:`IGNORED` where the declaration leaves it out; None: none.
    """

    label: str | None
    split: str | None


def read_layout(
    folders: Sequence[str], names: Mapping[str, SplitChoice] | None, where: str, *, labelled: bool
) -> list[FolderRole]:
    """Return what each folder that holds images says of them.

    Args:
        folders: relative POSIX paths; "" is the source's own folder.
        names: declared choices for names of folders; they go before the field's names.
        where: the source, for messages.
        labelled: whether labels come from elsewhere, so that only the splits are read here.

    Raises:
        InputError: some folders are named like splits and others are not, two names mean the same split, a path names
            two splits, or the class may be one of two folders.
    """
    parts = [_parts(folder) for folder in folders]
    kept = [each for each in parts if (each or labelled) and not _is_ignored(each, names)]
    levels = _split_levels(kept, names, where)
    if not labelled:
        _require_clear_classes(kept, levels, where)
    roles = {each: FolderRole(_label(each, levels), _split(each, levels, where)) for each in kept}
    nothing = FolderRole(None, None)
    return [roles.get(each, FolderRole(None, IGNORED) if each else nothing) for each in parts]


def find_split_levels(
    folders: Sequence[str], names: Mapping[str, SplitChoice] | None, where: str
) -> dict[int, dict[str, str]]:
    """Return the levels at which all folders that hold images are splits, with the split of each of their names.

    The arguments and errors are those of :func:`read_layout`.
    """
    parts = [_parts(folder) for folder in folders]
    return _split_levels([each for each in parts if each and not _is_ignored(each, names)], names, where)


def class_folder(
    folder: str, levels: Mapping[int, Mapping[str, str]], names: Mapping[str, SplitChoice] | None
) -> str | None:
    """Return the class of a folder without images, by the layout of those with images; None: it lies in no class.

    Args:
        folder: relative POSIX path.
        levels: see :func:`find_split_levels`.
        names: see :func:`read_layout`.
    """
    parts = _parts(folder)
    above = [level for level in levels if level <= _class_level(levels)]
    inside = all(level < len(parts) and parts[level] in levels[level] for level in above)
    return _label(parts, levels) if inside and not _is_ignored(parts, names) else None


def _parts(folder: str) -> Parts:
    return tuple(folder.split("/")) if folder else ()


def _is_ignored(folder: Parts, names: Mapping[str, SplitChoice] | None) -> bool:
    ignored = {name.strip().casefold() for name, choice in (names or {}).items() if choice == IGNORED}
    return bool(ignored) and any(part.strip().casefold() in ignored for part in folder)


def _split_levels(
    folders: list[Parts], names: Mapping[str, SplitChoice] | None, where: str
) -> dict[int, dict[str, str]]:
    """Return the levels at which all folders are splits, with the split of each of their names."""
    levels: dict[int, dict[str, str]] = {}
    for level in range(max(map(len, folders), default=0)):
        here = [folder for folder in folders if len(folder) > level]
        found = find_splits({folder[level] for folder in here}, names, where)
        others = [folder for folder in folders if len(folder) <= level or folder[level] not in found]
        if found and not others:
            levels[level] = found
        elif found and not (levels and _in_every_folder(here, level, set(found))):
            named = next(folder for folder in here if folder[level] in found)
            raise InputError(_mixed(named[: level + 1], others[0][: level + 1], where))
    return levels


def _in_every_folder(folders: list[Parts], level: int, names: set[str]) -> bool:
    """Return whether names occur under each folder above their level: as a class does, but not a split."""
    above = {folder[:level] for folder in folders}
    return all({folder[:level] for folder in folders if folder[level] == name} == above for name in names)


def _mixed(named: Parts, other: Parts, where: str) -> str:
    leave_out = f", {{'{printable(other[-1])}': ignore}} to leave the other out" if other else ""
    return (
        f"{where}: the folder '{printable('/'.join(named))}' is named like a split, and "
        f"'{printable('/'.join(other) or '.')}' is not; declare source.split_names: "
        f"{{'{printable(named[-1])}': none}} if it is not a split{leave_out}, or what it is: train, validation or test"
    )


def _require_clear_classes(folders: list[Parts], levels: dict[int, dict[str, str]], where: str) -> None:
    """Refuse splits below folders that may or may not be the classes."""
    first = min(levels, default=0)
    deepest = max(folders, key=len, default=())
    if first and (first > 1 or len(deepest) > len(levels) + 1):
        raise InputError(
            f"{where}: in '{printable('/'.join(deepest))}' a folder is named like a split, and the class may be "
            "another one above or below it; give the folder above the splits as source.path, or declare a "
            "source.pattern with (?P<split>…) and (?P<label>…)"
        )


def _class_level(levels: Collection[int]) -> int:
    return next(level for level in range(len(levels) + 1) if level not in levels)


def _label(folder: Parts, levels: Mapping[int, Mapping[str, str]]) -> str | None:
    level = _class_level(levels)
    return folder[level] if level < len(folder) else None


def _split(folder: Parts, levels: dict[int, dict[str, str]], where: str) -> str | None:
    splits = {found[folder[level]] for level, found in levels.items()}
    if len(splits) > 1:
        raise InputError(
            f"{where}: the folder '{printable('/'.join(folder))}' names the splits {' and '.join(sorted(splits))}; "
            "rename one of its folders, or declare a source.pattern with (?P<split>…) and (?P<label>…)"
        )
    return min(splits, default=None)
