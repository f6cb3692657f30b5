"""The store: what was downloaded and unpacked, once for all studies, by the sha256 of its content.

Layout::

    sha256/ab/abcdef...   downloaded files, read-only
    trees/ab/abcdef...    archives unpacked, by the archive's sha256; beside each its list, .json
    sources/KEY.json      which content a URL had when it was last fetched
    partial/KEY           downloads in progress, with KEY.json and KEY.lock
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock

from hpc_hpo.archives import fix_prefixes, unpack
from hpc_hpo.errors import InputError, StorageError
from hpc_hpo.fsio import sha256_of, storage_error, write_atomic
from hpc_hpo.site import Site
from hpc_hpo.units import format_size

#: Names a folder in place of the site's.
VARIABLE = "HPC_HPO_STORE"


def store_folder(
    study_folder: Path, site: Site | None, account: str | None, environ: Mapping[str, str]
) -> Path:
    """Where the store is: what HPC_HPO_STORE names; else on the site's scratch file system, where
    this machine has it; else beside the study's folder."""
    named = environ.get(VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    if site is not None and site.scratch is not None:
        known = {**environ, **({"PROJECT": account} if account else {})}
        words = [known.get(part[1:], part) if part.startswith("$") else part
                 for part in site.scratch.split("/")]  # fmt: skip
        scratch = Path("/".join(words))
        if scratch.is_dir() and os.access(scratch, os.W_OK):
            return scratch / "hpc_hpo" / "store"
    return study_folder.parent / ".hpc_hpo" / "store"


@dataclass(frozen=True)
class Stored:
    """A file in the store, and what its source said of it when it was fetched."""

    sha256: str
    size: int
    validator: str | None = None


@dataclass(frozen=True)
class Member:
    """A file of an unpacked archive; its path is below the tree."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


class Store:
    """See the module. Several processes may use one store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: set[Path] = set()

    def _room(self, *parts: str) -> Path:
        room = self.path.joinpath(*parts)
        if room not in self._made:
            try:
                room.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise storage_error(room, error) from error
            self._made.add(room)
        return room

    def object(self, sha256: str) -> Path:
        """Where a content is, or would be."""
        return self.path / "sha256" / sha256[:2] / sha256

    def tree(self, name: str) -> Path:
        """Where the content of an archive is, or would be."""
        return self.path / "trees" / name[:2] / name

    @staticmethod
    def tree_name(sha256: str, environment: bool) -> str:
        """An archive's tree by the archive's sha256; an environment's scripts know their place."""
        return f"{sha256}-env" if environment else sha256

    @staticmethod
    def key(source: str, options: Mapping[str, Any]) -> str:
        """What stands for a URL, as it is opened, in file names."""
        words = json.dumps([source, {k: repr(v) for k, v in options.items()}], sort_keys=True)
        return hashlib.sha256(words.encode()).hexdigest()[:40]

    # -- downloads -------------------------------------------------------------

    def holds(self, sha256: str, size: int | None = None) -> bool:
        """Whether a content is here; its size is compared, where it is known."""
        try:
            found = self.object(sha256).stat().st_size
        except OSError:
            return False
        return size is None or found == size

    def last(self, key: str) -> Stored | None:
        """What the source had when it was last fetched, if that content is still here."""
        try:
            record = json.loads((self.path / "sources" / f"{key}.json").read_text())
            stored = Stored(record["sha256"], record["size"], record["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return stored if self.holds(stored.sha256, stored.size) else None

    def remember(self, key: str, source: str, stored: Stored) -> None:
        """Note what a source had. A URL's password is not written down."""
        record = {"source": without_password(source), **asdict(stored)}
        write_atomic(self._room("sources") / f"{key}.json", json.dumps(record), durable=False)

    @contextlib.contextmanager
    def downloading(self, key: str) -> Iterator[Path]:
        """The file into which a source is downloaded, for one process at a time."""
        part = self._room("partial") / key
        try:
            lock = filelock.FileLock(f"{part}.lock")
            lock.acquire()
        except OSError as error:
            raise storage_error(part, error) from error
        try:
            yield part
        finally:
            lock.release()

    def adopt(self, part: Path, sha256: str) -> None:
        """Give a complete download its place."""
        place = self._room("sha256", sha256[:2]) / sha256
        try:
            os.chmod(part, 0o444)
            os.replace(part, place)
            part.with_suffix(".json").unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(place, error) from error

    def require_room(self, size: int) -> None:
        """Refuse a download for which the file system has no room.

        Raises:
            StorageError: so much is not free. What a quota leaves is not known.
        """
        stat = os.statvfs(self._room("partial"))
        free = stat.f_bavail * stat.f_frsize
        if size > free:
            raise StorageError(
                f"{self.path}: {format_size(size)} are to come, {format_size(free)} are free; "
                f"make room, or name another folder in {VARIABLE}"
            )

    # -- archives --------------------------------------------------------------

    def unpacked(self, name: str) -> list[Member] | None:
        """The files of an unpacked archive; None where it is not here whole."""
        tree = self.tree(name)
        try:
            listed = json.loads(tree.with_name(f"{name}.json").read_text())
            members = [Member(*row) for row in listed]
            whole = all((tree / m.path).stat().st_size == m.size for m in members)
        except (OSError, ValueError, TypeError):
            return None
        return members if whole and tree.is_dir() else None

    def unpack(self, archive: Path, name: str, *, environment: bool = False) -> list[Member]:
        """Unpack an archive, unless that has been done; its files with their checksums.

        Args:
            name: of the tree, see tree_name.
            environment: tell a packed environment's scripts where they are now.

        Raises:
            InputError: the archive may not be unpacked; the member is named.
            StorageError: the store cannot be written.
        """
        room = self._room("trees", name[:2])
        with filelock.FileLock(room / f"{name}.lock"):
            known = self.unpacked(name)
            if known is not None:
                return known
            tree = self.tree(name)
            temporary = tree.with_name(f"{name}.tmp")
            try:
                for leftover in (temporary, tree):
                    if leftover.exists():
                        shutil.rmtree(leftover)
                unpack(archive, temporary, expect=self.require_room)
                temporary.rename(tree)
                if environment:
                    fix_prefixes(tree)
                members = [_member(path, tree) for path in sorted(_files(tree))]
            except OSError as error:
                shutil.rmtree(temporary, ignore_errors=True)
                raise storage_error(tree, error) from error
            except subprocess.CalledProcessError as error:
                said = error.stderr.decode(errors="replace").strip()[-500:]
                raise InputError(f"its conda-unpack failed: {said}", file=str(archive)) from None
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            rows = [[m.path, m.size, m.mtime_ns, m.sha256] for m in members]
            write_atomic(tree.with_name(f"{name}.json"), json.dumps(rows))
            return members


def _files(folder: Path) -> Iterator[Path]:
    """Regular files; a link of an archive stays inside it, so its file is there too."""
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names if not os.path.islink(f"{place}/{name}"))


def _member(path: Path, tree: Path) -> Member:
    stat = path.stat()
    # Studies share it.
    os.chmod(path, stat.st_mode & 0o555)
    return Member(path.relative_to(tree).as_posix(), stat.st_size, stat.st_mtime_ns,
                  sha256_of(path))  # fmt: skip


def without_password(source: str) -> str:
    """A URL without the password that may stand in it."""
    head, mark, rest = source.partition("://")
    login, at, host = rest.partition("/")[0].rpartition("@")
    if not (mark and at and ":" in login):
        return source
    return f"{head}://{login.partition(':')[0]}@{host}{rest[len(login) + len(host) + 1 :]}"
