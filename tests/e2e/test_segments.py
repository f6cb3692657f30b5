"""Studies of many segments through the command line."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections import Counter, defaultdict

import pytest

from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import read_events, replay
from hpc_hpo.prestage.lock import PrestageLock
from hpc_hpo.prestage.manifest import Manifest, load_manifest
from hpc_hpo.prestage.staging import stage
from hpc_hpo.study import load_study
from tests.e2e.conftest import wait_until

STUDY = """
name: many
objective: objective.py:train
space: {x: {float: [0.0, 1.0]}}
optimizer: sobol
budget: {trials: TRIALS}
segments: {table: {pid: [22, 11, 211], eta: 0..4}, name: "pid{pid}_eta{eta}"}
inputs:
  - {name: shared, source: shared.txt}
  - {name: data, source: "data/{segment.pid}_{segment.eta}.txt", mode: copy}
blocks: {workers_per_node: 2, walltime: 60s}
"""
OBJECTIVE = """
import time
from pathlib import Path

def train(config, trial):
    time.sleep(PAUSE)
    values = trial.segment.values
    data = Path(trial.inputs["data"]).read_text().split()
    assert data == [trial.segment.name, str(values["pid"]), str(values["eta"])], data
    assert Path(trial.inputs["shared"]).read_text() == "shared"
    return (config["x"] - 0.1 * values["eta"]) ** 2
"""


@pytest.fixture
def many(workshop):
    """A study of 15 segments whose data name their segment."""

    def write(trials=3, pause=0.0):
        workshop.study.write_text(STUDY.replace("TRIALS", str(trials)))
        (workshop.folder / "objective.py").write_text(OBJECTIVE.replace("PAUSE", str(pause)))
        (workshop.folder / "shared.txt").write_text("shared")
        (workshop.folder / "data").mkdir()
        for pid in (22, 11, 211):
            for eta in range(5):
                file = workshop.folder / "data" / f"{pid}_{eta}.txt"
                file.write_text(f"pid{pid}_eta{eta} {pid} {eta}")

    workshop.write_many = write
    return workshop


def state_of(workshop):
    return replay(read_events(workshop.folder / "many" / "journal.jsonl"))


@pytest.mark.slow
def test_that_15_segments_end_with_15_best_points(many):
    many.write_many()
    code, output = many.call("run", "study.yaml")
    assert code == 0, output
    listed = json.loads(many.call("segment", "list", "many", "--json")[1])
    assert len(listed) == 15
    state = state_of(many)
    for row in listed:
        losses = [t.loss for t in state.trials.values() if t.segment == row["segment"]]
        assert row["state"] == "done" and len(losses) == 3
        assert row["best"]["loss"] == min(losses)
    status = json.loads(many.call("status", "--json", "many")[1])
    assert status["segments"]["done"] == 15 and status["trials"]["budget"] == 45
    table = many.call("export", "many", "--format", "csv", "-o", "-")[1]
    rows = list(csv.DictReader(table.split("\n")))
    assert Counter(row["segment"] for row in rows if row["rank"] == "1") == {
        row["segment"]: 1 for row in listed
    }


@pytest.mark.slow
def test_that_a_segment_whose_input_is_missing_or_broken_fails_alone_with_its_name(many):
    many.write_many(trials=2)
    (many.folder / "data" / "11_3.txt").unlink()
    many.call("prestage", "study.yaml")
    broken = many.folder / "many" / "inputs" / "segment-pid22_eta1" / "data" / "22_1.txt"
    # Torn, and not to be had again: otherwise `run` would mend what is local.
    broken.unlink()
    broken.write_text("torn")
    source = many.folder / "data" / "22_1.txt"
    source.rename(many.folder / "kept")
    code, output = many.call("run", "study.yaml")
    assert code == 9, output
    assert "segment pid11_eta3 cannot run: input data" in output
    state = state_of(many)
    done = Counter(t.segment for t in state.trials.values() if t.loss is not None)
    assert len(done) == 13 and set(done.values()) == {2}
    assert not {"pid11_eta3", "pid22_eta1"} & done.keys()
    status = json.loads(many.call("status", "--json", "many")[1])
    problems = status["segments"]["problems"]
    assert set(problems) == {"pid11_eta3", "pid22_eta1"}
    assert "11_3.txt" in problems["pid11_eta3"] and "22_1.txt" in problems["pid22_eta1"]
    assert "pid11_eta3" in many.call("status", "many")[1]
    # Once they are mended, the same command goes on with these two alone.
    (many.folder / "data" / "11_3.txt").write_text("pid11_eta3 11 3")
    (many.folder / "kept").rename(source)
    assert many.call("prestage", "study.yaml")[0] == 0
    code, output = many.call("run", "study.yaml")
    assert code == 0, output
    done = Counter(t.segment for t in state_of(many).trials.values() if t.loss is not None)
    assert len(done) == 15 and set(done.values()) == {2}


@pytest.mark.slow
def test_that_killed_and_resumed_no_segment_repeats_a_point(many):
    many.write_many(trials=6, pause=0.1)
    journal = many.folder / "many" / "journal.jsonl"
    for least in (10, 35):
        process = many.start("run", "study.yaml")
        wait_until(
            lambda least=least: (
                journal.exists() and journal.read_bytes().count(b'"state":"completed"') >= least
            ),
            60,
        )
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    code, output = many.call("run", "study.yaml")
    assert code == 0, output
    points = defaultdict(list)
    for trial in state_of(many).trials.values():
        assert trial.loss is not None
        points[trial.segment].append(trial.point["x"])
    assert len(points) == 15
    for found in points.values():
        assert len(found) == 6 == len(set(found))


@pytest.mark.slow
def test_that_trials_of_one_segment_finish_before_the_inputs_of_another_are_staged(many):
    many.write_many(trials=2)
    study, folder = load_study(many.study), StudyFolder(many.folder / "many")
    folder.make()
    whole = stage(study, folder)
    early = ("pid22_eta0", "pid211_eta4")
    # As a prestage leaves it when it has brought two segments' inputs and goes on.
    lock = PrestageLock(folder)
    lock.acquire()
    Manifest(
        [f for f in whole.files if f.segment in (None, *early)], whole.paths,
        {name: whole.segments[name] for name in early},
    ).save(folder)  # fmt: skip
    process = many.start("run", "study.yaml")
    wait_until(
        lambda: (
            folder.journal.exists()
            and folder.journal.read_bytes().count(b'"state":"completed"') >= 4
        ),
        60,
    )
    time.sleep(1.5)  # more than a look at the manifest
    assert process.poll() is None, "it waits for the others"
    assert Counter(t.segment for t in state_of(many).trials.values()) == dict.fromkeys(early, 2)
    whole.save(folder)
    lock.release()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert set(Counter(t.segment for t in state_of(many).trials.values()).values()) == {2}


@pytest.mark.slow
def test_that_segments_are_changed_while_the_study_runs(many):
    many.write_many(trials=10, pause=1.0)
    many.study.write_text(
        many.study.read_text()
        .replace("pid: [22, 11, 211], eta: 0..4", "pid: [22], eta: 0..2")
        .replace("sobol", "random")
    )
    journal = many.folder / "many" / "journal.jsonl"
    process = many.start("run", "study.yaml", "--plain")
    wait_until(lambda: journal.exists() and b'"e":"end"' in journal.read_bytes(), 60)
    assert many.call("segment", "stop", "many", "pid22_eta2")[0] == 0
    values = ("--value", "pid=11", "--value", "eta=0")
    said = many.call("segment", "add", "many", "pid11_eta0", *values)
    assert said[0] == 0 and "heeds it" in said[1], said
    assert many.call("segment", "budget", "many", "pid22_eta0", "12")[0] == 0
    code, said = many.call("segment", "stop", "many", "pid22_eta7")
    assert code == 2 and "no such segment; found 'pid22_eta7'" in said
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    records = state_of(many).segments
    assert records["pid11_eta0"].completed == 10, output
    assert records["pid22_eta0"].completed == 12
    assert records["pid22_eta2"].stopped and records["pid22_eta2"].asked < 10
    assert load_manifest(StudyFolder(many.folder / "many")).segments["pid11_eta0"]
    # Prestaging again knows of the segment that stands in no file.
    assert many.call("prestage", "study.yaml")[0] == 0
    assert load_manifest(StudyFolder(many.folder / "many")).segments["pid11_eta0"]
    # It is heeded when nobody runs, too; and one is added in the file.
    assert "next runs" in many.call("segment", "rerun", "many", "pid22_eta1")[1]
    many.study.write_text(many.study.read_text().replace("0..2", "0..3"))
    (many.folder / "objective.py").write_text(OBJECTIVE.replace("PAUSE", "0"))
    code, output = many.call("run", "study.yaml")
    assert code == 0, output
    records = state_of(many).segments
    assert (records["pid22_eta1"].round, records["pid22_eta1"].completed) == (1, 10)
    assert records["pid22_eta3"].completed == 10


COMMAND = """
name: many
command: [sh, -c, 'test "$HPC_HPO_SEGMENT$HPC_HPO_SEGMENT_PID" = "$1$2" && cat "$3"', sh,
          "%SEGMENT_NAME", "{segment.pid}", "{inputs.data}"]
loss: {stdout: "loss=(.*)"}
space: {x: {float: [0.0, 1.0]}}
budget: {trials: 1}
segments:
  list:
    - {name: A, values: {pid: 22}, inputs: [{name: data, source: data/a}]}
    - {name: B, values: {pid: 11}, inputs: [{name: data, source: data/b}]}
  changes: [{where: name == "A", budget: {trials: 2}}]
"""


def test_that_a_command_is_told_of_its_segment(workshop):
    (workshop.folder / "data").mkdir()
    workshop.study.write_text(COMMAND)
    (workshop.folder / "data" / "a").write_text("loss=0.5\n")
    (workshop.folder / "data" / "b").write_text("loss=0.25\n")
    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    found = [(t.segment, t.loss) for t in state_of(workshop).trials.values()]
    assert sorted(found) == [("A", 0.5), ("A", 0.5), ("B", 0.25)]
