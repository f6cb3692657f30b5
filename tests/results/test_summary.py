"""The object behind `status --json`."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from hpc_hpo.folder import StudyFolder, process_start
from hpc_hpo.journal import Event, replay
from hpc_hpo.results.summary import summary
from hpc_hpo.results.table import strict_json
from hpc_hpo.steering.loop import DONE_REASONS
from tests import events as ev

STUDY = {"name": "digits", "direction": "minimize", "budget": {"trials": 2}}
T = ev.START


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path)


def steer(folder: StudyFolder) -> None:
    """Let this process be the study's steering process."""
    record = {"host": socket.gethostname(), "pid": os.getpid(), "since": T, "alive": T}
    record["process_start"] = process_start(os.getpid())
    folder.holder.write_text(json.dumps(record))


def completed(trial: int, loss: float, at: float = T + 20) -> list[Event]:
    return [
        ev.asked(trial, {"x": trial}, T),
        ev.submit(trial, 1, T),
        ev.end(trial, 1, "completed", "completed", at=at, loss=loss),
    ]


def failed(trial: int) -> list[Event]:
    return [ev.asked(trial, {"x": trial}), ev.submit(trial), ev.end(trial, 1, "failed", "failed")]


def stopped(reason: str, at: float = T + 50) -> Event:
    return {"e": "stop", "run": 1, "at": at, "reason": reason, "cpu": 0.5}


def state_of(folder: StudyFolder, *events: Event, study: dict[str, Any] | None = None) -> Any:
    return summary(folder, replay(events), study or STUDY, T + 100)["state"]


def test_that_a_study_without_a_run_is_new_and_its_summary_complete(folder: StudyFolder) -> None:
    found = summary(folder, replay([]), STUDY, T)
    assert found["state"] == "new"
    assert found["best"] is None and found["utilisation"] is None
    assert found["trials"]["total"] == 0 and found["trials"]["budget"] == 2
    required = "study state trials best blocks slices utilisation lost_worker_seconds"
    assert {*required.split(), "steering_cpu_seconds"} <= set(found)
    json.loads(strict_json(found))


def test_that_a_study_runs_only_while_its_steering_process_lives(folder: StudyFolder) -> None:
    events = [ev.run(), *completed(0, 0.5)]
    assert state_of(folder, *events) == "stopped"
    steer(folder)
    assert state_of(folder, *events) == "running"
    holder = summary(folder, replay(events), STUDY, T)["steering"]
    assert holder == {"host": socket.gethostname(), "pid": os.getpid(), "since": T}


def test_that_a_study_is_done_when_its_budget_is_used(folder: StudyFolder) -> None:
    one, both = [ev.run(), *completed(0, 0.5)], [ev.run(), *completed(0, 0.5), *failed(1)]
    assert state_of(folder, *one, stopped("stop")) == "stopped"
    assert state_of(folder, *both) == "done", "killed after its last trial"
    larger = STUDY | {"budget": {"trials": 3}}
    assert state_of(folder, *both, study=larger) == "stopped"


@pytest.mark.parametrize("reason", sorted(DONE_REASONS))
def test_that_a_study_may_be_done_before_its_budget_is_used(
    folder: StudyFolder, reason: str
) -> None:
    assert state_of(folder, ev.run(), *completed(0, 0.5), stopped(reason)) == "done"
    assert state_of(folder, ev.run(), *completed(0, 0.5), stopped(reason), ev.run(2)) == "stopped"


def test_that_a_study_without_any_loss_has_failed(folder: StudyFolder) -> None:
    assert state_of(folder, ev.run(), *failed(0), *failed(1)) == "failed"


def test_that_the_best_follows_the_direction(folder: StudyFolder) -> None:
    state = replay([ev.run(), *completed(0, 0.5), *completed(1, 0.7)])
    assert summary(folder, state, STUDY, T)["best"] == {"trial": 0, "loss": 0.5, "point": {"x": 0}}
    most = summary(folder, state, STUDY | {"direction": "maximize"}, T)
    assert most["best"]["trial"] == 1


BLOCKS = [
    ev.run(),
    ev.block("1.0", "requested", T, requested=T),
    *completed(0, 0.5, at=T)[:2],
    ev.block("1.0", "running", T + 5, started=T + 5, deadline=T + 65, workers=2),
    completed(0, 0.5, at=T + 25)[2],
    ev.block("1.1", "requested", T + 30, requested=T + 30),
    {"e": "tick", "run": 1, "at": T + 35, "cpu": 0.25},
]


def test_that_a_running_block_counts_until_now_and_not_beyond_its_deadline(
    folder: StudyFolder,
) -> None:
    steer(folder)
    state = replay(BLOCKS)
    found = summary(folder, state, STUDY, T + 45)
    assert found["allocated_worker_seconds"] == 2 * 40
    assert found["utilisation"] == 10 / 80
    counts = {"requested": 1, "running": 1, "ended": 0, "abandoned": 0, "total": 2}
    assert found["blocks"] == counts | {
        "held": [{"block": "1.0", "job": None, "workers": 2, "seconds_left": 20.0}]
    }
    assert found["elapsed_seconds"] == 45.0
    assert summary(folder, state, STUDY, T + 500)["allocated_worker_seconds"] == 2 * 60


def test_that_a_block_of_a_dead_steering_process_counts_until_its_last_word(
    folder: StudyFolder,
) -> None:
    found = summary(folder, replay(BLOCKS), STUDY, T + 45)
    assert found["allocated_worker_seconds"] == 2 * 30
    assert (found["blocks"]["abandoned"], found["blocks"]["running"]) == (2, 0)
    assert found["blocks"]["held"] == []
    assert found["elapsed_seconds"] == 35.0
    assert found["steering_cpu_seconds"] == 0.25


def test_that_slices_and_losses_are_counted(folder: StudyFolder) -> None:
    events = [
        ev.run(),
        ev.asked(0, {"x": 0}),
        ev.submit(0, 1),
        ev.end(0, 1, "lost", "paused", wasted_s=4.0),
        ev.submit(0, 2),
        ev.end(0, 2, "paused", "paused"),
        {"e": "refused", "trial": 0, "slice": 1, "at": T},
        ev.submit(0, 3),
    ]
    found = summary(folder, replay(events), STUDY, T)
    assert found["slices"]["lost"] == found["slices"]["paused"] == 1
    assert sum(found["slices"].values()) == 2
    assert found["lost_worker_seconds"] == 4.0
    assert found["busy_worker_seconds"] == 20.0
    assert found["refused"] == 1
    assert found["trials"]["running"] == found["trials"]["total"] == 1


def test_that_a_study_known_by_its_folder_alone_has_a_summary(folder: StudyFolder) -> None:
    found = summary(folder, replay([]), {"name": "x"}, T)
    assert (found["state"], found["trials"]["budget"]) == ("new", None)
