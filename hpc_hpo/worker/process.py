"""Processes of a payload: started in a session of their own, ended with all their children."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc_hpo.worker.gate import Gate


_PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: Loaded before any fork: between fork and exec nothing may be imported or looked up.
_LIBC = ctypes.CDLL(None) if os.uname().sysname == "Linux" else None
_POLL_S = 0.02
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
#: The folder that a process starts in must not become a place to import from; the package's own
#: place comes last, so that it shadows nothing of the user's.
_BOOT = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path.append(sys.argv[1]); "
    "from hpc_hpo.worker.{module} import main; sys.exit(main(*sys.argv[2:]))"
)


def program(module: str, *arguments: object, python: str | None = None) -> list[str]:
    """The argument list of a Python process that calls the `main` of a module of this room.

    Args:
        arguments: of `main`, which gets them as strings.
        python: the interpreter; this process's own by default.
    """
    boot = _BOOT.format(module=module)
    return [python or sys.executable, "-c", boot, _PACKAGE_PARENT, *map(str, arguments)]


def _die_with_parent(parent: int) -> Callable[[], None]:
    """A hook that runs in the child before exec: KILL me when `parent` dies."""

    def hook() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # the parent died between fork and prctl

    return hook


def start(
    argv: Sequence[str],
    *,
    cwd: Path | None,
    env: Mapping[str, str],
    log_fd: int,
    pass_fds: Sequence[int] = (),
    error_fd: int | None = None,
    gate: Gate | None = None,
) -> subprocess.Popen[bytes]:
    """Start `argv` in a new session; stdout and stderr go to `log_fd`, stdin is empty.

    Args:
        error_fd: for stderr, where that is to go elsewhere.
        gate: entered by the process; the caller opens it.

    Raises:
        OSError: the program does not exist or cannot be executed.
    """
    # The kernel sends the death signal when the *thread* that forked ends, so it is only
    # safe to ask for it from the thread that lives as long as the process.
    main = threading.current_thread() is threading.main_thread()
    hooks = [_die_with_parent(os.getpid())] if main else []
    if gate is not None:
        hooks.append(gate.enter)
    return subprocess.Popen(
        list(argv),
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=log_fd if error_fd is None else error_fd,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
        preexec_fn=(lambda: [hook() for hook in hooks]) if hooks else None,
    )


def session_members(session: int) -> list[int]:
    """Process ids of a session that still run (zombies do not), from /proc."""
    members = []
    try:
        entries = os.listdir("/proc")
    except OSError:
        return []  # no /proc: signalling the process group has to do
    for entry in entries:
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if int(fields[3]) == session and fields[0] not in (b"Z", b"X"):
            members.append(int(entry))
    return members


def signal_session(session: int, number: int) -> None:
    """Send a signal to every process of a session, whatever its process group."""
    try:
        os.killpg(session, number)
    except (ProcessLookupError, PermissionError):
        reached = False
    else:
        reached = True
    for pid in session_members(session):
        try:
            if not reached or os.getpgid(pid) != session:
                os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def end_session(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """TERM to the whole session of `process`, KILL to what is left after `grace_s` seconds."""
    limit = time.monotonic() + grace_s
    if grace_s > 0:
        signal_session(process.pid, signal.SIGTERM)
        while time.monotonic() < limit:
            if process.poll() is not None and not session_members(process.pid):
                return
            time.sleep(_POLL_S)
    signal_session(process.pid, signal.SIGKILL)
    process.wait()
