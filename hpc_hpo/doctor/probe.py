"""What a compute node says of itself. Runs there as a file of its own: `python probe.py TASK.json`.

Imports the standard library alone, because whether anything else can be imported is one of the
questions. Its answer is a file in the shared folder.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Tries to reach the login node end after so many seconds.
CONNECT_S = 10.0
#: What workers import, with the attribute that holds the version.
PACKAGES = ("parsl", "hpc_hpo", "numpy", "h5py", "psutil", "filelock")


def versions() -> dict[str, str]:
    """Each package's version, or why it cannot be imported."""
    found = {}
    for name in PACKAGES:
        try:
            module = importlib.import_module(name)
        # Whatever keeps a package from being imported is the answer: a missing library, a
        # module of another architecture, a mistake in its own code.
        except BaseException as error:
            found[name] = f"! {type(error).__name__}: {error}"[:200]
        else:
            found[name] = str(getattr(module, "__version__", "unknown version"))
    return found


def lock_is_free(path: Path) -> bool:
    """Whether a lock that the login node holds can be had here, too."""
    with open(path, "a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def connect(address: str, port: int, token: str) -> str:
    """ "" when the login node was reached, or the reason."""
    try:
        with socket.create_connection((address, port), CONNECT_S) as link:
            link.sendall(json.dumps({"token": token, "time": time.time()}).encode() + b"\n")
            return "" if link.recv(2) == b"ok" else "somebody else answers there"
    except OSError as error:
        return str(error)


def local_room(folder: str) -> dict[str, Any]:
    """The node's own disk: free bytes, or why it cannot be used."""
    text = os.path.expandvars(folder)
    with tempfile.TemporaryFile(dir=text) as probe:
        probe.write(b"x")
    facts = os.statvfs(text)
    return {"folder": text, "free": facts.f_bavail * facts.f_frsize}


def attempt(question: Callable[[], Any]) -> Any:
    """An answer, or {"problem": why there is none}."""
    try:
        return question()
    except (OSError, ValueError) as error:
        return {"problem": str(error)}


def main(task_file: Path) -> None:
    """Answer every question of the task; each by itself, so that one failure hides no other."""
    task = json.loads(task_file.read_text())
    folder = task_file.parent
    answer = {
        "host": socket.gethostname(),
        "node": os.environ.get("SLURMD_NODENAME", ""),
        "python": list(sys.version_info[:3]),
        "executable": sys.executable,
        "arch": platform.machine(),
        "page_size": os.sysconf("SC_PAGE_SIZE"),
        "glibc": platform.libc_ver(),
        "versions": versions(),
        "lock_is_free": attempt(lambda: lock_is_free(folder / "lock")),
        "connected": connect(task["address"], task["port"], task["token"]),
        "node_local": attempt(lambda: local_room(task["node_local"])) if task["node_local"] else {},
        "time": time.time(),
    }
    target = folder / f"answer-{os.getpid()}-{answer['host']}.json"
    temporary = target.with_suffix(".tmp")
    temporary.write_text(json.dumps(answer))
    temporary.rename(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
