"""Copies of inputs on the node's own disk, made once a node and shared by its workers.

Layout, below the folder that the site names::

    hpc_hpo/KEY.lock    held by who uses the copy, and alone by who makes or removes it; its time
                        is that of the last use
    hpc_hpo/KEY/        the copy: data/ with the files, and ready.json once it is whole

KEY stands for the content, so studies share a copy. The kernel drops a dead process's lock; a copy
without ready.json is half of one and is made again. The folder is on this node, where file locks
always work, and flock knows shared ones: a copy in use is never removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hpc_hpo.errors import HpoError, InputError, StorageError
from hpc_hpo.fsio import NO_ROOM
from hpc_hpo.model import LocalInput

#: Names a folder in place of the site's, for one whose place only a job knows.
VARIABLE = "HPC_HPO_NODE_LOCAL"
#: What is left free on the node's disk, in bytes.
RESERVE = 64 << 20
#: Files that are copied at one time.
AT_ONCE = 4
#: How long the users of a damaged copy are waited for, in seconds.
DAMAGED_S = 5.0
_CHUNK = 1 << 20
_WAIT_S = 0.1
_READY = "ready.json"


class NoRoom(HpoError):
    """The node's disk cannot take a copy: it is full of what is in use, or not to be written."""


class Interrupted(HpoError):
    """The slice has to stop before its inputs are here."""


def local_folder(stated: str | None, environ: Mapping[str, str]) -> Path | None:
    """The folder on this node's disk; None where the site has none.

    Args:
        stated: the site's, in which $USER and other variables stand for their values here.
    """
    named = environ.get(VARIABLE) or stated
    if not named:
        return None
    known = {"USER": getpass.getuser() if "USER" not in environ else environ["USER"], **environ}
    parts = [known.get(p[1:], p) if p.startswith("$") else p for p in named.split("/")]
    return Path("/".join(parts)) / "hpc_hpo"


def path_in(root: Path, local: LocalInput) -> Path:
    """What a payload gets for an input that is copied below `root`."""
    data = root / local["key"] / "data"
    return data / local["files"][0][0] if local["single"] and not local["unpack"] else data


class NodeCopies:
    """The copies that one process uses.

    Args:
        root: the folder for copies on this node; made.
        stopped: true ends a wait or a copy with Interrupted.
        free: bytes that may be written below a folder; replaced in tests.
    """

    def __init__(
        self,
        root: Path,
        stopped: Callable[[], bool] = lambda: False,
        free: Callable[[Path], int] | None = None,
    ) -> None:
        self.root = root
        self.stopped = stopped
        self._free = free or _free
        self._held: dict[str, int] = {}

    def use(self, name: str, local: LocalInput) -> Path:
        """The path of an input's copy, which is made now if there is none. It is kept until
        `release`.

        Raises:
            NoRoom: the disk has no room for it, or cannot be written.
            StorageError: what was staged is not there, or is no longer what was staged.
            Interrupted: see `stopped`.
        """
        key = local["key"]
        if key not in self._held:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                fd = os.open(self._lock(key), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise NoRoom(f"{self.root}: {error.strerror}") from error
            try:
                self._share(name, local, fd)
            except BaseException:
                os.close(fd)
                raise
            self._held[key] = fd
        os.utime(self._lock(key))
        return path_in(self.root, local)

    def release(self, but: Iterable[str] = ()) -> None:
        """Allow the removal of the copies that this process has used, except some by key."""
        kept = set(but)
        for key in [key for key in self._held if key not in kept]:
            os.close(self._held.pop(key))

    def _lock(self, key: str) -> Path:
        return self.root / f"{key}.lock"

    def _share(self, name: str, local: LocalInput, fd: int) -> None:
        """Hold a whole copy's lock with others. Whoever has it alone first makes the copy."""
        home, damaged = self.root / local["key"], 0
        while True:
            if _try_lock(fd, fcntl.LOCK_EX):
                if not _whole(home):
                    self._make(name, local, home)
                # Given up for a moment, in which another may take it: looked at again below.
                fcntl.flock(fd, fcntl.LOCK_UN)
            if _try_lock(fd, fcntl.LOCK_SH):
                if _whole(home):
                    return
                # Nobody makes it now; others that hold it would have to go before it is made anew.
                damaged += 1
                if damaged * _WAIT_S > DAMAGED_S:
                    raise NoRoom(f"{home} is damaged and in use")
                fcntl.flock(fd, fcntl.LOCK_UN)
            self._check()
            time.sleep(_WAIT_S)

    def _check(self) -> None:
        if self.stopped():
            raise Interrupted("the slice stops before its inputs are on this node")

    # -- making ------------------------------------------------------------------

    def _make(self, name: str, local: LocalInput, home: Path) -> None:
        temporary = home.with_name(f"{home.name}.tmp")
        for half in (temporary, home):
            shutil.rmtree(half, ignore_errors=True)
        try:
            size = sum(file[2] for file in local["files"])
            self._make_room(size)
            data = temporary / "data"
            if local["unpack"]:
                self._unpack(name, local, temporary, data)
            else:
                self._copy_all(name, local["files"], data)
            temporary.rename(home)
            if local["environment"]:
                from hpc_hpo.archives import fix_prefixes

                fix_prefixes(home / "data")
            listed = [[str(p.relative_to(home)), p.stat().st_size] for p in _files(home / "data")]
            (home / _READY).write_text(json.dumps(listed))
        except OSError as error:
            self._clear(temporary, home)
            if error.errno in (*NO_ROOM, errno.EROFS, errno.EACCES, errno.EPERM):
                raise NoRoom(f"{self.root}: {error.strerror}") from error
            raise StorageError(f"input {name}: {error}") from error
        except InputError as error:
            self._clear(temporary, home)
            raise StorageError(f"input {name}: {error}") from error
        except subprocess.CalledProcessError as error:
            self._clear(temporary, home)
            said = (error.stderr or b"").decode(errors="replace").strip()[-500:]
            raise StorageError(f"input {name}: its conda-unpack failed: {said}") from None
        except BaseException:
            self._clear(temporary, home)
            raise

    @staticmethod
    def _clear(*places: Path) -> None:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)

    def _unpack(self, name: str, local: LocalInput, temporary: Path, data: Path) -> None:
        """The archive is read once, in order, from the shared file system."""
        self._copy_all(name, local["files"], temporary)
        archive = temporary / local["files"][0][0]
        # Here, because every worker reads this module, and few have something to unpack.
        from hpc_hpo.archives import unpack

        unpack(archive, data, expect=self._make_room)
        archive.unlink()

    def _copy_all(self, name: str, files: list[list[object]], target: Path) -> None:
        for inner in {os.path.dirname(str(file[0])) for file in files}:
            (target / inner).mkdir(parents=True, exist_ok=True)

        def copy(file: list[object]) -> None:
            self._copy(name, Path(str(file[1])), target / str(file[0]), file[2], file[3])

        if len(files) == 1:
            copy(files[0])
            return
        with ThreadPoolExecutor(AT_ONCE) as pool:
            running = [pool.submit(copy, file) for file in files]
            try:
                for one in running:
                    one.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _copy(self, name: str, source: Path, target: Path, size: object, sha256: object) -> None:
        digest, done = hashlib.sha256(), 0
        with open(source, "rb") as read, open(target, "wb") as write:
            while block := read.read(_CHUNK):
                self._check()
                digest.update(block)
                write.write(block)
                done += len(block)
            mode = os.fstat(read.fileno()).st_mode
            os.fchmod(write.fileno(), 0o555 if mode & 0o100 else 0o444)
        if done != size or digest.hexdigest() != sha256:
            raise StorageError(
                f"input {name}: {source} is not what was staged: {done} bytes with sha256 "
                f"{digest.hexdigest()}, where the manifest has {size} and {sha256}"
            )

    # -- room --------------------------------------------------------------------

    def _make_room(self, size: int) -> None:
        """Remove copies that nobody uses, the one that was not used longest first, until `size`
        bytes fit.

        Raises:
            NoRoom: they do not, whatever is removed.
        """
        unused = self._oldest_first()
        while (free := self._free(self.root)) < size + RESERVE:
            victim = next(unused, None)
            if victim is None:
                raise NoRoom(f"{self.root}: {size} bytes are needed, {free} are free")
            with _held_alone(victim) as alone:
                if alone:
                    shutil.rmtree(victim.with_suffix(""), ignore_errors=True)

    def _oldest_first(self) -> Iterator[Path]:
        """The locks of copies by the time of their last use."""
        locks = [lock for lock in self.root.glob("*.lock") if lock.with_suffix("").is_dir()]
        yield from sorted(locks, key=lambda lock: lock.stat().st_mtime)


def _free(folder: Path) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _held_alone(lock: Path) -> Iterator[bool]:
    """Whether nobody else uses this lock; nobody will, while the block runs."""
    # A lock that this process has through another file is another's for the kernel.
    fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield _try_lock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, n) for n in names if not os.path.islink(os.path.join(place, n)))


def _whole(home: Path) -> bool:
    """Whether a copy was made to its end, and none of its files is gone or of another size."""
    try:
        listed = json.loads((home / _READY).read_text())
        return all(os.stat(home / inner).st_size == size for inner, size in listed)
    except (OSError, ValueError):
        return False


def environment_of(folder: str | None, variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that put an unpacked environment before the node's own programs."""
    if folder is None:
        return dict(variables)
    path = f"{folder}/bin:{variables.get('PATH', os.defpath)}"
    chosen = {**variables, "PATH": path}
    if os.path.isdir(os.path.join(folder, "conda-meta")):
        chosen["CONDA_PREFIX"] = folder
    else:
        chosen["VIRTUAL_ENV"] = folder
    return chosen


def python_of(folder: str | None) -> str:
    """The interpreter of an environment; without one, this process's own."""
    if folder is None:
        return sys.executable
    python = os.path.join(folder, "bin", "python")
    return python if os.path.exists(python) else sys.executable
