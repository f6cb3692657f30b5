"""The study folder: where each thing is, and who may write there.

Layout::

    study.yaml       the frozen study          trials/   one folder a trial that has files
    journal.jsonl    the journal               logs/     workers', Parsl's and blocks' logs
    lock, holder     the steering process      spool/    outcomes as workers wrote them
    manifest.json    the staged inputs         control/  requests to running blocks
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from hpc_hpo.errors import InputError, StudyHeld
from hpc_hpo.fsio import storage_error, write_atomic

#: A holder on another host counts as alive this long after its last sign of life. Only then
#: does it matter, where the file system's locks do not reach across hosts.
HOLDER_TTL_S = 90.0


@dataclass(frozen=True)
class StudyFolder:
    """Paths of one study folder."""

    path: Path

    @property
    def study(self) -> Path:
        return self.path / "study.yaml"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def steering_log(self) -> Path:
        """What steering processes without a terminal have said."""
        return self.logs / "steering.log"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    @property
    def inputs(self) -> Path:
        return self.path / "inputs"

    @property
    def control(self) -> Path:
        return self.path / "control"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def holder(self) -> Path:
        return self.path / "holder.json"

    @property
    def prestage_lock(self) -> Path:
        return self.path / "prestage.lock"

    @property
    def prestage_holder(self) -> Path:
        return self.path / "prestage.json"

    @property
    def exists(self) -> bool:
        """True when a study has been frozen here."""
        return self.study.is_file()

    def stop_file(self, run: int) -> Path:
        """Its presence asks the blocks of steering run `run` to pause their slices."""
        return self.control / f"stop-r{run}"

    def release_file(self, run: int, block: str) -> Path:
        """Its presence says that no slice runs on a block that is being cancelled."""
        return self.control / f"release-r{run}-b{block}"

    def signal_file(self, run: int, block: str) -> Path:
        """In it a block's job script leaves the scheduler's signals for its nodes."""
        return self.control / f"signal-r{run}-b{block}"

    @property
    def stop_request(self) -> Path:
        """Its presence asks the steering process to stop (written by ``hpc-hpo stop``)."""
        return self.control / "stop-request"

    def trial(self, number: int) -> Path:
        """The folder of one trial; made by whoever first writes there."""
        return self.trials / f"{number:06d}"

    def make(self) -> None:
        """Create the folder and its rooms.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            for room in (self.path, self.spool, self.logs, self.trials, self.control):
                room.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe.{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise storage_error(self.path, error) from error


def find_folder(path: Path, name_of: Callable[[Path], str]) -> StudyFolder:
    """The study folder meant by `path`: the folder itself, or the one beside a study file.

    Args:
        path: what the user gave.
        name_of: reads the study's name from a study file.

    Raises:
        InputError: nothing is there.
    """
    if path.is_dir():
        if (path / "journal.jsonl").exists() or (path / "manifest.json").exists():
            return StudyFolder(path.resolve())
        if (path / "study.yaml").is_file():
            return find_folder(path / "study.yaml", name_of)
        raise InputError(
            "holds no study", file=str(path), valid="a study folder or the path of a study.yaml"
        )
    if not path.exists():
        raise InputError(
            "does not exist", file=str(path), valid="a study folder or the path of a study.yaml"
        )
    return StudyFolder((path.parent / name_of(path)).resolve())


def process_start(pid: int) -> float | None:
    """Clock ticks since boot at which a process of this host began; None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    # A zombie holds nothing any more.
    return None if fields[0] == "Z" else float(fields[19])


class StudyLock:
    """One steering process a study.

    The lock itself is the kernel's (filelock), so it falls when its process dies. `holder.json`
    beside it says who holds it, and guards against file systems whose locks do not reach other
    hosts: there a holder with a recent sign of life is believed.
    """

    held_by = "this study is being run by"
    advice = "`hpc-hpo stop` asks it to stop; `hpc-hpo status` shows how it is doing."

    def __init__(self, folder: StudyFolder, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._now = now
        self._place(folder)
        self._lock = filelock.FileLock(self.lock_path, timeout=0)
        self._host = socket.gethostname()
        self.taken_over: str | None = None

    def _place(self, folder: StudyFolder) -> None:
        self.lock_path, self.holder_path = folder.lock, folder.holder

    def _read_holder(self) -> dict[str, Any] | None:
        try:
            holder = json.loads(self.holder_path.read_text())
        except (OSError, ValueError):
            return None
        return holder if isinstance(holder, dict) and "pid" in holder else None

    def _describe(self, holder: dict[str, Any] | None) -> str:
        if holder is None:
            return "another process"
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        return f"process {holder['pid']} on {holder['host']} since {since}"

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StudyHeld: another process steers this study; the text says which.
        """
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise StudyHeld(
                f"{self._folder.path}: {self.held_by} "
                f"{self._describe(self._read_holder())}. {self.advice}"
            ) from None
        except OSError as error:
            raise storage_error(self.lock_path, error) from error
        holder = self._read_holder()
        if holder is not None:
            age = self._now() - float(holder.get("alive", 0.0))
            if holder["host"] != self._host and age < HOLDER_TTL_S:
                self._lock.release()
                raise StudyHeld(
                    f"{self._folder.path}: {self.held_by} {self._describe(holder)}; "
                    f"its last sign of life is {age:.0f} s old. If you know that it is gone, "
                    f"wait {HOLDER_TTL_S - age:.0f} s and try again."
                )
            self.taken_over = self._describe(holder)
        self._since = self._now()
        self.refresh()

    def refresh(self) -> None:
        """Leave a sign of life; cheap enough for every ten seconds."""
        pid = os.getpid()
        record = {
            "host": self._host,
            "pid": pid,
            "process_start": process_start(pid),
            "since": self._since,
            "alive": self._now(),
        }
        write_atomic(self.holder_path, json.dumps(record), durable=False)

    def release(self) -> None:
        """Give the lock back."""
        self.holder_path.unlink(missing_ok=True)
        self._lock.release()


def steering_alive(folder: StudyFolder, now: float) -> dict[str, Any] | None:
    """The holder's record when a steering process is at work on the study, else None."""
    return holder_alive(folder.holder, now)


def holder_alive(path: Path, now: float) -> dict[str, Any] | None:
    """The record that a lock's holder keeps in `path`, while that process lives; else None."""
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(holder, dict) or "pid" not in holder:
        return None
    if holder["host"] == socket.gethostname():
        began = process_start(holder["pid"])
        return holder if began is not None and began == holder.get("process_start") else None
    return holder if now - float(holder.get("alive", 0.0)) < HOLDER_TTL_S else None
