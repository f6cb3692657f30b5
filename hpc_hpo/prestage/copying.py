"""Copying a file while its checksum is computed, and linking."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from hpc_hpo.fsio import storage_error

#: Files up to this many bytes are read whole.
SMALL = 1 << 20
#: Larger ones go through a ring of buffers; small enough to stay in a core's cache.
_BLOCK, _RING = 1 << 20, 8


def temporary_name(target: str | Path) -> str:
    """Where a file is written before it gets its name; in the same folder, for the rename."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{name}.{os.getpid()}.{threading.get_ident()}.tmp")


def copy_hashed(
    source: str | Path,
    target: str | Path,
    advance: Callable[[int], object] = lambda size: None,
    accept: Callable[[str], object] = lambda sha256: None,
) -> tuple[str, os.stat_result]:
    """Copy one file with its time and mode; nothing stands under its name before all of it does.

    The copy is not forced to the disk: what a crash leaves of it has another size than the
    manifest says, and is staged again.

    Args:
        advance: called with bytes copied since its last call.
        accept: called with the sha256 before the file gets its name; raises to refuse it.

    Returns:
        The sha256 of what was written, and the source's stat.

    Raises:
        OSError: the source cannot be read, or has changed meanwhile.
        StorageError: the target cannot be written.
    """
    # Bare system calls: for ten thousand small files Python's streams cost more than the kernel.
    read = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        stat = os.fstat(read)
        temporary = temporary_name(target)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            write = os.open(temporary, flags, stat.st_mode & 0o777 | 0o200)
        except OSError as error:
            raise storage_error(Path(target), error) from error
        try:
            if stat.st_size <= SMALL:
                data = os.read(read, SMALL + 1)
                size, digest = len(data), hashlib.sha256(data)
                _write_all(write, memoryview(data), target)
                advance(size)
            else:
                size, digest = _pump(read, write, target, advance)
            if size != stat.st_size or os.fstat(read).st_mtime_ns != stat.st_mtime_ns:
                raise OSError(0, "the source changes while it is read")
            os.utime(write, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        finally:
            os.close(write)
        accept(digest.hexdigest())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary_name(target))
        raise
    finally:
        os.close(read)
    return digest.hexdigest(), stat


def _write_all(fd: int, data: memoryview, target: str | Path) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        raise storage_error(Path(target), error) from error


def _pump(
    read: int, write: int, target: str | Path, advance: Callable[[int], object]
) -> tuple[int, hashlib._Hash]:
    """Copy through a ring of buffers while another thread hashes them."""
    digest = hashlib.sha256()
    free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
    full: queue.SimpleQueue[tuple[bytearray, int] | None] = queue.SimpleQueue()
    for _ in range(_RING):
        free.put(bytearray(_BLOCK))

    def hash_blocks() -> None:
        while (item := full.get()) is not None:
            block, length = item
            digest.update(memoryview(block)[:length])
            free.put(block)

    thread = threading.Thread(target=hash_blocks, name="sha256", daemon=True)
    thread.start()
    total = 0
    try:
        while True:
            block = free.get()
            length = os.readv(read, [block])
            if not length:
                break
            _write_all(write, memoryview(block)[:length], target)
            full.put((block, length))
            total += length
            advance(length)
    finally:
        full.put(None)
        thread.join()
    return total, digest


def link(source: str | Path, target: str | Path, *, hard: bool = False) -> None:
    """Put a link to `source` in the place of `target`.

    Args:
        hard: a hard link where the file system allows one, else a symbolic one.

    Raises:
        StorageError: the target cannot be written.
    """
    temporary = temporary_name(target)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        try:
            if not hard:
                raise OSError
            os.link(source, temporary)
        except OSError:
            os.symlink(os.path.realpath(source), temporary)
        os.replace(temporary, target)
        if hard:
            # A rename of one of a file's names to another of them leaves both.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    except OSError as error:
        raise storage_error(Path(target), error) from error
