"""Walks files, folders and archives, and hands each object to the scanner of its kind."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from hpc_hpo.preflight import archive, image
from hpc_hpo.preflight.elf import scan_elf
from hpc_hpo.preflight.finding import Finding, damaged, inner
from hpc_hpo.preflight.sif import scan_sif, squashfs_of
from hpc_hpo.preflight.squashfs import NoSquashfs, squashfs_members
from hpc_hpo.preflight.versions import Versions
from hpc_hpo.preflight.wheel import scan_wheel_name
from hpc_hpo.preflight.window import read_up_to, window_on
from hpc_hpo.site.target import ARCHITECTURES, Target

#: Archives in archives, compression counted: an image with a wheel in an environment's archive in
#: a layer takes six. Deeper ones are not opened; they are made to be endless.
DEEPEST = 9
#: Java's archives carry libraries for many systems, of which each takes its own.
_FOREIGN = (".jar", ".war", ".aar")
_OWN_LIBC = re.compile(r"(?:usr/)?lib(?:64)?/(?:[^/]+/)?libc\.so\.6\Z")


class Walk:
    """Scans one thing after another.

    Args:
        target: what everything has to fit.
        versions: environments that are met are noted there.
        names: gets the names of the members of a tar that is scanned directly.

    Attributes:
        findings: what does not fit, so far.
        objects: ELF objects that were looked at.
        versions: the environments that were met.
    """

    def __init__(
        self, target: Target, versions: Versions | None = None, names: set[str] | None = None
    ) -> None:
        self.target = target
        self.findings: list[Finding] = []
        self.objects = 0
        self.versions = Versions() if versions is None else versions
        self._names = names
        self._seen: set[tuple[int, int]] = set()

    def path(self, path: Path, label: str | None = None) -> None:
        """Scan a file or a folder with all that is below it.

        Args:
            label: how findings name it; by default its path.
        """
        where = str(path) if label is None else label
        begin = len(self.findings)
        try:
            if path.is_dir():
                self._folder(path, where)
            else:
                self._file(str(path), where)
        except OSError as error:
            self._unread(where, error)
        self.findings[begin:] = [replace(row, root=where) for row in self.findings[begin:]]

    def _unread(self, where: str, error: OSError) -> None:
        self.findings.append(
            Finding(where, f"cannot be read: {error.strerror or error}", "a look at it",
                    "check its permissions", "not checked", "unread")
        )  # fmt: skip

    def _folder(self, folder: Path, where: str) -> None:
        begin, own_libc = len(self.findings), False
        for place, folders, files in os.walk(folder):
            folders.sort()
            within = os.path.relpath(place, folder)
            if image.LAYOUT in files and image.INDEX in files:
                self._layout(Path(place), where if within == "." else os.path.join(where, within))
                folders.clear()
                continue
            for name in sorted(files):
                inside = name if within == "." else f"{within}/{name}"
                path, label = f"{place}/{name}", f"{where}/{inside}"
                self.versions.note(where, inside)
                own_libc = own_libc or _OWN_LIBC.match(inside) is not None
                try:
                    self._file(path, label)
                except OSError as error:
                    if os.path.exists(path):  # not a link that leads nowhere
                        self._unread(label, error)
        if own_libc:
            self._forget_libc(begin)

    def _file(self, path: str, where: str) -> None:
        facts = os.stat(path)
        mark = (facts.st_dev, facts.st_ino)
        # libx.so, libx.so.1 and libx.so.1.2 are one file; a pipe would never end.
        if mark in self._seen or not stat.S_ISREG(facts.st_mode):
            return
        self._seen.add(mark)
        # Bare calls: most of many files are data, and have been looked at after this.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = os.read(fd, archive.HEAD)
        finally:
            os.close(fd)
        kind = archive.kind_of(head)
        if not kind:
            if where.endswith(".whl"):
                self._wheel(where)
                self.findings.append(damaged(where, "wheel", "it is no zip archive"))
            return
        with open(path, "rb") as stream:
            if kind == "elf":
                self._elf(stream, where, self.target)
            elif kind == "sif":
                self.findings += scan_sif(stream, where, self.target)
                self._squashfs(Path(path), where)
            elif kind == "zip":
                self._zip(stream, where, 0)
            elif kind == "tar":
                self._tar(stream, where, 0, seekable=True)
            else:
                self.stream(stream, where, 0)

    def stream(
        self, stream: BinaryIO, where: str, depth: int, target: Target | None = None
    ) -> None:
        """Scan what comes out of a stream, without seeking in it."""
        target = target or self.target
        head = read_up_to(stream, archive.HEAD)
        kind = archive.kind_of(head)
        if not kind:
            return
        whole: BinaryIO = archive.Rewound(head, stream)  # type: ignore[assignment]
        if kind == "elf":
            self._elf(window_on(whole), where, target)
        elif depth >= DEEPEST:
            self._not_opened(where, f"an archive {depth} archives deep")
        elif kind == "tar":
            self._tar(whole, where, depth)
        elif kind in ("zip", "sif"):
            self._spooled(whole, kind, where, depth)
        else:
            self._compressed(whole, kind, where, depth, target)

    def _elf(self, stream: BinaryIO, where: str, target: Target) -> None:
        self.objects += 1
        self.findings += scan_elf(stream, where, target)

    def _not_opened(
        self, where: str, found: str, remedy: str = "give it as a file of its own"
    ) -> None:
        self.findings.append(
            Finding(where, found, "a look into it", remedy, "not checked", "unread")
        )

    def _compressed(
        self, stream: BinaryIO, kind: archive.Kind, where: str, depth: int, target: Target
    ) -> None:
        content = archive.decompressed(stream, kind)
        if content is None:
            self._not_opened(
                where, "compressed with zstd", "pip install zstandard, and check again"
            )
            return
        try:
            # The same place: x.tar.gz!y, not x.tar.gz!x.tar!y.
            self.stream(content, where, depth + 1, target)
        except archive.DAMAGE as error:
            self.findings.append(damaged(where, f"{kind} stream", error))
        except Exception as error:
            if type(error).__name__ != "ZstdError":
                raise
            self.findings.append(damaged(where, "zstd stream", error))

    def _spooled(self, stream: BinaryIO, kind: archive.Kind, where: str, depth: int) -> None:
        try:
            with archive.spooled(stream) as copy:
                if kind == "zip":
                    self._zip(copy, where, depth)
                else:
                    self.findings += scan_sif(copy, where, self.target)
                    self._not_opened(where, "a SIF image inside an archive")
        except archive.TooLarge as error:
            self._not_opened(where, str(error))

    def _wheel(self, where: str) -> None:
        name = re.split(r"[/!]", where)[-1]
        self.versions.note(where.removesuffix(name).rstrip("/!"), name)
        self.findings += scan_wheel_name(name, where, self.target)

    def _zip(self, stream: BinaryIO, where: str, depth: int) -> None:
        if where.endswith(_FOREIGN):
            return
        if where.endswith(".whl"):
            self._wheel(where)
        try:
            for name, content in archive.zip_members(stream):
                if not where.endswith(".whl"):
                    self.versions.note(where, name)
                self.stream(content, inner(where, name), depth + 1)
        except archive.DAMAGE as error:
            self.findings.append(damaged(where, "zip archive", error))

    def _tar(self, stream: BinaryIO, where: str, depth: int, seekable: bool = False) -> None:
        documents: dict[str, bytes] = {}
        layers: dict[str, image.Layer] = {}
        names: set[str] = set()
        links: dict[str, str] = {}
        # Those of the first tar that is met: a layer itself, not what lies in it.
        keep, self._names = self._names, None
        begin, own_libc = len(self.findings), False
        try:
            for member, content in archive.tar_members(stream, seekable=seekable):
                plain = os.path.normpath(member.name).lstrip("/")
                own_libc = own_libc or _OWN_LIBC.match(plain) is not None
                self.versions.note(where, plain)
                if image.may_matter(plain):
                    names.add(plain)
                if keep is not None:
                    keep.add(plain)
                if image.may_be_layer(plain) and (member.issym() or member.islnk()):
                    links[plain] = _target_of(plain, member)
                if content is not None:
                    self._member(content, plain, member.size, where, depth, documents, layers)
        except archive.DAMAGE as error:
            self.findings.append(damaged(where, "tar archive", error))
        if own_libc:
            self._forget_libc(begin)
        if image.is_image(documents, names):
            found = image.follow(documents, names, where, self.target)
            # Docker has stored a layer that two images share as a link to the other's.
            places = [links.get(name, name) for name in found.layers]
            live = [layers.get(name, image.Layer()) for name in places]
            self.findings += found.findings
            self.findings += image.visible(live, [inner(where, n) for n in places])
        else:
            for layer in layers.values():
                self.findings += layer.findings

    def _member(
        self, content: BinaryIO, name: str, size: int, where: str, depth: int,
        documents: dict[str, bytes], layers: dict[str, image.Layer],
    ) -> None:  # fmt: skip
        head = read_up_to(content, archive.HEAD)
        place = inner(where, name)
        if image.may_be_document(name, head, size):
            documents[name] = head + read_up_to(content, size - len(head))
            return
        whole: BinaryIO = archive.Rewound(head, content)  # type: ignore[assignment]
        if not image.may_be_layer(name):
            self.stream(whole, place, depth + 1)
            return
        layers[name] = self._layer(whole, place, depth)

    def _layer(self, stream: BinaryIO, where: str, depth: int) -> image.Layer:
        layer = image.Layer()
        below = Walk(self.target.in_container(), self.versions, layer.names)
        below.stream(stream, where, depth + 1)
        layer.findings = below.findings
        self.objects += below.objects
        return layer

    def _layout(self, folder: Path, where: str) -> None:
        """An OCI layout as a folder: only what the index leads to is opened."""
        files = [p for p in folder.rglob("*") if p.is_file()]
        names = {p.relative_to(folder).as_posix(): p for p in files}
        documents = {}
        for name, path in names.items():
            with open(path, "rb") as stream:
                head = stream.read(archive.HEAD)
                if image.may_be_document(name, head, path.stat().st_size):
                    documents[name] = head + stream.read()
        found = image.follow(documents, set(names), where, self.target)
        layers = []
        for name in found.layers:
            with open(names[name], "rb") as stream:
                layers.append(self._layer(stream, inner(where, name), 0))
        self.findings += found.findings
        self.findings += image.visible(layers, [inner(where, name) for name in found.layers])

    def _squashfs(self, path: Path, where: str) -> None:
        """The files in a SIF's primary partition, read through unsquashfs."""
        place = squashfs_of(path)
        if place is None:
            self._not_opened(f"{where} (files)", "no squashfs partition to look into")
            return
        inside = self.target.in_container()
        try:
            with contextlib.closing(squashfs_members(path, place)) as members:
                for name, content in members:
                    self.versions.note(where, name)
                    self.stream(content, inner(where, name), 1, inside)
        except NoSquashfs as error:
            self._not_opened(f"{where} (files)", str(error), error.remedy)

    def _forget_libc(self, begin: int) -> None:
        """Drop what was said about the C library, in a system that brings its own."""
        kept = [f for f in self.findings[begin:] if f.kind not in ("glibc", "libc")]
        self.findings[begin:] = kept


def _target_of(name: str, link: tarfile.TarInfo) -> str:
    folder = os.path.dirname(name) if link.issym() else ""
    return os.path.normpath(os.path.join(folder, link.linkname))


def scan(paths: Iterable[Path], target: Target) -> list[Finding]:
    """Everything in files and folders that does not fit a target.

    Args:
        paths: files, archives, images and folders.
        target: the facts of the nodes (target_of).

    Returns:
        One finding for each thing; those of the level "not checked" claim nothing.
    """
    walk = Walk(target)
    for path in paths:
        walk.path(path)
    return [*unknown(target), *walk.findings]


def unknown(target: Target) -> list[Finding]:
    """What cannot be checked at all, because the site's file does not say what it should be."""
    rows = []
    place = f"site {target.site}"
    if target.arch is None:
        known = ", ".join(ARCHITECTURES)
        rows.append(
            Finding(place, f"arch {target.arch_name}", f"one of {known}", "state arch in its file",
                    "not checked", "arch")
        )  # fmt: skip
    if target.page_size is None:
        rows.append(
            Finding(place, "no page_size stated", "the nodes' page size",
                    "state it in its file (getconf PAGESIZE on a node)", "not checked", "pages")
        )  # fmt: skip
    return rows
