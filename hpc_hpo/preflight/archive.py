"""What a stream is, by its first bytes, and the members of tar, zip and compressed streams."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import lzma
import re
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal

from hpc_hpo.preflight import elf, sif
from hpc_hpo.preflight.window import CHUNK

#: Bytes that tell every kind apart; a tar's mark is at 257.
HEAD = 512
#: The largest zip inside a compressed archive that is kept to be read: a zip's table stands at
#: its end. The first part stays in memory, the rest goes to a nameless temporary file.
SPOOL, IN_MEMORY = 4 << 30, 128 << 20

Kind = Literal["elf", "sif", "tar", "zip", "gzip", "bzip2", "xz", "zstd", ""]
_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (elf.MAGIC, "elf"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_FIRST = {magic[:1] for magic, _ in _MAGIC}
#: The checksum's field in a tar's header: octal digits, with spaces and NULs around.
_TAR_SUM = re.compile(rb"[ \0]*[0-7]+[ \0]*\Z")
#: What reading damaged archives raises, in the standard library and in zstandard (whose
#: ZstdError is told by its base).
DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError,
    ValueError, RuntimeError, NotImplementedError, KeyError, IndexError, OverflowError,
    AssertionError, AttributeError, TypeError,
)  # fmt: skip


class TooLarge(Exception):
    """A nested archive is too large to be looked into."""


class Rewound(io.RawIOBase):
    """A stream whose first bytes were read already, as if they had not been."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def kind_of(head: bytes) -> Kind:
    """What begins with these bytes (HEAD of them, or all there are); "" when nothing known."""
    if head[:1] in _FIRST:
        for magic, kind in _MAGIC:
            if head.startswith(magic):
                return kind
    if sif.is_sif(head):
        return "sif"
    return "tar" if _is_tar(head) else ""


def _is_tar(head: bytes) -> bool:
    """By the header's checksum, which old tars without a mark have as well."""
    if len(head) < HEAD or not _TAR_SUM.match(head[148:156]):
        return False
    try:
        tarfile.TarInfo.frombuf(head[:HEAD], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def decompressed(stream: BinaryIO, kind: Kind) -> BinaryIO | None:
    """The content of a compressed stream; None when what zstd needs is not installed."""
    if kind == "gzip":
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]
    if kind == "bzip2":
        return bz2.BZ2File(stream)  # type: ignore[return-value]
    if kind == "xz":
        return lzma.LZMAFile(stream)  # type: ignore[return-value]
    if importlib.util.find_spec("zstandard") is None:
        return None
    import zstandard

    reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
    return io.BufferedReader(reader, CHUNK)


def tar_members(
    stream: BinaryIO, *, seekable: bool = False
) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    """(header, content) of a tar's members in their order; only files have a content.

    A content has to be read before the next member is asked for.

    Args:
        seekable: what is not read of a content is skipped without reading it.

    Raises:
        one of DAMAGE.
    """
    mode: Literal["r:", "r|"] = "r:" if seekable else "r|"
    with tarfile.open(fileobj=stream, mode=mode, errorlevel=2) as archive:
        for member in archive:
            # The list of members would hold all of them to the end.
            archive.members = []  # type: ignore[attr-defined]
            content = archive.extractfile(member) if member.isreg() else None
            yield member, content  # type: ignore[misc]


def zip_members(stream: BinaryIO) -> Iterator[tuple[str, BinaryIO]]:
    """(name, content) of a zip's files.

    Args:
        stream: seekable; see spooled.

    Raises:
        one of DAMAGE.
    """
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                with archive.open(info) as content:
                    yield info.filename, content  # type: ignore[misc]


def spooled(stream: BinaryIO) -> BinaryIO:
    """A seekable copy of a stream.

    Raises:
        TooLarge: it is larger than SPOOL.
    """
    # The caller closes it.
    copy = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
    size = 0
    while part := stream.read(CHUNK):
        size += len(part)
        if size > SPOOL:
            copy.close()
            raise TooLarge(f"an archive of more than {SPOOL >> 30} GiB inside another")
        copy.write(part)
    copy.seek(0)
    return copy  # type: ignore[return-value]
