"""A study with a history, and the command line in this process."""

import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hpc_hpo.cli.main import cli
from hpc_hpo.folder import StudyFolder, process_start
from hpc_hpo.fsio import seal
from hpc_hpo.journal import Event
from tests import events as ev

STUDY = """\
name: digits
objective: objective.py:train
direction: minimize
space: {lr: {float: [0.0, 1.0]}, act: {choice: [relu, tanh]}}
budget: {trials: 3}
"""
#: What one worker's log holds: of trial 0, of trial 1, and of trial 0 again.
LOG_PARTS = (b"first slice\n", b"gr\xc3\xb6\xc3\x9fe \xff\n", b"second slice\n")
LOG = b"".join(LOG_PARTS)
CUT = (0, 12, len(LOG) - 13, len(LOG))
HISTORY = [
    ev.run(),
    ev.block("1.b0", "running", ev.START, started=ev.START, deadline=ev.START + 60, workers=2),
    ev.asked(0, {"lr": 0.123456789, "act": "relu"}),
    ev.submit(0, 1),
    ev.end(
        0,
        1,
        "paused",
        "paused",
        at=ev.START + 10,
        reason="walltime",
        checkpoint=ev.checkpoint(1, 3),
        reports=[[3, {"loss": 0.75}]],
        log=["logs/w.log", CUT[0], CUT[1]],
    ),
    ev.asked(1, {"lr": 0.5}, at=ev.START + 10),
    ev.submit(1, 1, at=ev.START + 10),
    ev.end(
        1,
        1,
        "failed",
        "failed",
        at=ev.START + 12,
        error={
            "kind": "exception",
            "message": "ValueError: no",
            "traceback": "Traceback:\n  line 3\n",
            "log_tail": "the last words",
        },
        log=["logs/w.log", CUT[1], CUT[2]],
    ),
    ev.submit(0, 2, at=ev.START + 20),
    ev.end(
        0,
        2,
        "completed",
        "completed",
        at=ev.START + 40,
        loss=0.25,
        restored="ckpt-000001-000003",
        log=["logs/w.log", CUT[2], CUT[3]],
    ),
    ev.block("1.b0", "ended", ev.START + 60, ended=ev.START + 60, reason="walltime"),
]


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A study that has never been run."""
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    return file


@pytest.fixture
def write_study(study_file: Path) -> Callable[[Sequence[Event]], StudyFolder]:
    """Gives the study a folder with this history."""

    def write(history: Sequence[Event]) -> StudyFolder:
        folder = StudyFolder(study_file.parent / "digits")
        folder.make()
        folder.study.write_text(STUDY)
        folder.journal.write_bytes(b"".join(map(seal, history)))
        (folder.logs / "w.log").write_bytes(LOG)
        return folder

    return write


@pytest.fixture
def folder(write_study: Callable[[Sequence[Event]], StudyFolder]) -> StudyFolder:
    """The study after a run."""
    return write_study(HISTORY)


@pytest.fixture
def hpc_hpo() -> Callable[..., Result]:
    """The command line in this process; gives its output and exit code."""

    def invoke(*args: object) -> Result:
        done = CliRunner().invoke(cli, [str(arg) for arg in args], catch_exceptions=False)
        assert "Traceback (most recent call last)" not in done.output
        return done

    return invoke


@pytest.fixture
def steer() -> Callable[[StudyFolder], None]:
    """Makes this process the steering process of a study."""

    def hold(folder: StudyFolder) -> None:
        record = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_start": process_start(os.getpid()),
            "since": ev.START,
            "alive": ev.START,
        }
        folder.holder.write_text(json.dumps(record))

    return hold


@pytest.fixture
def steered_by_us(folder: StudyFolder, steer: Callable[[StudyFolder], None]) -> StudyFolder:
    """The study, with this process as its steering process."""
    steer(folder)
    return folder
