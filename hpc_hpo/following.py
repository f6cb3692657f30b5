"""A journal that another process writes, read as it grows.

For whoever looks on, perhaps from another machine over a shared file system: nothing is locked,
created or changed, and each record is read once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from hpc_hpo.errors import InputError, JournalCorrupt
from hpc_hpo.fsio import unseal
from hpc_hpo.journal import Event, StudyState
from hpc_hpo.journal_file import lean

#: Bytes read in one call of `read`, so that a long journal does not keep its reader from drawing.
CHUNK = 1 << 20
#: A damaged record may be one whose bytes have not all come over the network yet: it is read
#: again for so long, in seconds.
PATIENCE_S = 20.0


class JournalFollower:
    """The state of a study whose journal another process writes.

    Args:
        path: journal.jsonl; it need not exist yet.
        now: time in seconds.
        heard: called with each record, once it is part of the state.

    Attributes:
        state: as of the records read so far; a new object when the journal was replaced.
        share: how much of the journal has been read, 0 to 1.
    """

    def __init__(
        self,
        path: Path,
        now: Callable[[], float],
        heard: Callable[[Event], object] = lambda event: None,
    ) -> None:
        self._path, self._now, self._heard = path, now, heard
        self._begin()

    def _begin(self) -> None:
        self.state = StudyState()
        self.share = 1.0
        self._inode: int | None = None
        self._offset = 0
        self._damaged_since: float | None = None

    def read(self) -> bool:
        """Take in what has been appended, CHUNK bytes at most; whether anything was.

        A last line without its newline is left for the next call. A journal that was replaced or
        has become shorter (--salvage, a fresh study in the same folder) is read from its start.

        Raises:
            JournalCorrupt: a record stays damaged.
            InputError: the journal cannot be read.
        """
        try:
            with open(self._path, "rb") as stream:
                facts = os.fstat(stream.fileno())
                if facts.st_ino != self._inode or facts.st_size < self._offset:
                    if self._offset:
                        self._begin()
                    self._inode = facts.st_ino
                if facts.st_size == self._offset:
                    return False
                stream.seek(self._offset)
                data = stream.read(CHUNK)
                if b"\n" not in data:
                    # A record longer than a chunk, or one that is still being written.
                    data += stream.readline()
        except (FileNotFoundError, NotADirectoryError):
            if self._offset:
                self._begin()
            return False
        except OSError as error:
            if error.errno == errno.ESTALE:
                # Replaced on its file server while it was open here.
                return False
            raise InputError(f"cannot be read: {error.strerror}", file=str(self._path)) from error
        begun = self._offset
        for line in data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]:
            record = unseal(line)
            if record is None:
                self._wait_for_it()
                break
            self._damaged_since = None
            self.state.apply(lean(record))
            self._heard(record)
            self._offset += len(line) + 1
        self.share = min(1.0, self._offset / facts.st_size)
        return self._offset > begun

    def _wait_for_it(self) -> None:
        now = self._now()
        if self._damaged_since is None:
            self._damaged_since = now
        if now - self._damaged_since > PATIENCE_S:
            raise JournalCorrupt(str(self._path), self._offset, "its checksum does not match")
