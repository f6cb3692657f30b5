"""A small study folder and workers in this process; their payloads are real processes."""

from __future__ import annotations

import json
import os
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpc_hpo.fsio import read_sealed
from hpc_hpo.worker.entry import Worker
from hpc_hpo.worker.node import Node


def wait_for(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Poll until `condition` is true; its value."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"not true within {seconds} s: {condition}")


def is_running(pid: int) -> bool:
    """True unless the process is gone or a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class Bench:
    """A study folder, its task file, and one worker."""

    def __init__(self, root: Path) -> None:
        self.dir = root / "study"
        self.source = root / "source"
        self.notice = root / "notice.json"
        self.dir.mkdir()
        self.source.mkdir()
        self.task: dict[str, Any] = {
            "study": "s",
            "kind": "python",
            "target": "objective:train",
            "path": [str(self.source)],
            "env": {},
            "inputs": {},
            "kill_grace_s": 0.3,
            "checkpoint_every_s": 300.0,
            "checkpoint_keep": 2,
        }
        self.workers: list[Worker] = []
        self._runs = 0

    def objective(self, code: str) -> None:
        """Write the objective; a new worker imports it."""
        (self.source / "objective.py").write_text(textwrap.dedent(code))

    def command(self, code: str, *arguments: str, **task: Any) -> None:
        """Make the payload a Python program with this code."""
        (self.source / "program.py").write_text(textwrap.dedent(code))
        self.task.update(kind="command", argv=["python3", "program.py", *arguments])
        self.task.update(task)

    def worker(self, **facts: Any) -> Worker:
        """A new worker on some node."""
        self._runs += 1
        facts = {"block": "0", "worker": str(self._runs), "host": "node1", **facts}
        worker = Worker(Node(pid=os.getpid(), notice=self.notice, **facts))
        self.workers.append(worker)
        return worker

    def request(self, **facts: Any) -> dict[str, Any]:
        """A request for slice 1 of trial 7, unless told."""
        (self.dir / "task.json").write_text(json.dumps(self.task))
        return {
            "dir": str(self.dir),
            "task": "task.json",
            "run": 1,
            "trial": 7,
            "slice": 1,
            "point": {"x": 2.0},
            "seed": 11,
            "attempt": 1,
            "known_step": -1,
            "spent_s": 0.0,
            "margin_s": 0.3,
            "needs_s": 0.0,
            "stop_step": None,
            **facts,
        }

    def run(self, worker: Worker | None = None, **facts: Any) -> dict[str, Any]:
        """Run one slice, on a new worker unless one is given."""
        return dict((worker or self.worker()).run(self.request(**facts)))

    @property
    def trial(self) -> Path:
        """The folder of trial 7."""
        return self.dir / "trials" / "000007"

    def checkpoints(self) -> list[str]:
        """Names of the trial's committed checkpoints."""
        return sorted(p.name for p in self.trial.glob("ckpt-*"))

    def spooled(self) -> list[dict[str, Any]]:
        """All whole lines of all spools."""
        lines = []
        for path in sorted((self.dir / "spool").glob("*.jsonl")):
            for _, record in read_sealed(path):
                assert record is not None
                lines.append(record)
        return lines
