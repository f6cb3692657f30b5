"""The cluster as tests use it: ``with FakeLsf(folder, speed=120) as lsf: ...``."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
CLIENT = Path(__file__).with_name("client.py")
COMMANDS = ("bsub", "bjobs", "bkill", "bhist", "bslots", "jsrun", "fake-lsf")


def write_commands(folder: Path, names: Sequence[str]) -> None:
    """Executables that know their cluster by themselves: they work in any environment."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        words = [sys.executable, "-I", "-S", str(CLIENT), name, str(folder.parent)]
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        path.chmod(0o755)


class FakeLsf:
    """A cluster of its own in `folder`, alive inside a ``with`` block.

    Args:
        folder: its state; made when missing.
        options: what `cluster.Cluster` and the queues take (``flavour``, ``nodes``, ``cpus``,
            ``gpus``, ``speed``, ``grace``, ``clean_period``, ``real_times``, ``eligible``,
            ``queued``).
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder.resolve()
        self._options = options
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> FakeLsf:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the daemon and wait until it answers.

        Raises:
            RuntimeError: it does not.
        """
        plain = self._options.get("flavour") == "plain"
        write_commands(self.folder / "bin", [c for c in COMMANDS if c != "jsrun" or not plain])
        arguments = [
            sys.executable,
            "-E",
            "-S",
            "-m",
            "tests.fakes.lsf.daemon",
            str(self.folder),
            "--until-eof",
        ]
        for name, value in self._options.items():
            option = "--" + name.replace("_", "-")
            arguments += (
                ([option] if value else []) if name == "real_times" else [option, str(value)]
            )
        with open(self.folder / "daemon.log", "ab") as log:
            self._daemon = subprocess.Popen(
                arguments,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 20
        while not (self.folder / "socket").exists():
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError((self.folder / "daemon.log").read_text())
            time.sleep(0.01)

    def stop(self) -> None:
        """End the daemon, every job, and every process of a job."""
        if self._daemon is None:
            return
        daemon, self._daemon = self._daemon, None
        daemon.terminate()
        try:
            daemon.wait(20)
        finally:
            daemon.kill()
            daemon.communicate()

    @property
    def pid(self) -> int:
        """The daemon's process."""
        assert self._daemon is not None
        return self._daemon.pid

    def env(self, **extra: str) -> dict[str, str]:
        """This process's environment with the cluster's commands first on PATH."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "FAKE_LSF_DIR": str(self.folder), **extra}

    def run(
        self, *words: str, cwd: Path | None = None, stdin: str | None = None, timeout: float = 20
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a user on the login node."""
        return subprocess.run(
            words,
            env=self.env(),
            cwd=cwd or self.folder,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def control(self, *words: str) -> str:
        """Make something happen to the cluster (see ``Daemon.control``).

        Raises:
            ValueError: it cannot happen now.
        """
        done = self.run("fake-lsf", *words)
        if done.returncode:
            raise ValueError(done.stderr.strip())
        return done.stdout

    def jobs(self) -> dict[int, dict[str, Any]]:
        """Every job of the cluster's life by its id, as `state.Job.summary` gives it."""
        return {job["id"]: job for job in json.loads(self.control("jobs"))}

    def job(self, number: int) -> dict[str, Any]:
        """One job's summary."""
        return self.jobs()[number]

    def events(self) -> list[dict[str, Any]]:
        """Each change of a job's state so far: its summary with ``time`` and ``real``."""
        with open(self.folder / "events.jsonl") as stream:
            return [json.loads(line) for line in stream]

    def preempt(self, number: int) -> None:
        """Preempt a running job of a preemptable queue."""
        self.control("preempt", str(number))

    def hold(self, number: int) -> None:
        """PEND becomes PSUSP, RUN becomes SSUSP."""
        self.control("hold", str(number))

    def release(self, number: int) -> None:
        """Undo `hold`."""
        self.control("release", str(number))

    def occupy(self, nodes: int, minutes: float) -> None:
        """Let another user have free nodes for some minutes of cluster time."""
        self.control("occupy", str(nodes), str(minutes))

    def fault(self, command: str, kind: str, times: int | None = None) -> None:
        """Let the next `times` calls of a command fail (all, until `mend`).

        Kinds: ``refuse`` and ``down`` (exit code 255, nothing done), ``hang`` (nothing done, no
        answer), ``garbled`` and ``empty`` (done, but the output is spoilt).
        """
        self.control("fault", command, kind, *([] if times is None else [str(times)]))

    def mend(self, command: str) -> None:
        """End a fault."""
        self.control("fault", command)

    def wait_for(self, reached: Callable[[], Any], what: str, seconds: float = 20) -> None:
        """Wait until `reached` gives a true value.

        Raises:
            AssertionError: it did not in real `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s for {what}; jobs: {self.jobs()}")
            time.sleep(0.03)

    def wait_state(self, number: int, *states: str, seconds: float = 20) -> dict[str, Any]:
        """Wait until a job is in one of the states, and give its summary."""
        self.wait_for(
            lambda: self.job(number)["state"] in states, f"job {number} in {states}", seconds
        )
        return self.job(number)
