"""Wheels by their names: Python, ABI and platform tags against the site's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from hpc_hpo.preflight.finding import Finding, damaged
from hpc_hpo.preflight.target import Target

#: The first glibc that manylinux tags know for each architecture (PEP 599 and PEP 600).
FIRST_GLIBC = {"x86_64": 5}
#: No nodes' glibc is newer than this, where the site's file does not say.
LAST_GLIBC = 99
#: manylinux tags with names of their own, by the glibc they stand for.
OLD_NAMES = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


def platforms(target: Target) -> list[str]:
    """The platform tags that the site's nodes take, best first."""
    arch = target.arch_name
    newest = target.glibc[1] if target.glibc else LAST_GLIBC
    tags = []
    for minor in range(newest, FIRST_GLIBC.get(arch, 17) - 1, -1):
        tags.append(f"manylinux_2_{minor}_{arch}")
        if minor in OLD_NAMES and (minor == 17 or arch == "x86_64"):
            tags.append(f"{OLD_NAMES[minor]}_{arch}")
    return [*tags, f"linux_{arch}"]


@lru_cache(maxsize=8)
def tags_of(target: Target) -> frozenset[Tag]:
    """Every wheel tag that CPython on the site's nodes takes."""
    where = platforms(target)
    minor = "".join(map(str, target.python))
    return frozenset(
        (
            *cpython_tags(target.python, [f"cp{minor}"], where),
            *compatible_tags(target.python, f"cp{minor}", where),
        )
    )


def scan_wheel_name(name: str, where: str, target: Target) -> Iterator[Finding]:
    """What of a wheel's name does not fit the target.

    Args:
        name: the file's name.
        where: the wheel's place.
    """
    try:
        _, _, _, tags = parse_wheel_filename(name)
    except InvalidWheelFilename as error:
        yield damaged(where, "wheel", error)
        return
    if tags & tags_of(target):
        return
    python = "".join(map(str, target.python))
    newest = f", glibc {target.glibc_text} or older" if target.glibc else ""
    yield Finding(
        where,
        "a wheel for " + ", ".join(sorted(map(str, tags))),
        f"py3-none-any, or cp{python} and {target.arch_name}{newest}",
        "take it from hpc-hpo prestage (a requirements input), conda or a module",
        kind="wheel",
    )
