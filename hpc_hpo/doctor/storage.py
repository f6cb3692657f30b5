"""Folders: shared, lockable, not purged, with room and inodes left; and their server's clock."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hpc_hpo.doctor.rows import Row, State
from hpc_hpo.fsio import storage_error
from hpc_hpo.pilot.scheduler import Caller, call
from hpc_hpo.site import Site

#: File systems that several machines mount; others are usually one machine's own.
SHARED = (
    "nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "panfs", "wekafs", "orangefs", "pvfs2",
    "glusterfs", "afs", "daos", "fuse.glusterfs", "fuse.juicefs", "fuse.sshfs", "smb3", "cifs",
)  # fmt: skip
LITTLE_ROOM, FEW_INODES = 10 << 30, 100_000
NO_ROOM, NO_INODES = 100 << 20, 1000
#: A share of a quota from which it is nearly used up.
NEARLY = 0.9
#: Clocks: what files' times show of themselves, what is odd, and what ends studies, in seconds.
CLOCK_GRAIN_S, CLOCK_ODD_S, CLOCK_FAR_S = 0.05, 1.0, 30.0
_LOCK = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1], "a"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    sys.exit(3)
"""


def storage_rows(
    site: Site, folder: Path, account: str | None = None, *, caller: Caller = call,
    now: Callable[[], float] = time.time,
) -> Iterator[Row]:  # fmt: skip
    """Everything about folders that this machine alone can tell.

    Args:
        folder: where studies will be; made when it is not there, and left as it was.
        account: stands for $PROJECT in the site's folders.
        now: this machine's clock.
    """
    yield _kind(site, folder)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".hpc-hpo-doctor-") as place:
            yield _lock(Path(place))
            yield clock_row("clock of the file server", _fresh_time(Path(place), now))
    except OSError as error:
        yield Row("fail", "folder", str(storage_error(folder, error)), "--dir names another")
        return
    yield from _room("room", folder)
    yield from quota_rows(folder, kind_of(folder), caller)
    home = Path.home()
    yield _purged("home purged", home, site, "fail", "keep environments and results elsewhere")
    yield _purged("folder purged", folder, site, "warn", "copy results away before they grow old")
    if os.stat(home).st_dev != os.stat(folder).st_dev:
        yield from _room("room at home", home)
        yield from quota_rows(home, kind_of(home), caller)
    if site.scratch is not None:
        yield _scratch(site.scratch, account)


def kind_of(path: Path) -> str:
    """The type of the file system that holds a path, as the kernel names it; "" if unknown."""
    best, kind = "", ""
    real = os.path.realpath(path)
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        if os.path.commonpath([real, point]) == point and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def _kind(site: Site, folder: Path) -> Row:
    kind = kind_of(folder)
    found = f"{folder} on {kind or 'an unknown file system'}"
    if site.batch and kind not in SHARED:
        return Row(
            "warn", "folder", f"{found}, which other machines usually do not see",
            "--dir names one on the parallel file system; --job tells whether nodes see it",
        )  # fmt: skip
    return Row("ok", "folder", found)


def _lock(place: Path) -> Row:
    """A lock that one process holds is refused to another."""
    import fcntl

    with open(place / "lock", "a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Row(
                "fail", "locks", f"cannot be taken: {error.strerror}",
                "--dir names another folder; on Lustre, ask for a mount with flock",
            )  # fmt: skip
        other = subprocess.run([sys.executable, "-c", _LOCK, str(place / "lock")])
    if other.returncode != 3:
        return Row("fail", "locks", "two processes get the same lock", "--dir names another folder")
    return Row(
        "ok", "locks", "two processes of this machine exclude each other; --job tries two hosts"
    )


def _fresh_time(place: Path, now: Callable[[], float]) -> float:
    """The file server's clock minus this machine's, in seconds, by a fresh file's time."""
    before = now()
    fd = os.open(place / "clock", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(fd, b"x")
        os.fsync(fd)
    finally:
        os.close(fd)
    stamp = os.stat(place / "clock").st_mtime
    after = now()
    if before - CLOCK_GRAIN_S <= stamp <= after + CLOCK_GRAIN_S:
        return 0.0
    return stamp - (before if stamp < before else after)


def clock_row(check: str, ahead: float) -> Row:
    """A row for a clock that is so many seconds ahead of this machine's."""
    found = "agrees" if ahead == 0 else f"{abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'}"
    if abs(ahead) <= CLOCK_ODD_S:
        return Row("ok", check, found)
    state: State = "warn" if abs(ahead) < CLOCK_FAR_S else "fail"
    return Row(state, check, found, "ask the site's support: clocks are set by NTP")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"


def _room(check: str, folder: Path) -> Iterator[Row]:
    facts = os.statvfs(folder)
    free = facts.f_bavail * facts.f_frsize
    state: State = "fail" if free < NO_ROOM else "warn" if free < LITTLE_ROOM else "ok"
    remedy = "" if state == "ok" else "make room, or name another folder with --dir"
    total = facts.f_blocks * facts.f_frsize
    yield Row(state, check, f"{_gib(free)} free of {_gib(total)}", remedy)
    if facts.f_files == 0:
        # btrfs, and some parallel file systems, count none.
        yield Row("not checked", f"inodes of {check}", "this file system counts none")
        return
    state = (
        "fail" if facts.f_favail < NO_INODES else "warn" if facts.f_favail < FEW_INODES else "ok"
    )
    yield Row(
        state,
        f"inodes of {check}",
        f"{facts.f_favail:,} free",
        "" if state == "ok" else "remove files",
    )


def quota_rows(folder: Path, kind: str, caller: Caller = call) -> Iterator[Row]:
    """What the file system's own quota command says of this user."""
    user = getpass.getuser()
    if kind == "lustre":
        argv = ["lfs", "quota", "-q", "-u", user, str(folder)]
        read: Callable[[str], list[tuple[str, int, int]] | None] = read_lfs
    elif kind == "gpfs":
        argv, read = ["mmlsquota", "-Y", "-u", user], read_gpfs
    else:
        argv, read = ["quota", "-w"], read_quota
    check = f"quota ({argv[0]})"
    if shutil.which(argv[0]) is None:
        yield Row("not checked", check, f"{argv[0]} is not on PATH", "see the site's own tool")
        return
    reply = caller(argv, None)
    # quota's exit status is 1 where a limit is exceeded.
    limits = read(reply.out)
    if limits is None or (reply.status not in (0, 1) and not limits):
        said = " ".join((reply.err or reply.out).split())[:120]
        yield Row("not checked", check, f"not understood: {said}", f"look yourself: {argv[0]}")
        return
    if not limits:
        yield Row("ok", check, "no limit for this user")
    for what, used, limit in limits:
        share = used / limit
        state: State = "fail" if share >= 1 else "warn" if share >= NEARLY else "ok"
        remedy = "" if state == "ok" else "remove files, or ask for more"
        yield Row(state, f"{check}, {what}", f"{share:.0%} of the limit is used", remedy)


def read_lfs(text: str) -> list[tuple[str, int, int]] | None:
    """(what, used, limit) of `lfs quota -q`: path, then for space and files used, soft limit, hard
    limit and grace. A star marks what exceeds its soft limit; 0 is no limit."""
    words = text.split()
    if len(words) < 9:
        return None
    return _limits([words[1], words[2], words[3]], [words[5], words[6], words[7]])


def read_quota(text: str) -> list[tuple[str, int, int]] | None:
    """The same of `quota -w`: a line for each file system, with no columns for absent graces."""
    limits: list[tuple[str, int, int]] = []
    for line in text.splitlines():
        words = line.split()
        numbers = [word for word in words[1:] if word.rstrip("*").isdigit()]
        if len(numbers) < 6:
            continue
        found = _limits(numbers[:3], numbers[3:6])
        limits += [(f"{what} on {words[0]}", used, limit) for what, used, limit in found or []]
    return limits


def read_gpfs(text: str) -> list[tuple[str, int, int]] | None:
    """The same of `mmlsquota -Y`: colons between fields, which a HEADER line names."""
    limits: list[tuple[str, int, int]] = []
    names: list[str] = []
    for line in text.splitlines():
        fields = line.split(":")
        if "HEADER" in fields[:4]:
            names = fields
            continue
        row = dict(zip(names, fields, strict=False))
        try:
            space = [row["blockUsage"], row["blockQuota"], row["blockLimit"]]
            files = [row["filesUsage"], row["filesQuota"], row["filesLimit"]]
        except KeyError:
            continue
        place = row.get("filesystemName", "")
        limits += [(f"{what} on {place}", u, m) for what, u, m in _limits(space, files) or []]
    return limits if names else None


def _limits(space: list[str], files: list[str]) -> list[tuple[str, int, int]] | None:
    found = []
    for what, words in (("space", space), ("files", files)):
        try:
            used, soft, hard = (int(word.strip("*[]")) for word in words)
        except ValueError:
            return None
        # The soft limit counts first: once past it, the days of grace run.
        limit = soft or hard
        if limit:
            found.append((what, used, limit))
    return found


def _purged(check: str, path: Path, site: Site, state: State, remedy: str) -> Row:
    real = Path(os.path.realpath(path))
    if not site.purged:
        return Row(
            "ok" if not site.batch else "not checked", check,
            f"{path}; the site's file names no folders that are purged",
            "purged in the site's file" if site.batch else "",
        )  # fmt: skip
    for name in site.purged:
        if real.is_relative_to(os.path.realpath(os.path.expandvars(name))):
            return Row(state, check, f"{path} is below {name}, where old files are deleted", remedy)
    return Row("ok", check, f"{path} is not purged")


def _scratch(pattern: str, account: str | None) -> Row:
    text = pattern.replace("$PROJECT", account) if account else pattern
    text = os.path.expandvars(text)
    if "$" in text:
        return Row("not checked", "scratch", f"{text} is not complete", "--account names a project")
    with contextlib.suppress(OSError):
        if os.access(text, os.W_OK | os.X_OK):
            return Row("ok", "scratch", f"{text} can be written")
    return Row("warn", "scratch", f"{text} cannot be written here", "scratch in the site's file")
