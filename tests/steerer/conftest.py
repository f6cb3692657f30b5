"""A scheduler and a clock that do what a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hpc_hpo.folder import StudyFolder
from hpc_hpo.launch import freeze
from hpc_hpo.pilot.scheduler import Reply
from hpc_hpo.site import Site, load_site
from hpc_hpo.study import Study, load_study

STUDY = """
name: small
objective: objective.py:train
space: {x: {float: [0, 1]}}
budget: {trials: 5}
account: ABC123
"""
SAID = {"bsub": "Job <{}> is submitted to default queue <batch>.",
        "sbatch": "Submitted batch job {}", "qsub": "{}.server"}  # fmt: skip


class Clock:
    """Time that passes only in sleeps."""

    def __init__(self, cpu: float = 0.0) -> None:
        self.time, self.used = 1000.0, cpu
        self.sleeps: list[float] = []

    def now(self) -> float:
        return self.time

    def cpu(self) -> float:
        return self.used

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds


class Scheduler:
    """Answers a scheduler's commands; jobs are numbered from 101 and wait until they end."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.jobs: dict[str, str] = {}
        self.down = False
        self.time_left = ""

    def __call__(self, argv: Sequence[str], stdin: Path | None = None) -> Reply:
        self.calls.append([*argv, *(["<", str(stdin)] if stdin else [])])
        command = argv[0]
        if self.down:
            return Reply(command, 255, "", "LSF is down. Please wait ...")
        out = ""
        if command in SAID:
            job = str(101 + len(self.jobs))
            self.jobs[job] = "PEND"
            out = SAID[command].format(job)
        elif command == "bjobs":
            out = "".join(f"{j} {self.jobs[j]}\n" for j in argv if j in self.jobs)
        elif command == "bash":
            out = self.time_left
        elif command == "bkill":
            for job in argv[1:]:
                self.jobs[job] = "EXIT"
        return Reply(command, 0, out, "")

    def of(self, command: str) -> list[list[str]]:
        return [call for call in self.calls if call[0] == command]


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler()


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Study]:
    def make(blocks: str = "{nodes: 2, walltime: '1:00'}", more: str = "") -> Study:
        file = tmp_path / "study.yaml"
        file.write_text(f"{STUDY}blocks: {blocks}\n{more}\n")
        return load_study(file)

    return make


@pytest.fixture
def folder(tmp_path: Path, make_study: Callable[..., Study]) -> StudyFolder:
    place = StudyFolder(tmp_path / "a study's folder")
    place.make()
    freeze(make_study(), place)
    return place


@pytest.fixture
def summit() -> Site:
    return load_site("summit")
