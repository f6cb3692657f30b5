"""Whole studies through the command line."""

from __future__ import annotations

import json
import signal

from hpc_hpo.journal import read_events, replay
from tests.e2e.conftest import wait_until


def state_of(folder):
    return replay(read_events(folder / "journal.jsonl"))


def test_that_trials_longer_than_a_block_finish_and_blocks_die_at_their_walltime(workshop):
    workshop.write(trials=2, steps=260, walltime="10s")
    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    state = state_of(workshop.folder / "sleepy")
    assert state.trial_states["completed"] == 2
    assert state.slice_ends["paused"] >= 2
    assert all(t.failures == 0 for t in state.trials.values())
    assert all(sorted(t.reports) == list(range(260)) for t in state.trials.values())
    assert len(state.blocks) >= 2
    for block in state.blocks.values():
        assert block.ended is not None and block.ended - block.started < 13
    status = json.loads(workshop.call("status", "--json", "sleepy")[1])
    assert status["state"] == "done"
    assert status["best"]["loss"] == min(t.loss for t in state.trials.values())
    assert 0 < status["utilisation"] <= 1


def test_that_ctrl_c_checkpoints_and_the_next_run_goes_on(workshop):
    workshop.write(trials=4, steps=60, walltime="60s", every="30s")
    journal = workshop.folder / "sleepy" / "journal.jsonl"
    process = workshop.start("run", "study.yaml")
    wait_until(lambda: journal.exists() and b'"state":"running"' in journal.read_bytes(), 30)
    spool = workshop.folder / "sleepy" / "spool"
    wait_until(lambda: any(spool.glob("r1-b0-*")), 30)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 3, output
    state = state_of(workshop.folder / "sleepy")
    assert state.slice_ends["paused"] == 2
    assert state.slice_ends["lost"] == 0
    assert {t.checkpoint is not None for t in state.trials.values() if t.slices} == {True}
    assert not workshop.processes("hpc_hpo.worker"), "no process is left behind"
    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    state = state_of(workshop.folder / "sleepy")
    assert all(sorted(t.reports) == list(range(60)) for t in state.trials.values())


def test_that_a_second_run_of_a_study_says_who_holds_it(workshop):
    workshop.write(trials=2, steps=200)
    first = workshop.start("run", "study.yaml")
    holder = workshop.folder / "sleepy" / "holder.json"
    wait_until(holder.exists, 30)
    code, output = workshop.call("run", "study.yaml")
    assert code == 4
    assert f"process {first.pid} on" in output
    assert workshop.call("stop", "sleepy", "--wait")[0] == 0
    assert first.wait(timeout=40) == 3


def test_that_a_command_study_with_checkpoint_files_crosses_blocks(workshop):
    (workshop.folder / "train.sh").write_text(
        "i=$(cat progress 2>/dev/null || echo 0)\n"
        "trap 'exit 0' USR1\n"
        "while [ $i -lt 70 ]; do i=$((i+1)); echo $i > progress.new; mv progress.new progress\n"
        "sleep 0.1; done\n"
        'printf \'{"loss": %s}\' "$1" > output.json\n'
    )
    workshop.study.write_text(
        "name: shell\ncommand: [bash, train.sh, '{x}']\nspace: {x: {float: [0, 1]}}\n"
        "optimizer: random\nbudget: {trials: 2}\ncheckpoint: {files: [progress], every: 0.5s}\n"
        "blocks: {workers_per_node: 2, walltime: 6s}\n"
    )
    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    state = state_of(workshop.folder / "shell")
    assert state.slice_ends["paused"] >= 2
    assert all(t.loss == t.point["x"] for t in state.trials.values())


def test_that_a_folder_with_spaces_and_quotes_works(workshop):
    workshop.folder = workshop.folder / "it's a $(folder) {x}"
    workshop.folder.mkdir()
    workshop.study = workshop.folder / "study.yaml"
    workshop.write(trials=2, steps=2)
    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    assert state_of(workshop.folder / "sleepy").trial_states["completed"] == 2


def test_that_each_trial_sees_only_its_own_gpus(workshop):
    (workshop.folder / "gpus.yaml").write_text("extends: local\nname: gpus\nnode: {gpus: 4}\n")
    (workshop.folder / "objective.py").write_text(
        "import os, time\n"
        "def train(config):\n"
        "    time.sleep(0.5)\n"
        "    first, second = os.environ['CUDA_VISIBLE_DEVICES'].split(',')\n"
        "    return int(first) + 10 * int(second)\n"
    )
    workshop.study.write_text(
        "name: gpu\nobjective: objective.py:train\nspace: {x: {float: [0, 1]}}\n"
        "optimizer: random\nbudget: {trials: 6}\nsite: gpus.yaml\n"
        "trial: {gpus_per_rank: 2}\nblocks: {workers_per_node: 2}\n"
    )
    code, output = workshop.call("run", "study.yaml")
    assert code == 0, output
    losses = {t.loss for t in state_of(workshop.folder / "gpu").trials.values()}
    assert losses == {0 + 10 * 1, 2 + 10 * 3}
