"""A terminal in which `watch` runs, for tests of what people see."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """`hpc-hpo watch` on a pseudo-terminal of its own."""

    def __init__(self, folder: Path, columns: int, lines: int, **environment: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(columns, lines)
        # The size is the terminal's, whatever these say where the tests run; and tests that run in
        # the background would hand on that SIGINT is ignored.
        inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hpc_hpo.cli.main", "watch", str(folder)],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env={**inherited, "TERM": "xterm-256color", "PYTHONUTF8": "1", **environment},
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def resize(self, columns: int, lines: int) -> None:
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def until(self, words: str, seconds: float = 30.0) -> str:
        """Read until the words have appeared; what was read in this call."""
        begun, end = len(self.seen), time.monotonic() + seconds
        while words not in self.seen[begun:]:
            assert time.monotonic() < end, f"no {words!r} in {self.seen[begun:]!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.master, 1 << 16).decode(errors="replace")
                except OSError:
                    assert words in self.seen[begun:], self.seen[begun:]
        return self.seen[begun:]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
