"""File operations that survive a crash: atomic replace, append with repair, checksums.

Layer 0: standard library only, imported by workers too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hpc_hpo.errors import StorageError

#: Errors after which the same write may succeed once the user has made room.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def storage_error(path: Path, error: OSError) -> StorageError:
    """Turn an OSError of a write into one that tells the user what to do."""
    if error.errno in NO_ROOM:
        remedy = "make room (or raise the quota) and run the same command again"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        remedy = "choose a folder you may write, with --dir"
    else:
        remedy = "see the message of the operating system"
    return StorageError(f"{path}: cannot be written: {error.strerror or error}; {remedy}")


def fsync_dir(path: Path) -> None:
    """Make a rename in `path` durable; silently skipped where directories cannot be synced."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some cluster file systems refuse fsync on a directory; the rename is then as
        # durable as they make it.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Replace `path` by `data`; a reader sees the old content or the new, never a mixture.

    The temporary file's name holds the process id, so a crashed writer's leftover never
    blocks the next one.
    """
    raw = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(raw)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, path)
        if durable:
            fsync_dir(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise storage_error(path, error) from error


def sha256_of(path: Path, chunk: int = 1 << 20) -> str:
    """Hex sha256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(chunk):
            digest.update(block)
    return digest.hexdigest()


def tail_of(path: Path, size: int = 2000) -> str:
    """The last `size` bytes of a text file, read from its end; empty when there is none."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - size))
            return stream.read().decode(errors="replace").strip()
    except OSError:
        return ""


def _no_nan_names(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not know, by tagged strings."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"__float__": repr(value)}
    if isinstance(value, dict):
        return {k: _no_nan_names(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_no_nan_names(v) for v in value]
    return value


def _restore_floats(value: dict[str, Any]) -> Any:
    if value.keys() != {"__float__"} or value["__float__"] not in ("nan", "inf", "-inf"):
        return value
    return float(value["__float__"])


def to_json(value: Any) -> str:
    """Compact, strict JSON. NaN and infinities survive the round trip through from_json."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    except ValueError:
        return json.dumps(
            _no_nan_names(value), separators=(",", ":"), allow_nan=False, ensure_ascii=False
        )


def exact_json(value: Any) -> str:
    """The same in ASCII, for files of other formats: lone surrogates survive in it, too."""
    return json.dumps(_no_nan_names(value), allow_nan=False)


def from_json(text: str | bytes) -> Any:
    """The inverse of to_json and of exact_json."""
    return json.loads(text, object_hook=_restore_floats)


_PREFIX = len('{"crc":"00000000",')


def seal(record: dict[str, Any]) -> bytes:
    """One line of JSON whose first key is the CRC-32 of all that follows it.

    Raises:
        ValueError: an empty record.
    """
    if not record:
        raise ValueError("an empty record cannot be sealed")
    body = to_json(record)[1:].encode("utf-8", "surrogatepass")
    return b'{"crc":"%08x",' % zlib.crc32(body) + body + b"\n"


def unseal(line: bytes) -> dict[str, Any] | None:
    """The record of a sealed line without its newline, or None when the line is not whole."""
    if len(line) < _PREFIX or not line.startswith(b'{"crc":"') or line[16:18] != b'",':
        return None
    body = line[_PREFIX:]
    if b"%08x" % zlib.crc32(body) != line[8:16]:
        return None
    try:
        record = from_json(b"{" + body)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def read_sealed(path: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(offset, record) of each complete line from byte `start`; None for one that is damaged.

    `offset` is the line's first byte.

    A last line without its newline is not yielded: its writer may still be writing.
    """
    offset = start
    with open(path, "rb") as stream:
        stream.seek(start)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            yield offset, unseal(line[:-1])
            offset += len(line)


class SealedWriter:
    """Appends sealed lines. Opening repairs a torn last line by cutting it off.

    Args:
        path: the file; created when missing.
        write: replaces os.write in tests that provoke errors.
    """

    def __init__(self, path: Path, write: Callable[[int, bytes], int] = os.write) -> None:
        self.path = path
        self._write = write
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise storage_error(path, error) from error
        try:
            self.repaired_bytes = self._cut_torn_tail()
        except OSError as error:
            os.close(self._fd)
            raise storage_error(path, error) from error
        self._dirty = False

    def _cut_torn_tail(self) -> int:
        """Bytes cut from the end: what follows the last newline is half a record."""
        size = os.fstat(self._fd).st_size
        end = size
        while end > 0:
            start = max(0, end - 65536)
            block = os.pread(self._fd, end - start, start)
            newline = block.rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end != size:
            os.ftruncate(self._fd, end)
        return size - end

    def append(self, lines: bytes) -> None:
        """Append whole lines, all or none of them.

        Raises:
            StorageError: nothing of `lines` is left in the file.
        """
        size = os.fstat(self._fd).st_size
        done = 0
        try:
            while done < len(lines):
                done += self._write(self._fd, lines[done:])
        except OSError as error:
            # Half a line would be glued to the next append; cutting needs no room.
            os.ftruncate(self._fd, size)
            raise storage_error(self.path, error) from error
        self._dirty = True

    def sync(self) -> None:
        """Make what was appended durable (one fsync for many appends)."""
        if not self._dirty:
            return
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise storage_error(self.path, error) from error
        self._dirty = False

    def close(self) -> None:
        """Close without syncing."""
        os.close(self._fd)
