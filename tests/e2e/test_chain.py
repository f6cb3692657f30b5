"""Steering inside batch jobs, each of which submits the next: a study on the fake of Summit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from hpc_hpo.folder import StudyFolder
from tests.e2e.conftest import ROOT, SLEEPY
from tests.fakes.lsf import FakeLsf

# Each takes half a minute on a machine that does nothing else.
pytestmark = [pytest.mark.slow, pytest.mark.batch, pytest.mark.timeout(300)]

STUDY = """\
name: chained
objective: objective.py:train
space: {{x: {{float: [0.0, 1.0]}}, k: {{int: [0, 5]}}}}
optimizer: sobol
budget: {{trials: {trials}}}
checkpoint: {{every: 0.3s}}
account: ABC123
queue: {queue}
blocks: {{nodes: 2, workers_per_node: 2, walltime: {walltime}}}
"""
SITE = """\
name: small-summit
extends: summit
arch: auto
address: 127.0.0.1
heartbeat: {period: 1s, threshold: 3s}
kill_grace: 1s
checkpoint_floor: 0.5s
poll: 0.5s
warning: {signal: SIGUSR2, ahead: 5s}
directives: []
"""


class Place:
    """A study beside a fake cluster."""

    def __init__(self, folder: Path, lsf: FakeLsf) -> None:
        self.folder, self.lsf = folder, lsf
        self.study = StudyFolder(folder / "chained")

    def write(self, trials: int, walltime: str, queue: str = "batch", steps: int = 20) -> None:
        text = STUDY.format(trials=trials, walltime=walltime, queue=queue)
        (self.folder / "study.yaml").write_text(text)
        (self.folder / "site.yaml").write_text(SITE)
        (self.folder / "objective.py").write_text(SLEEPY.replace("STEPS", str(steps)))

    def __call__(self, command: str, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "hpc_hpo.cli.main", command, "study.yaml", *words],
            cwd=self.folder, env=self.lsf.env(PYTHONPATH=str(ROOT)), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return done.stdout

    def submit(self, *words: str) -> str:
        return self("submit", "--site", "site.yaml", "--steer", "batch", *words)

    def status(self) -> dict:
        return json.loads(self("status", "--json"))

    def wait_until_empty(self, seconds: float = 240) -> list[dict]:
        """All jobs, once none is left."""
        over = ("DONE", "EXIT")
        self.lsf.wait_for(
            lambda: all(j["state"] in over for j in self.lsf.jobs().values()),
            "an empty queue", seconds,
        )  # fmt: skip
        return list(self.lsf.jobs().values())

    def wait_for_trials(self, count: int) -> None:
        self.lsf.wait_for(
            lambda: (
                self.study.journal.exists()
                and self.study.journal.read_bytes().count(b'"state":"completed"') >= count
            ),
            f"{count} trials",
            seconds=90,
        )


@pytest.fixture
def make_place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    clusters: list[FakeLsf] = []

    def make(speed: float) -> Place:
        lsf = FakeLsf(tmp_path / "lsf", speed=speed, grace=0.3, nodes=4)
        clusters.append(lsf)
        lsf.start()
        folder = tmp_path / "it's here"
        folder.mkdir()
        return Place(folder, lsf)

    yield make
    for lsf in clusters:
        lsf.stop()


def test_that_a_study_goes_on_from_job_to_job_and_its_chain_ends_by_itself(
    make_place: Callable[..., Place],
) -> None:
    place = make_place(speed=1)
    # 54 s of work for each worker, which no two jobs have time for.
    place.write(trials=36, walltime="20s", steps=60)
    said = place.submit("--max-jobs", "20")
    assert "job 1001 is submitted to small-summit" in said
    assert "chained: " in place("submit", "--site", "site.yaml", code=4), "one at a time"
    jobs = place.wait_until_empty()
    ran = [job for job in jobs if job["started"] is not None]
    assert len(ran) >= 3
    assert all(job["state"] == "DONE" for job in ran), "each ended before it was killed"
    assert all(a["finished"] <= b["started"] for a, b in pairwise(ran))
    found = place.status()
    assert (found["state"], found["trials"]["completed"]) == ("done", 36)
    assert found["chain"]["closed"] == "the study is done"
    assert found["chain"]["jobs"] == [str(job["id"]) for job in jobs]
    assert found["slices"]["lost"] == 0 and found["slices"]["paused"] > 0
    assert found["blocks"]["total"] == len(ran), "a job is one block"


def test_that_jobs_killed_at_their_limit_lose_no_result(make_place: Callable[..., Place]) -> None:
    place = make_place(speed=6)  # a job asks for a minute, and is killed after ten seconds
    place.write(trials=50, walltime="1m")
    place.submit("--max-jobs", "40")
    jobs = place.wait_until_empty()
    assert [j["reason"] for j in jobs if j["started"] is not None].count("TERM_RUNLIMIT") >= 1
    found = place.status()
    assert (found["state"], found["trials"]["completed"]) == ("done", 50)


def test_that_a_chain_is_stopped_moved_to_the_login_node_and_back(
    make_place: Callable[..., Place],
) -> None:
    place = make_place(speed=1)
    place.write(trials=60, walltime="2m")
    place.submit("--max-jobs", "9")
    place.wait_for_trials(4)
    place("stop", "--wait")
    jobs = place.wait_until_empty()
    assert [job["exit_code"] for job in jobs] == [3, 0] and jobs[1]["reason"] == "TERM_OWNER"
    assert place.status()["chain"]["closed"] == "stopped"
    # On the login node, with blocks that are jobs of their own.
    place("submit", "--site", "site.yaml")
    before = place.status()["trials"]["completed"]
    place.wait_for_trials(before + 4)
    place("stop", "--wait")
    place.wait_until_empty()
    # And back; a chain of one job, which ends before the study.
    place.submit("--max-jobs", "1")
    place.wait_until_empty()
    found = place.status()
    assert found["chain"]["max_jobs"] == len(found["chain"]["jobs"]) == 1
    assert found["trials"]["completed"] > before + 4
    assert found["state"] == "done"


def test_that_a_waiting_chain_is_cancelled_by_stop(make_place: Callable[..., Place]) -> None:
    place = make_place(speed=60)
    place.lsf.occupy(4, 600)
    place.write(trials=5, walltime="30m")
    place.submit()
    assert "1001" in place("status")
    assert "job 1001 of an earlier submit" in place("run", "--site", "site.yaml", code=4)
    assert "cancelled: job 1001" in place("stop")
    assert [job["state"] for job in place.wait_until_empty()] == ["EXIT"]


def test_that_a_chain_whose_steering_was_killed_goes_on_in_the_next_job(
    make_place: Callable[..., Place],
) -> None:
    place = make_place(speed=1)
    place.write(trials=16, walltime="50s")
    place.submit("--max-jobs", "4")
    place.wait_for_trials(4)
    os.kill(json.loads(place.study.holder.read_text())["pid"], signal.SIGKILL)
    jobs = place.wait_until_empty()
    assert [job["exit_code"] for job in jobs[:2]] == [137, 0]
    found = place.status()
    assert (found["state"], found["trials"]["completed"]) == ("done", 16)


def test_that_steering_near_the_login_node_s_limit_goes_on_inside_jobs(
    make_place: Callable[..., Place],
) -> None:
    place = make_place(speed=1)
    place.write(trials=6, walltime="2m")
    with open(place.folder / "site.yaml", "a") as site:
        site.write("cpu_limit: {warn: 0.4s, kill: 1s}\n")
    place("submit", "--site", "site.yaml")
    place.lsf.wait_for(
        lambda: (place.study.path / "chain.json").exists() and place.status()["chain"]["jobs"],
        "a job that steers",
        seconds=90,
    )
    place.wait_until_empty()
    log = place("logs")
    assert "so it ends in order at" in log and "goes on with it" in log
    found = place.status()
    assert (found["state"], found["trials"]["completed"]) == ("done", 6)


def test_that_steering_killed_on_the_login_node_is_taken_over_and_leaves_no_job(
    make_place: Callable[..., Place],
) -> None:
    place = make_place(speed=6)  # blocks ask for a minute and are killed after ten seconds
    place.write(trials=40, walltime="1m", steps=40)
    place("submit", "--site", "site.yaml", "--steer", "login")
    place.wait_for_trials(3)
    first = json.loads(place.study.holder.read_text())["pid"]
    os.kill(first, signal.SIGKILL)
    said = place("submit", "--site", "site.yaml")
    assert f"taken over from process {first}" in said
    place("logs", "-f")
    jobs = place.wait_until_empty()
    found = place.status()
    assert (found["state"], found["trials"]["completed"]) == ("done", 40)
    assert found["trials"]["failed"] == 0 and found["runs"] == 2
    assert len([job for job in jobs if job["started"] is not None]) >= 3, "a chain of blocks"
