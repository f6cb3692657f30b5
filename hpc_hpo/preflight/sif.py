"""SIF images: the architecture in the header and in the primary partition's descriptor.

The layout is that of the Go structs `header` and `rawDescriptor` in pkg/sif of apptainer/sif,
little-endian and without padding. There is no Python library for it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hpc_hpo.preflight.finding import Finding, damaged
from hpc_hpo.site.target import ARCHITECTURES, Target

MAGIC, MAGIC_AT = b"SIF_MAGIC\0", 32
#: launch line, magic, version, architecture, id, then times, counts and offsets.
_HEADER = struct.Struct("<32s10s3s3s16s8q")
#: type, used, id, group, link, offset, size, padded size, times, owner, name, type's own data.
_DESCRIPTOR = struct.Struct("<i?3I7q128s384s")
_PARTITION = struct.Struct("<ii3s")
_PARTITION_TYPE, _OCI_INDEX_TYPE, _PRIMARY = 0x4004, 0x400A, 2
#: More descriptors than any tool writes; a damaged count must not be believed.
_MOST = 100_000
NAMES = {arch.sif: arch.name for arch in ARCHITECTURES.values()} | {"01": "i386", "03": "arm"}


@dataclass(frozen=True)
class Sif:
    """What a SIF file states.

    Attributes:
        header: the header's architecture code.
        primary: that of the primary partition; None where there is none.
        squashfs: (offset, size) of the primary partition when it is a squashfs.
        oci: whether it holds an OCI image in place of a partition.
    """

    header: str
    primary: str | None
    squashfs: tuple[int, int] | None
    oci: bool


def is_sif(head: bytes) -> bool:
    """Whether a file begins as SIF images do."""
    return head[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC


def read_sif(stream: BinaryIO) -> Sif:
    """Read header and descriptors.

    Raises:
        ValueError: it ends too early, or its numbers cannot be.
    """
    raw = stream.read(_HEADER.size)
    if len(raw) < _HEADER.size:
        raise ValueError("the header is cut off")
    _, _, _, arch, _, _, _, _, total, offset, length, _, _ = _HEADER.unpack(raw)
    if not 0 <= total <= _MOST or offset < _HEADER.size or length < 0:
        raise ValueError("the header's offsets cannot be")
    stream.seek(offset)
    primary, squashfs, oci = None, None, False
    for _ in range(total):
        raw = stream.read(_DESCRIPTOR.size)
        if len(raw) < _DESCRIPTOR.size:
            raise ValueError("the descriptors are cut off")
        kind, used, _, _, _, at, size, *_, own = _DESCRIPTOR.unpack(raw)
        if not used:
            continue
        oci = oci or kind == _OCI_INDEX_TYPE
        if kind == _PARTITION_TYPE:
            system, role, code = _PARTITION.unpack(own[: _PARTITION.size])
            if role == _PRIMARY:
                primary = _code(code)
                squashfs = (at, size) if system == 1 else None
    return Sif(_code(arch), primary, squashfs, oci)


def _code(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("ascii", "replace")


def scan_sif(stream: BinaryIO, where: str, target: Target) -> Iterator[Finding]:
    """What of a SIF image's own statements does not fit the target.

    Args:
        stream: seekable, from the image's first byte.
    """
    try:
        image = read_sif(stream)
    except (ValueError, OSError, struct.error) as error:
        yield damaged(where, "SIF image", error)
        return
    if target.arch is None:
        return
    remedy = f"build the image on {target.arch_name}, or pull it with --arch {target.arch.oci}"
    stated = {"header": image.header}
    if image.primary is not None:
        stated["primary partition"] = image.primary
    elif not image.oci:
        yield Finding(
            where, "no primary partition", "a system to run", "build the image again", kind="sif"
        )
    for part, code in stated.items():
        # An image with an OCI image inside leaves the header's open.
        if code != target.arch.sif and not (image.oci and code == "00"):
            name = NAMES.get(code, f"code {code!r}")
            yield Finding(f"{where} ({part})", name, target.arch_name, remedy, kind="sif")


def squashfs_of(path: Path) -> tuple[int, int] | None:
    """(offset, size) of the squashfs that a SIF image runs from; None when it has none."""
    with open(path, "rb") as stream:
        try:
            return read_sif(stream).squashfs
        except (ValueError, struct.error):
            return None
