"""The error tree and the exit codes of the command line.

Every error a user can cause or meet is a ``HpoError``. Its text is complete: it names the
file, the key, what was found and what is valid, so the command line prints it without a
traceback. ``transient`` says whether trying again later may help.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class HpoError(Exception):
    """Root of the package's errors.

    Attributes:
        transient: True when the same call may succeed later (a scheduler that is down).
        exit_code: the exit status of ``hpc-hpo`` when this error ends it.
    """

    transient = False
    exit_code = 1


class InputError(HpoError):
    """A user's file, key or argument is wrong. Raised before anything is submitted."""

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        found: Any = None,
        valid: str | Sequence[str] | None = None,
    ) -> None:
        self.problem, self.file, self.line, self.key = problem, file, line, key
        self.found, self.valid = found, valid
        where = ""
        if file is not None:
            where = f"{file}:{line}: " if line is not None else f"{file}: "
        text = where + (f"{key}: " if key else "") + problem
        if found is not None:
            text += f"; found {found!r}"
        if valid is not None:
            listed = valid if isinstance(valid, str) else ", ".join(map(str, valid))
            text += f"; valid: {listed}"
        super().__init__(text)


class InputErrors(InputError):
    """Several input errors of one file, shown together so that one edit mends them all."""

    def __init__(self, errors: Sequence[InputError]) -> None:
        self.errors = list(errors)
        HpoError.__init__(self, "\n".join(str(e) for e in errors))


class StudyChanged(InputError):
    """study.yaml differs from the frozen study in a way that would mix two experiments."""


class StudyHeld(HpoError):
    """Another steering process holds the study's lock."""

    exit_code = 4


class StorageError(HpoError):
    """The study folder cannot be written: disk full, quota, or read-only."""

    exit_code = 5


class JournalCorrupt(HpoError):
    """A journal line in the middle fails its checksum.

    Attributes:
        offset: byte offset of the first bad line.
    """

    exit_code = 6

    def __init__(self, path: str, offset: int, reason: str) -> None:
        self.offset = offset
        super().__init__(
            f"{path}: corrupt record at byte {offset}: {reason}. "
            "Nothing was changed. Run again with --salvage to set the bad record aside "
            "and go on with the others."
        )


class PilotError(HpoError):
    """Blocks cannot be had: the scheduler refused, or workers never registered."""

    transient = True
    exit_code = 7


class CheckpointError(HpoError):
    """A state that cannot be checkpointed faithfully, or a checkpoint that cannot be read."""


class ExitCode:
    """Exit codes that are not errors (docs/commands.md lists them all)."""

    DONE = 0
    WORK_LEFT = 3
    NO_RESULT = 8
    SOME_RESULTS = 9
