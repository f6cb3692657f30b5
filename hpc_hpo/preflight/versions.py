"""Versions of Python, Parsl and numpy in environments, read from the names of their files."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from hpc_hpo.preflight.finding import Finding

#: The packages whose versions on both ends have to do with one another.
WANTED = ("parsl", "numpy", "hpc-hpo")
_INSTALLED = re.compile(
    r"(?P<prefix>.*?)(?:^|/)lib(?:64)?/python3(?:\.(?P<minor>\d+))?/(?:site|dist)-packages/"
    r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[^-/]+)(?:-py3\.\d+)?\.(?:dist|egg)-info(?:/|$)"
)
_STANDARD = re.compile(r"(?P<prefix>.*?)(?:^|/)lib(?:64)?/python3\.(?P<minor>\d+)/os\.pyc?$")
_CONDA = re.compile(r"(?P<prefix>.*?)(?:^|/)conda-meta/python-3\.(?P<minor>\d+)\.[^/]*\.json$")
#: Every name that one of these matches, and a wheel's, ends so or holds "-info".
_TELLING = (".whl", "/os.py", "/os.pyc", ".json")


@dataclass
class Installed:
    """What one environment holds.

    Attributes:
        packages: name -> version, of those in WANTED.
        pythons: minor versions of Python 3.
        wheels: whether it is a wheelhouse: packages are there to be installed.
    """

    packages: dict[str, str] = field(default_factory=dict)
    pythons: set[int] = field(default_factory=set)
    wheels: bool = False


@dataclass
class Versions:
    """The environments that were met, by place."""

    places: dict[str, Installed] = field(default_factory=dict)

    def note(self, where: str, name: str) -> None:
        """Look at one file's name.

        Args:
            where: the archive or folder.
            name: the file's path inside it.
        """
        name = name.removeprefix("./")
        if not name.endswith(_TELLING) and "-info" not in name:
            return
        if name.endswith(".whl"):
            self._note_wheel(where, name)
        elif match := _INSTALLED.match(name):
            package = canonicalize_name(match["name"])
            place = self._place(where, match["prefix"])
            if match["minor"]:
                place.pythons.add(int(match["minor"]))
            if package in WANTED:
                place.packages[package] = match["version"]
        elif match := _STANDARD.match(name) or _CONDA.match(name):
            self._place(where, match["prefix"]).pythons.add(int(match["minor"]))

    def _place(self, where: str, prefix: str) -> Installed:
        place = f"{where}!{prefix}" if prefix.strip("/") else where
        return self.places.setdefault(place, Installed())

    def _note_wheel(self, where: str, name: str) -> None:
        folder, _, file = name.rpartition("/")
        try:
            package, version, _, _ = parse_wheel_filename(file)
        except InvalidWheelFilename:
            return
        # pip and setuptools carry wheels of their own, for new environments.
        if package in WANTED:
            place = self._place(where, folder)
            place.wheels = True
            place.packages[str(package)] = str(version)


def versions_here() -> Installed:
    """What this process runs with: the login node's end."""
    packages = {}
    for name in WANTED:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Installed(packages, {sys.version_info[1]})


def compare(found: Versions, here: Installed, python: tuple[int, int]) -> Iterator[Finding]:
    """Differences between the environments that have Parsl in them, and this end.

    Parsl refuses workers of another minor version of Python, or another version of Parsl.

    Args:
        here: this end's versions.
        python: what the workers' Python has to be.
    """
    for where, there in found.places.items():
        if "parsl" not in there.packages:
            continue
        if there.pythons and python[1] not in there.pythons:
            yield Finding(
                where,
                "Python " + ", ".join(f"3.{minor}" for minor in sorted(there.pythons)),
                f"Python {python[0]}.{python[1]} on both ends",
                f"make the environment with python={python[0]}.{python[1]}",
                kind="python",
            )
        elif not there.pythons and not there.wheels:
            yield Finding(
                where, "a Python whose version shows nowhere", f"Python {python[0]}.{python[1]}",
                "ask it: python3 --version", "not checked", "python",
            )  # fmt: skip
        parsl = here.packages.get("parsl")
        if parsl is not None and not _same(there.packages["parsl"], parsl):
            yield Finding(
                where, f"Parsl {there.packages['parsl']}", f"Parsl {parsl} on both ends",
                f"pip install parsl=={parsl} there", kind="parsl",
            )  # fmt: skip
        yield from _compare_numpy(where, there, here)


def _compare_numpy(where: str, there: Installed, here: Installed) -> Iterator[Finding]:
    """Arrays that numpy 2 has pickled load in 1.26 and later alone (numpy._core is not there
    before). The package itself sends and stores none that way."""
    theirs, ours = there.packages.get("numpy"), here.packages.get("numpy")
    if ours is None:
        return
    if theirs is None:
        if not there.wheels:
            yield Finding(
                where, "no numpy", "numpy, for checkpoints", "install numpy and h5py there",
                kind="numpy",
            )  # fmt: skip
        return
    old, new = sorted((_version(theirs), _version(ours)))
    if old.major != new.major and old < Version("1.26"):
        yield Finding(
            where, f"numpy {theirs}", f"numpy {_version(ours).major}, as on this end",
            "use one major version on both ends, or pass arrays as .npy files, never as pickles",
            "warning", "numpy",
        )  # fmt: skip


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")


def _same(one: str, other: str) -> bool:
    return one == other or _version(one) == _version(other) != Version("0")
