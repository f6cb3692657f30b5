"""The files of a squashfs, as a stream out of `unsquashfs -cat`; nothing is unpacked to disk.

squashfs-tools come with Apptainer, so a machine that makes SIF images has them. -cat and -offset
need version 4.5.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from hpc_hpo.preflight.window import CHUNK

PROGRAM = "unsquashfs"
#: Files named in one call: far below what a command line holds.
BATCH = 200
#: A listing's line of a regular file: mode, owner, size, date, time, path below a given root.
_ROOT = "x"
_LINE = re.compile(rf"-\S+ +\S+ +(\d+) +\S+ +\S+ {_ROOT}/(.*)")
#: An ELF header alone takes more; smaller files are not looked at.
_SMALLEST = 52


class NoSquashfs(Exception):
    """The files cannot be looked at. `remedy` says what would help."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


class _Slice(io.RawIOBase):
    """The next bytes of a stream that belong to one file."""

    def __init__(self, stream: Any, size: int) -> None:
        self._stream, self.left = stream, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), self.left))
        if not data and self.left:
            raise EOFError("the squashfs ends inside a file")
        buffer[: len(data)] = data
        self.left -= len(data)
        return len(data)


def squashfs_members(
    path: Path, place: tuple[int, int]
) -> Generator[tuple[str, BinaryIO], None, None]:
    """(path, content) of the regular files in a squashfs.

    A content has to be read before the next is asked for; what is left of it is skipped.

    Args:
        path: the file that holds the squashfs.
        place: (offset, size) of the squashfs in it.

    Raises:
        NoSquashfs: unsquashfs is missing, too old, or refuses it.
        EOFError: it is cut off.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise NoSquashfs(
            f"no {PROGRAM} on PATH to look into it", "install squashfs-tools, and check again"
        )
    head = [program, "-offset", str(place[0])]
    listing = subprocess.run(
        [*head, "-dest", _ROOT, "-lln", str(path)], capture_output=True, text=True,
        errors="surrogateescape", stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if listing.returncode != 0:
        raise _refused(listing.stderr)
    files = iter(
        [
            (match[2], int(match[1]))
            for line in listing.stdout.splitlines()
            if (match := _LINE.fullmatch(line)) and int(match[1]) >= _SMALLEST
        ]
    )
    while batch := list(islice(files, BATCH)):
        yield from _contents([*head, "-no-wildcards", "-cat", str(path)], batch)


def _contents(
    argv: Sequence[str], batch: Sequence[tuple[str, int]]
) -> Generator[tuple[str, BinaryIO], None, None]:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*argv, *(name for name, _ in batch)], stdout=subprocess.PIPE, stderr=errors,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout is not None
        whole = False
        try:
            for name, size in batch:
                content = _Slice(process.stdout, size)
                yield name, content  # type: ignore[misc]
                while content.left:
                    content.read(CHUNK)
            whole = True
        except EOFError:
            errors.seek(0)
            raise _refused(errors.read().decode(errors="replace")) from None
        finally:
            if not whole:
                process.kill()
            process.stdout.close()
            process.wait()


def _refused(text: str) -> NoSquashfs:
    reason = " ".join(text.split())[:120]
    return NoSquashfs(f"{PROGRAM} fails: {reason}", "install squashfs-tools 4.5 or newer")
