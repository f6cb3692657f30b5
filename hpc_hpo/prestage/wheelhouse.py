"""Wheels for a site's nodes, fetched by pip on the login node; what has none is listed.

Each package is fetched by itself, and what it needs is read from its wheel: one `pip download` of
all would stop at the first package without a wheel, and would decide markers and dependencies by
the machine that it runs on.
"""

from __future__ import annotations

import email.parser
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from hpc_hpo.errors import HpoError, InputError
from hpc_hpo.fsio import sha256_of, write_atomic
from hpc_hpo.prestage.requirements import Requirements, applies, environment_of, read_requirements
from hpc_hpo.site.target import Target, platforms

#: Where a wheelhouse keeps what it was fetched for, what it holds and what it lacks.
RECORD = "wheelhouse.json"
#: Packages fetched at one time; an index is a shared thing.
AT_ONCE = 4
#: Times that versions may change until all requirements agree.
ROUNDS = 50
#: Without a stated glibc: what manylinux2014 is built for, which every site in use has.
SAFE_GLIBC = 17
#: What pip says when it has not reached the index; "no version" says nothing then.
_UNREACHED = (
    "Retrying (Retry(", "Could not fetch URL", "connection error", "Temporary failure",
    "NewConnectionError", "Read timed out",
)  # fmt: skip
_NOT_THERE = (
    "No matching distribution found", "Could not find a version that satisfies",
    "no matching distributions available",  # where a constraint names the package, too
)  # fmt: skip


class IndexUnreachable(HpoError):
    """The package index does not answer, so nothing is known of any package."""

    transient = True


class Missing(NamedTuple):
    """A package without a wheel for the site.

    Attributes:
        name: the package.
        needed: the versions that are asked for, "" for any.
        by: who asks for it.
        why: what is known.
        remedy: the line that supplies it, or where to look for one.
        known: False where the index has no package of this name at all.
    """

    name: str
    needed: str
    by: str
    why: str
    remedy: str
    known: bool


@dataclass
class Wheelhouse:
    """What was fetched, and what could not be."""

    wheels: list[Path] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)


@dataclass(frozen=True)
class _Wish:
    """A package as it is asked for by all that need it.

    Attributes:
        line: a line for pip, with the versions that all askers take.
        extras: optional parts that are asked for.
    """

    name: str
    line: str
    extras: frozenset[str]
    needed: str
    by: tuple[str, ...]


def pip_arguments(target: Target) -> list[str]:
    """Options of pip by which it takes wheels for the site's nodes and nothing else."""
    minor = "".join(map(str, target.python))
    words = ["--only-binary=:all:", "--no-deps", "--python-version", target.python_text]
    words += ["--implementation", "cp"]
    for abi in (f"cp{minor}", "abi3", "none"):
        words += ["--abi", abi]
    for name in platforms(target, doubt=SAFE_GLIBC):
        words += ["--platform", name]
    return words


def fetch_wheelhouse(
    requirements: Path,
    folder: Path,
    target: Target,
    supplies: Mapping[str, str] | None = None,
    *,
    python: str = sys.executable,
) -> Wheelhouse:
    """Fetch the wheels that a requirements file needs on a site, with all that they need.

    Args:
        requirements: the file.
        folder: for the wheels; made. Wheels of an earlier call that are no longer needed are
            removed. RECORD is written there; while what is asked for is the same and its wheels
            are in place, nothing is fetched again.
        target: the site's nodes.
        supplies: package -> the line that loads the module which holds it.
        python: an interpreter that has pip.

    Returns:
        The wheels, and the packages that have none, each with its remedy.

    Raises:
        InputError: the file asks for what cannot be a wheel, requirements contradict each other
            without end, or there is no pip.
        IndexUnreachable: nothing can be said.
    """
    read = read_requirements(requirements)
    key = _key(read, target)
    folder.mkdir(parents=True, exist_ok=True)
    held = load_wheelhouse(folder, key)
    if held is not None:
        return held
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as place:
        fetcher = _Fetcher(Path(place), read.options, target, python)
        chosen = _choose(fetcher, read.asked, environment_of(target), requirements)
        result = Wheelhouse()
        for wheel in chosen.values():
            if wheel is not None:
                result.wheels.append(wheel.replace(folder / wheel.name))
        without = [wish for wish, wheel in chosen.items() if wheel is None]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            told = pool.map(lambda wish: _missing(wish, fetcher, supplies or {}), without)
            result.missing += told
    result.wheels.sort()
    result.missing.sort()
    for old in set(folder.glob("*.whl")) - set(result.wheels):
        old.unlink()
    record = {
        "key": key,
        "wheels": {w.name: [w.stat().st_size, sha256_of(w)] for w in result.wheels},
        "missing": [missing._asdict() for missing in result.missing],
    }
    write_atomic(folder / RECORD, json.dumps(record, indent=1) + "\n")
    return result


def _key(read: Requirements, target: Target) -> str:
    """The same for the same requirements on nodes that take the same wheels."""
    words = [*read.options, *(line for _, line, _ in read.asked), *pip_arguments(target)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def load_wheelhouse(folder: Path, key: str | None = None) -> Wheelhouse | None:
    """A wheelhouse as it was fetched; None where there is none, or it is not whole.

    Args:
        key: what it has to have been fetched for; None: anything.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
        wheels = [folder / name for name in record["wheels"]]
        missing = [Missing(**row) for row in record["missing"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    same = key is None or record.get("key") == key
    return Wheelhouse(wheels, missing) if same and all(w.is_file() for w in wheels) else None


def wheel_problems(folder: Path, *, rehash: bool) -> Iterator[str]:
    """What of a wheelhouse is no longer as it was fetched."""
    try:
        wheels = json.loads((folder / RECORD).read_text())["wheels"].items()
        for name, (size, sha256) in wheels:
            wheel = folder / name
            if not wheel.is_file():
                yield f"{name} is missing"
            elif wheel.stat().st_size != size or (rehash and sha256_of(wheel) != sha256):
                yield f"{name} has changed since it was fetched"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{folder / RECORD} cannot be read ({error})"


def _choose(
    fetcher: _Fetcher,
    asked: Sequence[tuple[Requirement, str, str]],
    environment: Mapping[str, str],
    file: Path,
) -> dict[_Wish, Path | None]:
    """Fetch, read what each wheel needs, and go on until all requirements agree.

    A version that turns out to be refused by a package found later is exchanged, and what it
    had asked for is forgotten.
    """
    roots = [(r, line, by) for r, line, by in asked if applies(r, environment, frozenset())]
    wishes = _merge(roots)
    for _ in range(ROUNDS):
        chosen = fetcher.all(wishes)
        edges = list(roots)
        for wish, wheel in chosen.items():
            for need in _needs(wheel) if wheel is not None else ():
                if applies(need, environment, wish.extras):
                    edges.append((need, "", wish.name))
        merged = _merge(edges)
        if merged == wishes:
            return chosen
        wishes = merged
    raise InputError(
        f"no versions were found that agree with each other in {ROUNDS} attempts; "
        "pin some of them (name==version)", file=str(file),
    )  # fmt: skip


def _merge(edges: Iterable[tuple[Requirement, str, str]]) -> list[_Wish]:
    """One wish for each package, from all that ask for it."""
    asked: dict[str, list[tuple[Requirement, str, str]]] = {}
    for edge in edges:
        asked.setdefault(canonicalize_name(edge[0].name), []).append(edge)
    wishes = []
    for name, all_ in sorted(asked.items()):
        needs = SpecifierSet()
        for need, _, _ in all_:
            needs &= need.specifier
        url = next((need.url for need, _, _ in all_ if need.url), None)
        # A line with hashes has to reach pip as it is.
        whole = next((line for _, line, _ in all_ if "--hash" in line), "")
        whole = whole.partition(";")[0] + whole[whole.index("--hash") :] if ";" in whole else whole
        wishes.append(
            _Wish(
                name,
                whole or (f"{name} @ {url}" if url else f"{name}{needs}"),
                frozenset(extra for need, _, _ in all_ for extra in need.extras),
                str(needs),
                tuple(dict.fromkeys(by for _, _, by in all_)),
            )
        )
    return wishes


def _needs(wheel: Path) -> list[Requirement]:
    """What a wheel's metadata says that it needs."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode("utf-8", "replace")
    needs = []
    for line in email.parser.HeaderParser().parsestr(text).get_all("Requires-Dist") or ():
        try:
            needs.append(Requirement(line))
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"its metadata names a requirement that is none: {reason}", file=wheel.name,
                found=line,
            ) from None  # fmt: skip
    return needs


def _missing(wish: _Wish, fetcher: _Fetcher, supplies: Mapping[str, str]) -> Missing:
    arch = fetcher.target.arch
    subdir = arch.conda if arch else fetcher.target.arch_name
    known = fetcher.known(wish)
    lines = {str(canonicalize_name(name)): text for name, text in supplies.items()}
    line = lines.get(wish.name)
    if line is not None:
        remedy = line
    elif known is False:
        remedy = "look at its spelling"
    else:
        remedy = (
            f"conda install -c conda-forge {wish.name}, where "
            f"conda search -c conda-forge --subdir {subdir} {wish.name} finds it"
        )
    target = fetcher.target
    what = f"no wheel for {target.arch_name}, Python {target.python_text}"
    what += f", glibc {target.glibc_text}" if target.glibc else ""
    why = "the index knows no such package" if known is False else what
    return Missing(wish.name, wish.needed, ", ".join(wish.by), why, remedy, known is not False)


class _Fetcher:
    """Calls pip; a wish is fetched once.

    Args:
        place: a folder for what is fetched.
        options: lines of the requirements files for pip.
        target: the site's nodes.
        python: an interpreter that has pip.
    """

    def __init__(self, place: Path, options: Sequence[str], target: Target, python: str) -> None:
        self.target = target
        self._place, self._options, self._python = place, options, python
        self._held: dict[str, Path | None] = {}

    def all(self, wishes: Sequence[_Wish]) -> dict[_Wish, Path | None]:
        """The wheel of each wish, or None."""
        new = [wish.line for wish in wishes if wish.line not in self._held]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            self._held |= dict(zip(new, pool.map(self._fetch, new), strict=True))
        return {wish: self._held[wish.line] for wish in wishes}

    def _fetch(self, line: str) -> Path | None:
        folder = Path(tempfile.mkdtemp(dir=self._place))
        (folder / "r.txt").write_text("\n".join([*self._options, line, ""]))
        done = self._pip(
            "download", *pip_arguments(self.target), "-d", str(folder), "-r", str(folder / "r.txt")
        )
        found = list(folder.glob("*.whl"))
        if done.returncode == 0 and len(found) == 1:
            return found[0]
        if done.returncode == 0 or any(words in done.stdout for words in _NOT_THERE):
            return None
        raise InputError(f"pip fails for {line}: {_last(done.stdout)}")

    def known(self, wish: _Wish) -> bool | None:
        """Whether the index has the package in any form; None when pip cannot tell."""
        options = [word for line in self._options for word in line.split(" ", 1)]
        done = self._pip("index", "versions", *options, wish.name)
        if done.returncode == 0:
            return True
        return False if any(words in done.stdout for words in _NOT_THERE) else None

    def _pip(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [self._python, "-m", "pip", command, "--disable-pip-version-check", "--no-input"]
        done = subprocess.run(
            [*argv, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if "No module named pip" in done.stdout:
            raise InputError(
                "wheels are fetched by pip, which this Python does not have", found=self._python,
                valid="python -m ensurepip, or an environment with pip",
            )  # fmt: skip
        if done.returncode != 0 and any(words in done.stdout for words in _UNREACHED):
            raise IndexUnreachable(
                f"the package index does not answer: {_last(done.stdout)}. On a machine with a "
                "network: hpc-hpo prestage; or name a mirror in the requirements file "
                "(--index-url, --find-links)"
            )
        return done


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "it says nothing")[:300]
