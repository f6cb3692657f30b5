"""Slices of Python objectives, in real runner processes."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.worker.bench import Bench, is_running, wait_for

RESUMABLE = """
def train(config, trial):
    state = trial.restore() or {"epoch": 0, "seen": []}
    seen = state["seen"] + [trial.slice]
    for epoch in range(state["epoch"] + 1, 7):
        trial.report(epoch, loss=1.0 / epoch)
        trial.checkpoint({"epoch": epoch, "seen": seen})
        if trial.should_stop():
            return None
    return float(len(seen)) + config["x"]
"""


def test_that_a_number_completes_the_trial(bench: Bench) -> None:
    bench.objective("def train(config, trial): return config['x'] * 2")
    outcome = bench.run(worker=bench.worker(block="b5", worker="3", host="node9"))
    assert outcome["end"] == "completed"
    assert outcome["loss"] == 4.0
    facts = ("run", "trial", "slice", "block", "worker", "host")
    assert [outcome[f] for f in facts] == [1, 7, 1, "b5", "3", "node9"]
    assert outcome["started"] <= outcome["ended"]
    assert outcome["checkpoint"] is None and outcome["restored"] is None
    assert not (bench.dir / "trials").exists(), "no file for a trial that saves nothing"


def test_that_an_objective_may_leave_out_the_trial(bench: Bench) -> None:
    bench.objective("def train(config): return config['x']")
    assert bench.run()["loss"] == 2.0


def test_that_a_dict_gives_the_loss_and_the_last_step_s_metrics(bench: Bench) -> None:
    bench.objective(
        """
        def train(config, trial):
            trial.report(1, loss=0.9)
            trial.report(2, loss=0.8)
            return {"loss": 0.7, "accuracy": 0.95}
        """
    )
    outcome = bench.run()
    assert outcome["loss"] == 0.7
    assert outcome["reports"] == [[1, {"loss": 0.9}], [2, {"loss": 0.8, "accuracy": 0.95}]]


def test_that_only_reports_above_the_known_step_are_sent(bench: Bench) -> None:
    bench.objective(RESUMABLE)
    outcome = bench.run(known_step=4)
    assert [step for step, _ in outcome["reports"]] == [5, 6]


def test_that_a_paused_trial_goes_on_where_it_stopped(bench: Bench) -> None:
    bench.objective(RESUMABLE)
    paused = bench.run(stop_step=2)
    assert (paused["end"], paused["reason"]) == ("paused", "rung")
    assert paused["checkpoint"]["step"] == 2
    done = bench.run(slice=2, known_step=2)
    assert done["end"] == "completed"
    assert done["loss"] == 4.0, "two slices have run"
    assert done["restored"] == paused["checkpoint"]["name"]
    assert [step for step, _ in done["reports"]] == [3, 4, 5, 6]
    assert done["checkpoint"]["name"] == "ckpt-000002-000004"


def test_that_a_trial_goes_on_from_the_checkpoint_before_a_damaged_one(bench: Bench) -> None:
    bench.objective(RESUMABLE)
    paused = bench.run(stop_step=3)
    (bench.trial / paused["checkpoint"]["name"] / "state.h5").write_bytes(b"?")
    done = bench.run(slice=2)
    assert done["restored"] == "ckpt-000001-000002"
    assert done["end"] == "completed"
    name, start, end = done["log"]
    assert b"ckpt-000001-000003 is damaged" in (bench.dir / name).read_bytes()[start:end]


def test_that_a_deadline_pauses_a_slice_in_time(bench: Bench) -> None:
    bench.objective(
        """
        import time
        def train(config, trial):
            assert trial.restore() is None
            while not trial.should_stop():
                time.sleep(0.01)
            trial.checkpoint({"left": trial.time_left()})
        """
    )
    end = time.time() + 2.0
    outcome = bench.run(worker=bench.worker(block_end=end), margin_s=1.0)
    assert (outcome["end"], outcome["reason"]) == ("paused", "walltime")
    assert end - 1.0 < outcome["ended"] < end
    assert outcome["pace"]["step_s"] > 0
    assert outcome["pace"]["first_checkpoint_s"] >= outcome["pace"]["checkpoint_s"] > 0


def test_that_a_notice_pauses_a_slice_with_its_reason(bench: Bench) -> None:
    bench.objective(
        """
        import time
        def train(config, trial):
            (trial.folder / "begun").write_text("")
            while not trial.should_stop():
                time.sleep(0.01)
            assert trial.time_left() < 60
        """
    )

    def preempt() -> None:
        wait_for((bench.trial / "begun").exists)
        bench.notice.write_text('{"deadline": %r, "reason": "preempted"}' % (time.time() + 30))

    thread = threading.Thread(target=preempt)
    thread.start()
    outcome = bench.run()
    thread.join()
    assert (outcome["end"], outcome["reason"]) == ("paused", "preempted")
    name, start, end = outcome["log"]
    assert b"without any checkpoint" in (bench.dir / name).read_bytes()[start:end]


def test_that_sigusr1_asks_the_objective_to_stop(bench: Bench) -> None:
    bench.objective(
        """
        import os, signal
        def train(config, trial):
            assert not trial.should_stop()
            os.kill(os.getpid(), signal.SIGUSR1)
            assert trial.should_stop()
        """
    )
    outcome = bench.run()
    assert (outcome["end"], outcome["reason"]) == ("paused", "stop")


def test_that_the_runner_is_reused_unless_a_fresh_process_is_asked_for(bench: Bench) -> None:
    bench.objective("import os\ndef train(config, trial): return os.getpid()")
    worker = bench.worker()
    first, second = (bench.run(worker, trial=n)["loss"] for n in (1, 2))
    assert first == second
    bench.task["fresh_process"] = True
    bench.run(worker, trial=3)
    assert bench.run(worker, trial=4)["loss"] != first
    assert not is_running(int(first))


def test_that_a_change_of_the_variables_needs_a_new_runner(bench: Bench) -> None:
    bench.objective("import os\ndef train(config, trial): return float(os.environ['SOME'])")
    worker = bench.worker()
    for value in (1, 2):
        bench.task["env"] = {"SOME": str(value)}
        assert bench.run(worker, task=_other_task(bench, value))["loss"] == value


def _other_task(bench: Bench, number: int) -> str:
    bench.request()
    name = f"task-{number}.json"
    (bench.dir / name).write_bytes((bench.dir / "task.json").read_bytes())
    return name


def test_that_the_runner_ends_with_its_worker(bench: Bench) -> None:
    bench.objective("import os\ndef train(config, trial): return os.getpid()")
    worker = bench.worker()
    pid = int(bench.run(worker)["loss"])
    assert is_running(pid)
    worker.close()
    assert not is_running(pid)


def test_that_nothing_heavy_is_imported_before_the_user_s_code(bench: Bench) -> None:
    bench.objective(
        """
        import sys
        BEFORE = sorted(sys.modules)
        def train(config, trial):
            (trial.folder / "modules").write_text("\\n".join(BEFORE))
            return 0.0
        """
    )
    assert bench.run()["end"] == "completed"
    modules = set((bench.trial / "modules").read_text().split("\n"))
    heavy = {"skopt", "sklearn", "scipy", "numpy", "h5py", "pydantic", "yaml", "click", "rich"}
    assert not modules & (heavy | {"parsl", "dill", "optuna", "psutil"})


def test_that_output_in_any_script_reaches_the_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    bench.objective("def train(config, trial):\n    print('λ → 日本 \\ud800')\n    return 0.0")
    outcome = bench.run()
    name, start, end = outcome["log"]
    text = (bench.dir / name).read_bytes()[start:end].decode()
    assert text == "λ → 日本 \\ud800\n"


def test_that_each_slice_has_its_own_part_of_the_log(bench: Bench) -> None:
    bench.objective("def train(config, trial):\n    print(trial.id)\n    return 0.0")
    worker = bench.worker()
    for trial in (21, 22):
        name, start, end = bench.run(worker, trial=trial)["log"]
        assert (bench.dir / name).read_bytes()[start:end] == b"%d\n" % trial
    assert len(list((bench.dir / "logs").iterdir())) == 1


def test_that_a_full_disk_at_a_checkpoint_costs_no_attempt(bench: Bench) -> None:
    bench.objective(
        """
        import errno, os
        def full(*args):
            raise OSError(errno.ENOSPC, "No space left on device")
        def train(config, trial):
            os.fsync = full
            trial.checkpoint({})
        """
    )
    outcome = bench.run()
    assert outcome["end"] == "failed"
    assert outcome["error"]["transient"] is True
    assert bench.checkpoints() == []


def test_that_an_orphan_slice_is_fenced_even_when_it_completes(bench: Bench) -> None:
    bench.objective(
        """
        from pathlib import Path
        def train(config, trial):
            trial.checkpoint({"epoch": 1})
            (trial.folder / "fence-000002").write_text("")  # another node has taken over
            if config["x"] > 0:
                try:
                    trial.checkpoint({"epoch": 2})
                except Exception:
                    pass
            return 0.0
        """
    )
    for trial, x in ((7, 0), (8, 1)):
        outcome = bench.run(trial=trial, point={"x": x})
        assert (outcome["end"], outcome["loss"]) == ("fenced", None)
    assert bench.checkpoints() == ["ckpt-000001-000001"]


def test_that_inputs_seed_and_folder_are_given(bench: Bench) -> None:
    bench.task["inputs"] = {"data": "/data/d.npz"}
    bench.objective(
        """
        def train(config, trial):
            assert trial.inputs == {"data": "/data/d.npz"}
            assert (trial.id, trial.slice, trial.seed) == (7, 1, 11)
            assert trial.folder.name == "000007" and trial.deadline is None
            return 0.0
        """
    )
    assert bench.run()["end"] == "completed"


def test_that_a_forked_child_of_an_objective_does_not_steal_messages(bench: Bench) -> None:
    bench.objective(
        """
        import os
        def train(config, trial):
            pid = os.fork()
            if pid == 0:
                os._exit(0 if not trial.should_stop() else 1)
            return float(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert bench.run()["loss"] == 0.0


def test_that_a_loss_may_be_any_number_type(bench: Bench) -> None:
    bench.objective(
        "import numpy as np\ndef train(config, trial): return np.array(np.float32(0.5))"
    )
    outcome: dict[str, Any] = bench.run()
    assert type(outcome["loss"]) is float and math.isclose(outcome["loss"], 0.5)


def test_that_an_earlier_slice_s_temporary_files_are_cleaned(bench: Bench) -> None:
    bench.objective(RESUMABLE)
    bench.run(stop_step=1)
    leftover = bench.trial / ".ckpt-000001-000002.99.tmp"
    leftover.mkdir()
    bench.run(slice=2)
    assert not leftover.exists()
    assert Path(bench.trial / "fence-000002").exists()
