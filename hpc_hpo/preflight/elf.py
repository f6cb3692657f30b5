"""ELF objects: machine, byte order, ABI flags, page alignment, the C library they need."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from hpc_hpo.preflight.finding import Finding, damaged
from hpc_hpo.preflight.window import OutOfWindow
from hpc_hpo.site.target import ARCHITECTURES, Architecture, Target, parse_glibc

MAGIC = b"\x7fELF"
#: Code for devices, which no CPU's loader ever sees: GPU kernels, and programs for the kernel's
#: own machine.
DEVICES = ("EM_CUDA", "EM_AMDGPU", "EM_BPF", "EM_INTELGT")
NAMES = {
    "EM_X86_64": "x86_64", "EM_386": "i386", "EM_AARCH64": "aarch64", "EM_ARM": "arm",
    "EM_S390": "s390x", "EM_RISCV": "riscv", "EM_PPC": "ppc",
}  # fmt: skip
#: e_machine of Intel's GPUs, which pyelftools has no name for (llvm/BinaryFormat/ELF.h).
_INTEL_GPU = 205
#: Symbol versions that are no numbers, with the release that brought them.
_MARKS: dict[str, tuple[int, ...]] = {"GLIBC_ABI_DT_RELR": (2, 36)}
_VERSION = re.compile(r"GLIBC_(\d+\.\d+(?:\.\d+)?)")


def scan_elf(stream: BinaryIO, where: str, target: Target) -> Iterator[Finding]:
    """What of one ELF object does not fit the target.

    Args:
        stream: seekable, from the object's first byte.
    """
    try:
        yield from _scan(ELFFile(stream), where, target)
    # pyelftools raises whatever its parsers meet in damaged files: construct's errors, KeyError,
    # UnicodeDecodeError, AssertionError, OverflowError ...
    except Exception as error:
        missed = _missed(error)
        if missed is None:
            yield damaged(where, "ELF object", error)
        else:
            yield Finding(
                where, str(missed), "a look at its symbol versions", "give it as a file of its own",
                "not checked", "window",
            )  # fmt: skip


def _missed(error: BaseException | None) -> OutOfWindow | None:
    """The window's own error, which pyelftools wraps in others."""
    while error is not None and not isinstance(error, OutOfWindow):
        error = error.__cause__ or error.__context__
    return error


def _scan(elf: Any, where: str, target: Target) -> Iterator[Finding]:
    machine = elf.header.e_machine
    if machine in DEVICES or machine == _INTEL_GPU or target.arch is None:
        return
    arch = target.arch
    remedy = f"build or install it on {arch.name}, or take it from conda ({arch.conda}) or a module"
    found = describe(machine, elf.elfclass, elf.little_endian)
    if (machine, elf.elfclass, elf.little_endian) != (arch.machine, arch.bits, arch.little):
        yield Finding(where, found, arch.name, remedy, kind="arch")
        return
    _check_tables(elf)
    yield from _flags(elf.header.e_flags, where, arch, remedy)
    yield from _alignment(elf, where, target)
    yield from _libc(elf, where, target)


def _check_tables(elf: Any) -> None:
    """Refuse counts that cannot be: pyelftools would follow them for hours.

    Raises:
        ValueError: a table is longer than the file.
    """
    head = elf.header
    length = elf.stream.seek(0, io.SEEK_END)
    for what, count, offset, size in (
        ("segments", elf.num_segments(), head.e_phoff, head.e_phentsize),
        ("sections", elf.num_sections(), head.e_shoff, head.e_shentsize),
    ):
        if count and (size == 0 or offset + count * size > length):
            raise ValueError(f"the table of {count} {what} does not fit into it")


def describe(machine: str | int, bits: int, little: bool) -> str:
    """An object's machine in the words of `uname -m`, with what may differ besides."""
    if machine == "EM_PPC64":
        return "ppc64le" if little else "ppc64 (big-endian)"
    name = NAMES.get(str(machine), str(machine).removeprefix("EM_").lower())
    usual = next((a for a in ARCHITECTURES.values() if a.machine == machine), None)
    notes = []
    if usual is not None and bits != usual.bits:
        notes.append(f"{bits}-bit")
    if usual is not None and little != usual.little:
        notes.append(f"{'little' if little else 'big'}-endian")
    return f"{name} ({', '.join(notes)})" if notes else name


def _flags(flags: int, where: str, arch: Architecture, remedy: str) -> Iterator[Finding]:
    if arch.flags is None:
        return
    mask, allowed = arch.flags
    if flags & mask not in allowed:
        yield Finding(
            where, f"{arch.name}, ELF ABI version {flags & mask}",
            f"ELF ABI version {max(allowed)}", remedy, kind="abi",
        )  # fmt: skip


def _alignment(elf: Any, where: str, target: Target) -> Iterator[Finding]:
    """glibc refuses a segment whose alignment is no multiple of the page size: "ELF load command
    alignment not page-aligned" (elf/dl-load.c)."""
    loads = [s.header.p_align for s in elf.iter_segments() if s.header.p_type == "PT_LOAD"]
    if target.page_size is None or not loads:
        return
    wrong = [align for align in loads if align % target.page_size]
    if wrong:
        yield Finding(
            where,
            f"segments aligned to {_pages(min(wrong))}",
            target.stated("page_size", f"to {_pages(target.page_size)}, the nodes' pages"),
            f"link it with -z max-page-size={target.page_size:#x}",
            kind="pages",
        )


def _pages(size: int) -> str:
    return f"{size // 1024} KiB" if size and size % 1024 == 0 else f"{size} bytes"


def _libc(elf: Any, where: str, target: Target) -> Iterator[Finding]:
    if target.own_libc:
        return
    needed, readable = glibc_needed(elf)
    if not readable:
        yield Finding(
            where, "no section headers", "its symbol versions", "take an object that is not cut",
            "not checked", "window",
        )  # fmt: skip
    if _needs_musl(elf):
        yield Finding(
            where, "built for musl", "glibc", "take a manylinux build, not a musllinux one",
            kind="libc",
        )  # fmt: skip
    elif needed and target.glibc is not None and needed > target.glibc:
        yield Finding(
            where,
            f"needs glibc {'.'.join(map(str, needed))}",
            target.stated("glibc", f"at most glibc {target.glibc_text}"),
            "take an older build, conda's, or build it on the site",
            kind="glibc",
        )
    elif needed and target.glibc is None:
        yield Finding(
            where, f"needs glibc {'.'.join(map(str, needed))}", "the nodes' glibc is not known",
            "state glibc in the site's file (ldd --version on a node)", "not checked", "glibc",
        )  # fmt: skip


def glibc_needed(elf: Any) -> tuple[tuple[int, ...] | None, bool]:
    """(highest glibc version that an object's symbols need, whether that could be read)."""
    highest: tuple[int, ...] | None = None
    for section in elf.iter_sections():
        if not isinstance(section, GNUVerNeedSection):
            continue
        for name in _version_names(section):
            version = _MARKS.get(name)
            if version is None and (match := _VERSION.fullmatch(name)):
                version = parse_glibc(match[1])
            if version is not None and (highest is None or version > highest):
                highest = version
    dynamic = any(s.header.p_type == "PT_DYNAMIC" for s in elf.iter_segments())
    return highest, elf.num_sections() > 0 or not dynamic


def _version_names(section: Any) -> Iterator[str]:
    """The names of the symbol versions that a section asks for.

    Raises:
        ValueError: it counts more of them than it has room for; a damaged count must not be
            followed.
    """
    left = section.header.sh_size // 16
    for _, auxiliaries in section.iter_versions():
        for auxiliary in itertools.chain([None], auxiliaries):
            left -= 1
            if left < 0:
                raise ValueError("more symbol versions than their section holds")
            if auxiliary is not None:
                yield auxiliary.name


def _needs_musl(elf: Any) -> bool:
    for segment in elf.iter_segments():
        if segment.header.p_type == "PT_INTERP" and "ld-musl" in segment.get_interp_name():
            return True
        if segment.header.p_type == "PT_DYNAMIC":
            for tag in segment.iter_tags("DT_NEEDED"):
                if tag.needed.startswith("libc.musl"):
                    return True
    return False
