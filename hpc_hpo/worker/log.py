"""The one log file of a worker: what its payloads print, slice after slice."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from hpc_hpo.fsio import storage_error

_TAIL_BYTES = 2048
_WINDOW_BYTES = 1 << 20
#: A longer line (a progress bar's, without newlines) is searched in pieces.
_LONGEST_LINE = 16 << 20


class LogFile:
    """Opened once and appended to; a slice's part is a range of bytes.

    Args:
        folder: the study folder.
        name: path of the log relative to it.

    Raises:
        StorageError: the file cannot be opened.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise storage_error(path, error) from error

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self.fd).st_size

    def note(self, text: str) -> bool:
        """Append a line of our own; False when there is no room for it."""
        try:
            os.write(self.fd, f"hpc-hpo: {text}\n".encode("utf-8", "backslashreplace"))
        except OSError:
            return False
        return True

    def tail(self, start: int, limit: int = _TAIL_BYTES) -> str:
        """The last `limit` bytes written since byte `start`, as text."""
        begin = max(start, self.size() - limit)
        return os.pread(self.fd, limit, begin).decode("utf-8", "replace")

    def _lines_backwards(self, start: int) -> Iterator[str]:
        """Lines since `start`, the last one first, holding little of the file in memory."""
        end = self.size()
        rest = b""  # of a line whose beginning stands before what has been read
        while end > start:
            begin = max(start, end - _WINDOW_BYTES)
            block = os.pread(self.fd, end - begin, begin) + rest
            rest = b""
            if begin > start:
                head, newline, after = block.partition(b"\n")
                if newline or len(block) < _LONGEST_LINE:
                    rest, block = (head, after) if newline else (block, b"")
            if block:
                yield from reversed(block.decode("utf-8", "replace").split("\n"))
            end = begin

    def last_match(self, start: int, pattern: str) -> str | None:
        """What the pattern's first group (or all of it) matched last, within one line."""
        expression = re.compile(pattern)
        for line in self._lines_backwards(start):
            found = None
            for found in expression.finditer(line):  # noqa: B007 - the last one is wanted
                pass
            if found is not None:
                return str(found.group(1) if expression.groups else found.group(0))
        return None

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)
