"""Wheels by their names: Python, ABI and platform tags against the site's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from hpc_hpo.preflight.finding import Finding, damaged
from hpc_hpo.site.target import Target, platforms


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
