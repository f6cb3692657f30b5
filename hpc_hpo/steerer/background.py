"""A steering process that outlives the session which started it."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from hpc_hpo.clock import Clock
from hpc_hpo.folder import StudyFolder, steering_alive
from hpc_hpo.fsio import storage_error

#: How often the starting process looks whether the new one is up, in seconds.
LOOK_S = 0.1


def header(words: str) -> bytes:
    """The line with which each steering process begins in the log."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"--- {now} on {socket.gethostname()}: {words}\n".encode(errors="replace")


def spawn(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command without a terminal, its output appended to `log`.

    It is the leader of a session of its own and ignores SIGHUP, so the end of an ssh session does
    not reach it. It is a fresh process rather than a fork: the libraries that a check of the
    study has loaded may have threads, which a fork does not survive.

    Raises:
        StorageError: the log cannot be written.
    """
    try:
        stream = open(log, "ab", buffering=0)  # noqa: SIM115 (closed below)
    except OSError as error:
        raise storage_error(log, error) from error
    with stream:
        stream.write(header(shlex.join(command)))
        # An ignored signal stays ignored over exec; a handler would not.
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                start_new_session=True,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGHUP, before)


def wait_until_steering(
    process: subprocess.Popen[bytes], folder: StudyFolder, clock: Clock, patience_s: float
) -> bool:
    """True once the process holds the study; False when it has ended, or is not up in time."""
    end = clock.now() + patience_s
    while process.poll() is None and clock.now() < end:
        holder = steering_alive(folder, clock.now())
        if holder is not None and holder["pid"] == process.pid:
            return True
        clock.sleep(LOOK_S)
    return False
