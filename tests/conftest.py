"""What holds for every test: none leaves a process behind."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest

#: Processes that have been told to end may take so long, in seconds.
ENDING_S = 20.0


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes that were started for a test name its folder in their command or work in it."""
    yield
    base = str(tmp_path_factory.getbasetemp())
    end = time.monotonic() + ENDING_S
    while left := _processes_of(base):
        assert time.monotonic() < end, "tests left processes behind:\n" + "\n".join(left)
        time.sleep(0.2)


def _processes_of(folder: str) -> list[str]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd", "status"]):
        info = process.info
        command = " ".join(info["cmdline"] or [])
        inside = folder in command or (info["cwd"] or "").startswith(folder)
        if inside and info["status"] != psutil.STATUS_ZOMBIE:
            found.append(f"{info['pid']}: {command}")
    return found
