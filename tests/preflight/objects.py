"""Small ELF objects, archives and images of any architecture, made without a compiler."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence

X86, PPC64, ARM64 = 62, 21, 183
_LOAD, _DYNAMIC, _INTERP = 1, 2, 3
_STRTAB, _VERNEED = 3, 0x6FFFFFFE


def elf(
    machine: int = PPC64, *, little: bool = True, flags: int = 2, align: int = 0x10000,
    glibc: Sequence[str] = ("GLIBC_2.17",), interpreter: str = "", padding: int = 0,
) -> bytes:  # fmt: skip
    """A 64-bit shared object with one segment and the versions it needs of libc.so.6.

    Args:
        padding: bytes between the segments and the section table.
    """
    order = "<" if little else ">"
    strings = bytearray(b"\0")

    def string(text: str) -> int:
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text) - 1

    auxiliary = b""
    for number, name in enumerate(glibc):
        last = number == len(glibc) - 1
        auxiliary += struct.pack(order + "IHHII", 0, 0, 2 + number, string(name), 0 if last else 16)
    needs = struct.pack(order + "HHIII", 1, len(glibc), string("libc.so.6"), 16, 0) + auxiliary
    if not glibc:
        needs = b""
    names = b"\0.dynstr\0.gnu.version_r\0.shstrtab\0"
    path = interpreter.encode() + b"\0" if interpreter else b""
    segments = 2 if interpreter else 1
    at = 64 + 56 * segments
    parts = [path, bytes(strings), needs, names, b"\0" * padding]
    starts = [at + sum(map(len, parts[:n])) for n in range(len(parts) + 1)]
    table = starts[-1]

    def segment(kind: int, offset: int, size: int, alignment: int) -> bytes:
        return struct.pack(order + "IIQQQQQQ", kind, 5, offset, offset, 0, size, size, alignment)

    def section(
        name: int, kind: int, offset: int, size: int, link: int = 0, info: int = 0
    ) -> bytes:
        return struct.pack(order + "IIQQQQIIQQ", name, kind, 0, 0, offset, size, link, info, 1, 0)

    sections = [
        section(0, 0, 0, 0),
        section(1, _STRTAB, starts[1], len(strings)),
        section(9, _VERNEED, starts[2], len(needs), 1, 1 if needs else 0),
        section(24, _STRTAB, starts[3], len(names)),
    ]
    head = struct.pack("4sBBBB8x", b"\x7fELF", 2, 1 if little else 2, 1, 0) + struct.pack(
        order + "HHIQQQIHHHHHH", 3, machine, 1, 0, 64, table, flags, 64, 56, segments, 64, 4, 3
    )
    body = segment(_LOAD, 0, table, align)
    if interpreter:
        body += segment(_INTERP, starts[0], len(path), 1)
    return head + body + b"".join(parts) + b"".join(sections)


def tar(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar archive; `mode` as of tarfile.open."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip archive: a wheel, a .npz, a conda package."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def sif(header: str, primary: str | None, content: bytes = b"", system: int = 1) -> bytes:
    """A SIF image with one partition; `system` 1 is squashfs."""
    descriptors = b""
    start = 128 + 585
    if primary is not None:
        own = struct.pack("<ii3s", system, 2, primary.encode() + b"\0").ljust(384, b"\0")
        descriptors = struct.pack(
            "<i?3I7q128s384s", 0x4004, True, 1, 1, 0, start, len(content), len(content),
            0, 0, 0, 0, b"x", own,
        )  # fmt: skip
    total = len(descriptors) // 585
    head = struct.pack(
        "<32s10s3s3s16s8q", b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC\0", b"01\0",
        header.encode() + b"\0", b"i" * 16, 0, 0, 0, total, 128, 585 * total, start, len(content),
    )  # fmt: skip
    return head + descriptors.ljust(585, b"\0") + content


def blob(content: bytes) -> tuple[str, str]:
    """(path in an OCI layout, digest)."""
    digest = hashlib.sha256(content).hexdigest()
    return f"blobs/sha256/{digest}", f"sha256:{digest}"


def oci(
    claim: str, layers: Sequence[bytes], *, platform: str | None = None,
    stale: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:  # fmt: skip
    """The files of an OCI layout.

    Args:
        claim: the config's architecture.
        layers: tar archives, from the bottom up.
        platform: the index's word for it; None: it has none.
        stale: further files.
    """
    files = dict(stale or {})
    entries = []
    for layer in layers:
        path, digest = blob(layer)
        files[path] = layer
        entries.append({"digest": digest, "size": len(layer)})
    config = json.dumps({"architecture": claim, "os": "linux"}).encode()
    config_path, config_digest = blob(config)
    manifest = json.dumps({"config": {"digest": config_digest}, "layers": entries}).encode()
    manifest_path, manifest_digest = blob(manifest)
    entry: dict[str, object] = {"digest": manifest_digest}
    if platform is not None:
        entry["platform"] = {"architecture": platform, "os": "linux"}
    files |= {config_path: config, manifest_path: manifest}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    return files


def docker(claim: str, layers: Sequence[bytes]) -> dict[str, bytes]:
    """The files of a docker archive, as `docker save` made them before version 25."""
    files = {}
    names = []
    for layer in layers:
        names.append(f"{hashlib.sha256(layer).hexdigest()}/layer.tar")
        files[names[-1]] = layer
    config = json.dumps({"architecture": claim, "os": "linux"}).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    files[name] = config
    files["manifest.json"] = json.dumps([{"Config": name, "Layers": names}]).encode()
    return files
