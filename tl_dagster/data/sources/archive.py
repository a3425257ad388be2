"""A zip or tar archive of class folders, read where it is: nothing is extracted."""

import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tl_dagster.data.files import DAMAGED, local_uri, path_of, zip_uri
from tl_dagster.data.remote import is_remote
from tl_dagster.data.source_cache import SourceContext
from tl_dagster.data.source_files import SourceRow, as_text, climbs_out, is_visible, may_be_image, refuse_packed
from tl_dagster.data.sources.base import Patterned
from tl_dagster.data.split_names import split_of
from tl_dagster.data.tar_files import CLIMBS, LINK, tar_members
from tl_dagster.runtime.errors import InputError, printable

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["ArchiveSource"]

ZIP_UTF8 = 0x800  # the flag of a name in UTF-8
ENCRYPTED = "encrypted; pack the archive without a password"
MIXED = "the member's name has both / and \\, either of which may separate folders; pack the archive again"


class ArchiveSource(Patterned):
    """A zip, tar, tar.gz, tar.bz2 or tar.xz of one folder per class, or of train, val and test folders of such."""

    kind: Literal["archive"]
    path: str = Field(description="The archive, relative to the project's root; or s3://, gs://, https://.")
    pattern: str | None = Field(
        None, description="Regular expression searched in each member's path, as in a folder source."
    )

    def where(self, context: SourceContext) -> str:
        """Return the archive's path or URL."""
        return printable(context.uri(self.path))

    def signature(self, context: SourceContext) -> object:
        """Return the archive's own stamp."""
        return context.cache.stamp(context.uri(self.path))

    def present(self, context: SourceContext) -> bool:
        """Return whether the archive is still there; see :meth:`ImageSource.present`."""
        uri = context.uri(self.path)
        return is_remote(uri) or Path(path_of(uri)).is_file()

    def listing(self, context: SourceContext) -> "pd.DataFrame":
        """Return one row per image; see :meth:`ImageSource.listing`."""
        path, stamp = context.cache.local(context.uri(self.path))
        members = _zip_members(path) if _is_zip(path) else tar_members(path, stamp, context.cache, folders=True)
        listed = list(members)
        refuse_packed(listed, path)
        return self.list_files(_strip_single_folder(listed), context)


def _strip_single_folder(members: list[SourceRow]) -> list[SourceRow]:
    """Leave out the name of one folder that holds everything, as in many archives, unless it is a split's name."""
    usable = [member.path for member in members if member.problem is None and is_visible(member.path)]
    paths = [path for path in usable if "/" in path and may_be_image(path) and not path.endswith("/")]
    tops = {path.partition("/")[0] for path in paths}
    if len(tops) != 1 or split_of(min(tops)) or all(path.count("/") < 2 for path in paths):
        return members
    top = f"{tops.pop()}/"
    return [member._replace(path=member.path.removeprefix(top)) for member in members if member.path != top]


def _is_zip(path: Path) -> bool:
    # By its beginning: zipfile.is_zipfile also takes a tar that ends with a zip file for one.
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"PK\3\4", b"PK\5\6")
    except OSError as error:
        raise InputError(f"source.path: {path} cannot be read: {error.strerror or error}") from error


def _zip_members(path: Path) -> Iterator[SourceRow]:
    """Yield the members of a zip file, folders included; the checksum of each is its stamp."""
    container = local_uri(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
    except (OSError, *DAMAGED) as error:
        raise InputError(f"source.path: {path} is a damaged zip file: {error}; copy it again") from error
    for name, member in members.items():  # of several under one name, the last one counts
        stamp = f"{member.CRC}:{member.file_size}:{member.compress_size}:{member.date_time}"
        yield SourceRow(_zip_name(member), zip_uri(name, container), stamp, _zip_problem(member))


def _zip_name(member: zipfile.ZipInfo) -> str:
    """Return a member's path. Many programs write UTF-8 and do not say so; zipfile reads that as code page 437.

    Some write folders as Windows does, although zip files have forward slashes only.
    """
    name = member.filename
    if not member.flag_bits & ZIP_UTF8:
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            name = as_text(name)
    return name if "/" in name else name.replace("\\", "/")


def _zip_problem(member: zipfile.ZipInfo) -> str | None:
    if climbs_out(member.filename):
        return CLIMBS
    if "/" in member.filename and "\\" in member.filename:
        return MIXED
    if stat.S_ISLNK(member.external_attr >> 16):
        return LINK
    return ENCRYPTED if member.flag_bits & 1 else None
