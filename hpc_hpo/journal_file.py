"""A journal's file: its one writer, and its reading; journal.py says what its events mean."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpc_hpo.errors import JournalCorrupt, StorageError
from hpc_hpo.fsio import SealedWriter, read_sealed, seal, unseal, write_atomic

Event = dict[str, Any]

#: Room kept aside so that the last outcomes still fit when the disk is full.
RESERVE_BYTES = 1 << 20


class Journal:
    """The one writer of a journal.

    Appends are written by `flush` (before what they announce is done, so that a killed process
    leaves them behind) and made durable by `sync`, once for many events: a machine that loses
    power may lose the last `sync_every` seconds, which are then run again.

    Args:
        path: journal.jsonl in the study folder.
        sync_every: longest time in seconds that written events stay without fsync.
    """

    def __init__(self, path: Path, *, sync_every: float = 1.0, writer: SealedWriter | None = None):
        self.path = path
        self._writer = writer if writer is not None else SealedWriter(path)
        self.repaired_bytes = self._writer.repaired_bytes
        self._buffer: list[bytes] = []
        self._sync_every = sync_every
        self._next_sync = 0.0
        self._reserve = path.with_name(".reserve")
        self._make_reserve()

    def _make_reserve(self) -> None:
        try:
            with open(self._reserve, "wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, RESERVE_BYTES)
        except OSError:
            # No room for a reserve is no reason to stop: the journal says so when it is full.
            with contextlib.suppress(OSError):
                self._reserve.unlink()

    def append(self, event: Event) -> None:
        """Queue an event for the next flush."""
        self._buffer.append(seal(event))

    def flush(self) -> None:
        """Write the queued events.

        Raises:
            StorageError: nothing of them was written; they stay queued. The reserve has been
                given up, so one more flush may succeed.
        """
        if not self._buffer:
            return
        try:
            self._writer.append(b"".join(self._buffer))
        except StorageError:
            with contextlib.suppress(OSError):
                self._reserve.unlink()
            raise
        self._buffer.clear()

    def sync(self, *, force: bool = False) -> None:
        """fsync when it is due (or `force`)."""
        now = time.monotonic()
        if force or now >= self._next_sync:
            self._writer.sync()
            self._next_sync = now + self._sync_every

    def close(self) -> None:
        """Flush, sync and close."""
        try:
            self.flush()
            self.sync(force=True)
        finally:
            self._writer.close()
            with contextlib.suppress(OSError):
                self._reserve.unlink()


def one_text(text: str | None) -> str | None:
    """The one object of equal texts: parsed JSON has one for each time that it stands there."""
    return text if text is None else sys.intern(text)


def one_of_each(values: dict[str, Any]) -> dict[str, Any]:
    """The same values, with texts that other dicts have too as one object for all."""
    return {
        sys.intern(key): sys.intern(value) if type(value) is str else value
        for key, value in values.items()
    }


def lean(event: Event) -> Event:
    """An event as it was parsed, with the names and texts of its point as one object for all: of
    what is kept of an event, they take most."""
    if event.get("e") == "asked":
        event["point"] = one_of_each(event["point"])
    return event


def read_events(path: Path) -> Iterator[Event]:
    """The journal's events in order; a torn last line is ignored, as its writer may be at it.

    Raises:
        JournalCorrupt: a complete line fails its checksum.
    """
    if not path.exists():
        return
    for offset, record in read_sealed(path):
        if record is None:
            raise JournalCorrupt(str(path), offset, "its checksum does not match")
        yield lean(record)


def salvage(path: Path) -> int:
    """Move damaged lines to ``<journal>.bad-<time>`` and keep the rest; the count moved.

    The good journal is replaced atomically, so a crash leaves either the old or the new one.
    """
    if not path.exists():
        return 0
    # One reading: the journal must not change between finding a line and judging it. What
    # follows the last newline is a torn tail, not a record.
    lines = path.read_bytes().split(b"\n")[:-1]
    good = b"".join(line + b"\n" for line in lines if unseal(line) is not None)
    bad = [line + b"\n" for line in lines if unseal(line) is None]
    if bad:
        write_atomic(path.with_name(f"{path.name}.bad-{time.time_ns()}"), b"".join(bad))
        write_atomic(path, good)
    return len(bad)
