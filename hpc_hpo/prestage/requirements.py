"""Requirements files, as far as wheels are fetched by them.

pip reads them for the machine that it runs on: it decides `; platform_machine == ...` by the login
node. Here the lines are read for the site's nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from hpc_hpo.errors import InputError
from hpc_hpo.site.target import Target

#: Options that name another file, in both spellings.
_FILES = {"-r": "-r", "--requirement": "-r", "-c": "-c", "--constraint": "-c"}
#: Options of the index, which are handed to pip as they are.
_INDEX = (
    "-i", "--index-url", "--extra-index-url", "--no-index", "-f", "--find-links",
    "--trusted-host", "--pre", "--prefer-binary", "--only-binary", "--require-hashes",
)  # fmt: skip
_FINDS = ("-f", "--find-links")
_COMMENT = re.compile(r"(^|\s)#.*$")
_HASH = re.compile(r"\s+--hash[= ]\S+")
VALID = "lines as in numpy>=1.24, -r FILE, -c FILE, or an option of the index"


@dataclass
class Requirements:
    """What a requirements file asks for.

    Attributes:
        asked: the requirements, each with the whole line (which may hold hashes) and its place.
        options: option lines for pip, file names in them absolute.
    """

    asked: list[tuple[Requirement, str, str]] = field(default_factory=list)
    options: list[str] = field(default_factory=list)


def read_requirements(path: Path) -> Requirements:
    """Read a requirements file and those that it includes.

    Raises:
        InputError: a file is missing, or a line is nothing that a wheel can be fetched for.
    """
    result = Requirements()
    _read(path, result, ())
    return result


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(number, line) with continued lines joined, without comments and empty lines."""
    held, first = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        first = first if held else number
        line = _COMMENT.sub("", raw)
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        whole, held = (held + line).strip(), ""
        if whole:
            yield first, whole
    if held.strip():
        yield first, held.strip()


def _read(path: Path, into: Requirements, seen: tuple[Path, ...]) -> None:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", file=str(path)) from None
    for number, line in _lines(text):
        if line.startswith("-"):
            _option(line, number, path, into, seen)
            continue
        try:
            asked = Requirement(_HASH.sub("", line))
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"no wheel can be fetched for this: {reason}", file=str(path), line=number,
                found=line, valid=VALID,
            ) from None  # fmt: skip
        into.asked.append((asked, line, f"{path.name}:{number}"))


def _option(
    line: str, number: int, path: Path, into: Requirements, seen: tuple[Path, ...]
) -> None:  # fmt: skip
    word, _, rest = line.replace("=", " ", 1).partition(" ") if "=" in line else line.partition(" ")
    rest = rest.strip()
    if word in _FILES:
        other = path.parent / rest
        if _FILES[word] == "-c":
            into.options.append(f"-c {other.absolute()}")
        elif other.resolve() in (*seen, path.resolve()):
            raise InputError(
                "the files include each other", file=str(path), line=number, found=line
            )
        else:
            _read(other, into, (*seen, path.resolve()))
    elif word in _FINDS and (path.parent / rest).exists():
        into.options.append(f"--find-links {(path.parent / rest).absolute()}")
    elif word in _INDEX:
        into.options.append(line)
    else:
        raise InputError(
            "no wheel can be fetched for this", file=str(path), line=number, found=line, valid=VALID
        )


def environment_of(target: Target) -> dict[str, str]:
    """The values of requirement markers on the site's nodes (PEP 508)."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{target.python_text}.0",
        "os_name": "posix",
        "platform_machine": target.arch_name,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{target.python_text}.0",
        "python_version": target.python_text,
        "sys_platform": "linux",
    }


def applies(asked: Requirement, environment: Mapping[str, str], extras: frozenset[str]) -> bool:
    """Whether a requirement counts in an environment.

    Args:
        extras: those with which the package that has the requirement is asked for.
    """
    if asked.marker is None:
        return True
    return any(asked.marker.evaluate({**environment, "extra": e}) for e in (extras or {""}))
