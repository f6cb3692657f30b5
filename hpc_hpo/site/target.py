"""What files must fit: the facts of a site's nodes that compiled code depends on."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass, replace

from hpc_hpo.site.machine import Site

_GLIBC = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Architecture:
    """One architecture, as each kind of file names it.

    Attributes:
        name: as `uname -m` and wheel tags spell it.
        machine: ELF e_machine, as pyelftools spells it.
        bits: ELF class.
        little: whether its byte order is little-endian. PowerPC has both under one e_machine.
        oci: GOARCH, as image configs and SIF's tools spell it.
        sif: the two digits in a SIF header.
        conda: conda's subdir.
        flags: (mask, allowed values) of e_flags. For ppc64le the two low bits are the version
            of the ELF ABI: 2, or 0 where a file makes no use of the difference
            (OpenPOWER, "64-bit ELF V2 ABI specification").
    """

    name: str
    machine: str
    bits: int
    little: bool
    oci: str
    sif: str
    conda: str
    flags: tuple[int, tuple[int, ...]] | None = None


#: The low bits of e_flags on PowerPC; 0 is every object that makes no use of the difference.
_ABI_1, _ABI_2 = (3, (0, 1)), (3, (0, 2))
#: SIF's codes are those of pkg/sif/arch.go in apptainer/sif.
ARCHITECTURES = {
    each.name: each
    for each in (
        Architecture("x86_64", "EM_X86_64", 64, True, "amd64", "02", "linux-64"),
        Architecture("aarch64", "EM_AARCH64", 64, True, "arm64", "04", "linux-aarch64"),
        Architecture("ppc64le", "EM_PPC64", 64, True, "ppc64le", "06", "linux-ppc64le", _ABI_2),
        Architecture("ppc64", "EM_PPC64", 64, False, "ppc64", "05", "linux-ppc64", _ABI_1),
        Architecture("s390x", "EM_S390", 64, False, "s390x", "11", "linux-s390x"),
        Architecture("riscv64", "EM_RISCV", 64, True, "riscv64", "12", "linux-riscv64"),
    )
}  # fmt: skip
#: The first glibc that manylinux tags know for each architecture (PEP 599 and PEP 600).
FIRST_GLIBC = {"x86_64": 5}
#: No nodes' glibc is newer than this, where the site's file does not say.
LAST_GLIBC = 99
#: manylinux tags with names of their own, by the glibc they stand for.
OLD_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


def parse_glibc(text: str) -> tuple[int, ...] | None:
    """ "2.28" or "2.2.5" as numbers; None when it is no such version."""
    match = _GLIBC.fullmatch(text)
    return tuple(int(part) for part in match.groups() if part is not None) if match else None


@dataclass(frozen=True)
class Target:
    """The facts of a site's nodes. None: the site's file does not state it.

    Attributes:
        site: the site's name, for messages.
        arch: None for an architecture that ARCHITECTURES does not hold.
        arch_name: as the site's file spells it.
        page_size: bytes.
        glibc: version of the nodes' C library, as numbers.
        own_libc: whether the files bring a C library of their own, as in a container; the
            nodes' then does not matter.
        unverified: the site's keys that nobody could check.
        python: (major, minor) of the workers' Python.
    """

    site: str
    arch_name: str
    arch: Architecture | None
    page_size: int | None = None
    glibc: tuple[int, ...] | None = None
    python: tuple[int, int] = (sys.version_info[0], sys.version_info[1])
    own_libc: bool = False
    unverified: frozenset[str] = frozenset()

    def stated(self, key: str, text: str) -> str:
        """What the site needs, with a mark where nobody could check the site's key."""
        return f"{text} (unverified)" if key in self.unverified else text

    @property
    def glibc_text(self) -> str:
        """The C library's version as it is written."""
        return ".".join(map(str, self.glibc or ()))

    @property
    def python_text(self) -> str:
        """The Python's version as it is written."""
        return ".".join(map(str, self.python))

    def in_container(self) -> Target:
        """The same for files of a container image."""
        return replace(self, own_libc=True)


def target_of(site: Site) -> Target:
    """The facts of a site's nodes.

    On a site that is this machine, what its file leaves out is taken from the machine. The
    workers' Python is taken to have this process's version where the site states none: Parsl
    refuses any other.
    """
    glibc = parse_glibc(site.glibc) if site.glibc else None
    page_size = site.page_size
    if not site.batch and site.arch == platform.machine():
        glibc = glibc or _own_glibc()
        page_size = page_size or os.sysconf("SC_PAGE_SIZE")
    python = site.python_version or f"{sys.version_info[0]}.{sys.version_info[1]}"
    major, minor = map(int, python.split("."))
    return Target(
        site.name, site.arch, ARCHITECTURES.get(site.arch), page_size, glibc, (major, minor),
        unverified=frozenset(site.unverified),
    )  # fmt: skip


def _own_glibc() -> tuple[int, ...] | None:
    name, version = platform.libc_ver()
    return parse_glibc(version) if name == "glibc" else None


def platforms(target: Target, *, doubt: int = LAST_GLIBC) -> list[str]:
    """The platform tags that the site's nodes take, best first.

    Args:
        doubt: the minor version of glibc to count on where the site's is not known.
    """
    arch = target.arch_name
    newest = target.glibc[1] if target.glibc else doubt
    tags = []
    for minor in range(newest, FIRST_GLIBC.get(arch, 17) - 1, -1):
        tags.append(f"manylinux_2_{minor}_{arch}")
        if minor in OLD_NAMES and (minor == 17 or arch == "x86_64"):
            tags.append(f"{OLD_NAMES[minor]}_{arch}")
    return [*tags, f"linux_{arch}"]
