"""Freezing, adopting and refusing: what happens before the first new point is asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpc_hpo.cli.main import cli
from hpc_hpo.fsio import SealedWriter, seal
from hpc_hpo.journal import read_events, replay
from hpc_hpo.launch import SteeringRun, open_study, site_of
from hpc_hpo.pilot.inline import InlinePilot

STUDY = """
name: small
objective: objective.py:train
space: {x: {float: [0, 1]}}
optimizer: random
budget: {trials: 5}
inputs: [{name: data, source: data.txt}]
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "objective.py").write_text("def train(config, trial):\n    return config['x']\n")
    (tmp_path / "data.txt").write_text("1 2 3\n")
    return tmp_path


def hpc_hpo(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def completed(request):
    return {
        "run": request["run"], "trial": request["trial"], "slice": request["slice"],
        "end": "completed", "loss": request["point"]["x"], "started": 1.0, "ended": 2.0,
    }  # fmt: skip


def run_inline(place, execute=completed, **options):
    study, folder = open_study(place / "study.yaml")
    run = SteeringRun(study, site_of(study), folder)
    run.open()
    try:
        return run, run.steer(pilot=InlinePilot(execute, 2), **options)
    finally:
        run.close()


def test_that_a_run_stages_its_inputs_and_freezes_the_study(place):
    _, outcome = run_inline(place)
    assert outcome.exit_code == 0
    folder = place / "small"
    task = json.loads((folder / "task.json").read_text())
    assert Path(task["inputs"]["data"]).read_text() == "1 2 3\n"
    assert "frozen" in (folder / "study.yaml").read_text().splitlines()[0]
    assert not (folder / "holder.json").exists(), "the lock was given back"


def test_that_a_harmful_change_is_refused_with_the_difference(place):
    run_inline(place)
    (place / "study.yaml").write_text(STUDY.replace("[0, 1]", "[0, 2]"))
    result = hpc_hpo("run", place / "study.yaml")
    assert result.exit_code == 2
    assert "space.x.float" in result.output and "[0, 1] -> [0, 2]" in result.output
    assert len(replay(read_events(place / "small" / "journal.jsonl")).trials) == 5


def test_that_a_larger_budget_is_accepted_and_said(place):
    run_inline(place)
    (place / "study.yaml").write_text(STUDY.replace("trials: 5", "trials: 8"))
    run, outcome = run_inline(place)
    assert run.notes == ["changed since the last run: budget.trials: 5 -> 8"]
    assert outcome.state.trial_states["completed"] == 8


def test_that_a_study_prestaged_but_not_begun_may_still_be_changed(place):
    assert hpc_hpo("prestage", place / "study.yaml").exit_code == 0
    (place / "study.yaml").write_text(STUDY.replace("[0, 1]", "[0, 2]"))
    _, outcome = run_inline(place)
    assert outcome.exit_code == 0


def test_that_a_finished_study_starts_no_block(place):
    run_inline(place)
    _, outcome = run_inline(place, execute=None)
    assert outcome.reason == "budget"


def test_that_a_changed_input_is_refused_until_it_is_staged_again(place):
    run_inline(place)
    (place / "data.txt").write_text("4 5 6\n")
    os.utime(place / "data.txt", ns=(1, 1))
    result = hpc_hpo("run", place / "study.yaml")
    assert result.exit_code == 2
    assert "data.txt has changed" in result.output
    assert hpc_hpo("prestage", place / "study.yaml", "--verify").exit_code == 2
    result = hpc_hpo("prestage", place / "study.yaml")
    assert result.exit_code == 2, "its trials have used what it was"
    assert "data.txt has changed since it was staged" in result.output
    assert hpc_hpo("prestage", place / "study.yaml", "--update").exit_code == 0
    assert hpc_hpo("prestage", place / "study.yaml", "--verify").exit_code == 0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("data.txt", "nothing.txt", "inputs[0].source"),
        ("objective.py:train", "absent.py:train", "absent.py"),
        ("objective.py:train", "objective.py:tarin", "tarin"),
        ("objective: objective.py:train", "command: [no-such-program-here]", "no-such-program"),
        ("optimizer: random", "optimizer: randm", "random"),
        ("budget:", "trial: {gpus_per_rank: 2}\nbudget:", "a node of 0 GPUs"),
        ("budget:", "trial: {ranks: 4}\nbudget:", "trial.ranks"),
        ("budget:", "blocks: {nodes: 3}\nbudget:", "blocks.nodes"),
        ("budget:", "site: sumit\nbudget:", "sumit"),
        ("name: small", "name: small\nbugdet: 3", "budget"),
    ],
)
def test_that_bad_input_is_one_clear_error_and_leaves_nothing(place, old, new, words):
    text = STUDY.replace(old, new)
    (place / "study.yaml").write_text(text)
    for command in ("check", "run"):
        result = hpc_hpo(command, place / "study.yaml")
        assert result.exit_code == 2, result.output
        assert words in result.output
        assert "study.yaml:" in result.output
        assert "Traceback" not in result.output
    assert not (place / "small" / "journal.jsonl").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; see the next test")
def test_that_a_read_only_place_is_said(place):
    place.chmod(0o555)
    try:
        result = hpc_hpo("run", place / "study.yaml")
    finally:
        place.chmod(0o755)
    assert result.exit_code == 5
    assert "--dir" in result.output


def test_that_a_folder_that_cannot_be_made_is_said(place):
    (place / "small").write_text("a file where the study folder should be")
    result = hpc_hpo("run", place / "study.yaml", "--dir", place / "small" / "below")
    assert result.exit_code == 5
    assert "cannot be written" in result.output
    assert "Traceback" not in result.output


def leave_behind(place, lines):
    """A study whose steering process died with trials 0, 1 and 2 running on a block."""
    run_inline(place, stop=lambda: "now")
    folder = place / "small"
    events = list(read_events(folder / "journal.jsonl"))
    (folder / "journal.jsonl").unlink()
    writer = SealedWriter(folder / "journal.jsonl")
    kept = [e for e in events if e["e"] == "run"]
    kept.append(
        {
            "e": "block",
            "block": "1.0",
            "state": "running",
            "at": 5.0,
            "job": "9",
            "started": 5.0,
            "workers": 3,
            "deadline": 60.0,
        }
    )
    for number in range(3):
        kept.append({"e": "asked", "trial": number, "point": {"x": number / 10}, "at": 6.0})
        kept.append({"e": "submit", "trial": number, "slice": 1, "run": 1, "at": 6.0})
    writer.append(b"".join(seal(e) for e in kept))
    writer.close()
    spool = SealedWriter(folder / "spool" / "r1-b0-w0-host-1.jsonl")
    spool.append(b"".join(seal(line) for line in lines))
    spool.close()
    return folder


def test_that_a_new_run_adopts_what_workers_of_the_dead_one_finished(place):
    start = {"e": "start", "run": 1, "block": "0", "worker": "0", "host": "h", "slice": 1}
    end = {"e": "end", "run": 1, "block": "0", "worker": "0", "host": "h", "slice": 1}
    folder = leave_behind(
        place,
        [
            {**start, "trial": 0, "at": 7.0},
            {**end, "trial": 0, "end": "completed", "loss": 0.123, "started": 7.0, "ended": 9.0},
            {**start, "trial": 1, "at": 9.0},
        ],
    )
    ran = []

    def execute(request):
        ran.append((request["trial"], request["slice"]))
        return completed(request)

    _, outcome = run_inline(place, execute)
    state = outcome.state
    assert state.trials[0].loss == 0.123, "the finished one is kept"
    assert (1, 2) in ran, "the running one is lost and runs under a higher fencing number"
    assert (2, 2) in ran, "the one that never began is submitted again"
    assert all(trial != 0 for trial, _ in ran)
    ends = [s.end.value for s in state.trials[1].slices]
    assert ends == ["lost", "completed"]
    assert state.trials[1].losses == 0, "a dead steering process is not the trial's fault"
    assert state.trials[2].slices[0].end.value == "declined"
    assert state.blocks["1.0"].state == "ended"
    assert (folder / "control" / "stop-r1").read_text() == "leave"


def test_that_an_outcome_written_after_the_restart_is_refused(place):
    start = {"e": "start", "run": 1, "block": "0", "worker": "0", "host": "h", "slice": 1}
    folder = leave_behind(place, [{**start, "trial": 1, "at": 9.0}])
    late = {
        "e": "end",
        "run": 1,
        "block": "0",
        "worker": "0",
        "host": "h",
        "slice": 1,
        "trial": 1,
        "end": "completed",
        "loss": -99.0,
        "started": 9.0,
        "ended": 99.0,
    }

    def execute(request):
        if request["trial"] == 1:
            spool = SealedWriter(folder / "spool" / "r1-b0-w0-host-1.jsonl")
            spool.append(seal(late))
            spool.close()
        return completed(request)

    _, outcome = run_inline(place, execute)
    assert outcome.state.trials[1].loss == 0.1
    assert [(e["outcome"]["trial"], e["outcome"]["slice"]) for e in outcome.state.refused] == [
        (1, 1)
    ]


def can_mount():
    return os.geteuid() == 0 and shutil.which("unshare") is not None


@pytest.mark.skipif(not can_mount(), reason="needs root, to mount a small file system")
def test_that_a_really_full_disk_stops_the_study_and_room_lets_it_go_on(place, tmp_path):
    script = f"""
set -e
mkdir -p disk && mount -t tmpfs -o size=3m tmpfs disk
code=0
{sys.executable} -m hpc_hpo.cli.main run study.yaml --dir disk/study > first.txt 2>&1 &
pid=$!
until grep -qs '"state":"completed"' disk/study/journal.jsonl; do kill -0 $pid; sleep 0.05; done
dd if=/dev/zero of=disk/filler bs=4096 2>/dev/null || true
wait $pid || code=$?
echo $code > code.txt
rm -f disk/filler
{sys.executable} -m hpc_hpo.cli.main run study.yaml --dir disk/study > second.txt 2>&1
{sys.executable} -m hpc_hpo.cli.main export disk/study --format json -o - > result.json
umount disk  # fails while a process of the study still holds a file there
echo clean > clean.txt
"""
    (place / "objective.py").write_text(
        "import time\ndef train(config, trial):\n    time.sleep(0.1)\n    return config['x']\n"
    )
    (place / "study.yaml").write_text(
        STUDY.replace("trials: 5", "trials: 20000, wall_time: 15s").replace(
            "random\n", "random\nblocks: {workers_per_node: 8}\n"
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script], cwd=place, env=environment, timeout=110,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    first = (place / "first.txt").read_text()
    assert (place / "code.txt").read_text().strip() == "5", first + done.stderr
    assert "No space left on device" in first and "make room" in first
    assert "Traceback" not in first
    assert (place / "clean.txt").exists(), done.stderr
    result = json.loads((place / "result.json").read_text())
    losses = [t for t in result["trials"] if t["loss"] is not None]
    assert len({t["trial"] for t in losses}) == len(losses) > 0
    assert all(t["loss"] == t["point"]["x"] for t in losses)
