"""A seekable look at an object of any size that comes out of a stream."""

from __future__ import annotations

import io
from collections import deque
from typing import Any, BinaryIO

CHUNK = 1 << 20
#: What is kept of the front and of the back of an object, in bytes each. Headers, dynamic
#: sections and symbol versions are at the front or, moved by patchelf, at the back; the section
#: table is at the very end.
KEPT = 32 << 20


class OutOfWindow(Exception):
    """Something between the parts that were kept is asked for."""


class Window(io.RawIOBase):
    """The front and the back of an object, at their places.

    Args:
        front: the first bytes.
        back: the last bytes.
        size: of the whole object.
    """

    def __init__(self, front: bytes, back: bytes, size: int) -> None:
        self._front, self._back, self._size = front, back, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As of RawIOBase.

        Raises:
            OutOfWindow: the bytes were not kept.
        """
        wanted = min(len(buffer), max(0, self._size - self._at))
        behind = self._size - len(self._back)
        if self._at < len(self._front):
            data = self._front[self._at : self._at + wanted]
        elif wanted and self._at < behind:
            size = f"{self._size >> 20} MiB"
            raise OutOfWindow(f"an object of {size} in an archive, of which only the ends are read")
        else:
            data = self._back[self._at - behind : self._at - behind + wanted] if wanted else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def read_up_to(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes, or as many as there are; a raw stream may give less at a time."""
    parts: list[bytes] = []
    while size > 0 and (part := stream.read(min(size, CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def window_on(stream: BinaryIO, kept: int = KEPT) -> BinaryIO:
    """A seekable stand-in for a stream; reads it to its end, keeps twice `kept` bytes and some."""
    front = read_up_to(stream, kept)
    if len(front) < kept:
        return io.BytesIO(front)
    size, held = len(front), 0
    back: deque[bytes] = deque()
    while part := stream.read(CHUNK):
        back.append(part)
        size += len(part)
        held += len(part)
        while held - len(back[0]) >= kept:
            held -= len(back.popleft())
    return io.BufferedReader(Window(front, b"".join(back), size))
