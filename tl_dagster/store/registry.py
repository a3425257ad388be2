"""The registry of a pipeline's champions: which model was in service when, and why; appended to, never rewritten."""

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from tl_dagster.runtime.errors import InputError
from tl_dagster.store.digests import digest
from tl_dagster.store.files import sync, writing

__all__ = [
    "ChampionRegistry",
    "Decision",
    "RegistryConflictError",
    "Verdict",
    "find_at",
    "get_champion",
    "since_last_move",
]


class RegistryConflictError(Exception):
    """Another process decided first: what this one decided on is not the last decision any more."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was decided on the model in service.

    Attributes:
        kind: "promoted" and "rolled back" put ``champion`` in service; "kept" leaves it there.
        champion: fingerprint of the model in service from then on; None: none is.
        challenger: fingerprint of the model that was judged; of a rollback, of the model that left.
        challenge: digest of what was judged: the challenger, on which images, by which settings; "" by hand.
        reason: one sentence.
        numbers: of the comparison; none where nothing was compared.
        run: id of the Dagster run; "" outside of one.
    """

    kind: Literal["promoted", "kept", "rolled back"]
    champion: str | None
    challenger: str | None
    challenge: str = ""
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    run: str = ""


@dataclass(frozen=True, kw_only=True)
class Decision(Verdict):
    """A verdict in the registry.

    Attributes:
        number: from 1 on, in the order of the decisions.
        time: ISO 8601, UTC, with microseconds; later than the decision before.
        before: digest of the decision before; "" of the first.
    """

    number: int
    time: str
    before: str

    @property
    def digest(self) -> str:
        """SHA-256 of the decision and, through ``before``, of all decisions before."""
        return digest(asdict(self))

    @property
    def moved(self) -> bool:
        """Whether it put a model in service."""
        return self.kind != "kept"


class ChampionRegistry:
    """The decisions of a pipeline, a file each; each names the digest of the one before, so a change is seen.

    Args:
        folder: where they are; created when first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def decisions(self) -> list[Decision]:
        """Return all decisions, the first one first.

        Raises:
            InputError: one is missing, or was changed.
        """
        read: list[Decision] = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                decision = Decision(**json.loads(path.read_text()))
            except (ValueError, TypeError) as error:
                raise InputError(f"{path} is damaged ({error}): restore it from a backup") from error
            before = read[-1].digest if read else ""
            if decision.number != len(read) + 1 or decision.before != before or path != self._path(decision.number):
                raise InputError(
                    f"{path} does not follow from the decision before it: one of the two was changed or deleted; "
                    "restore them from a backup"
                )
            read.append(decision)
        return read

    def append(self, after: Sequence[Decision], verdict: Verdict) -> Decision:
        """Write the next decision.

        Args:
            after: the decisions that the verdict was reached in view of: all that there were.
            verdict: on the model in service.

        Raises:
            RegistryConflictError: another process wrote one meanwhile: read, and decide again.
            DiskError: the store cannot be written.
        """
        last = after[-1] if after else None
        now = datetime.now(UTC)
        if last:  # also where the clock was set back
            now = max(now, datetime.fromisoformat(last.time) + timedelta(microseconds=1))
        decision = Decision(
            **asdict(verdict),
            number=len(after) + 1,
            time=now.isoformat(timespec="microseconds"),
            before=last.digest if last else "",
        )
        path = self._path(decision.number)
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_text(json.dumps(asdict(decision), indent=1))
                sync(temporary)
                _publish(temporary, path)
            except FileExistsError as error:
                raise RegistryConflictError(str(path)) from error
            finally:
                with contextlib.suppress(FileNotFoundError):
                    temporary.unlink()
        return decision

    def champions(self) -> set[str]:
        """Return the fingerprints of all models that ever were in service: any of them may be again."""
        return {decision.champion for decision in self.decisions() if decision.champion}

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.json"


def _publish(temporary: Path, path: Path) -> None:
    """Give a file its name, unless another has it: FileExistsError."""
    try:
        os.link(temporary, path)  # unlike a rename, this refuses where there is a file
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        with path.open("x") as file:  # a disk without hard links
            file.write(temporary.read_text())
            file.flush()
            os.fsync(file.fileno())


def find_at(decisions: Sequence[Decision], time: datetime) -> Decision | None:
    """Return the decision that put the model in service that was there at a time; None: there was none yet.

    Args:
        decisions: of a registry, in order.
        time: with a time zone.
    """
    moved = [each for each in decisions if each.moved and datetime.fromisoformat(each.time) <= time]
    return moved[-1] if moved else None


def get_champion(decisions: Sequence[Decision]) -> str | None:
    """Return the fingerprint of the model in service after some decisions; None: none is."""
    return decisions[-1].champion if decisions else None


def since_last_move(decisions: Sequence[Decision]) -> list[Decision]:
    """Return the decisions that the present champion faced, the one that put it in service first."""
    moves = [place for place, each in enumerate(decisions) if each.moved]
    return list(decisions[moves[-1] :]) if moves else list(decisions)
