"""What an objective is told, under a clock that tests move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpc_hpo.errors import CheckpointError
from hpc_hpo.worker.checkpoint import Store, verify
from hpc_hpo.worker.context import TrialContext
from hpc_hpo.worker.node import Node, Stop, Watch


class ManualClock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def cpu(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def context(folder: Path, clock: ManualClock, slice_: int = 1, **facts: Any) -> TrialContext:
    store = Store(folder, slice_, [], 2, clock)
    facts = {"restored": None, "margin_s": 1.0, **facts}
    return TrialContext(id=7, seed=1, inputs={"data": "/d"}, store=store, clock=clock, **facts)


def test_that_without_a_deadline_there_is_no_end(tmp_path: Path, clock: ManualClock) -> None:
    trial = context(tmp_path, clock)
    clock.sleep(1e9)
    assert trial.deadline is None
    assert trial.time_left() == float("inf")
    assert not trial.should_stop()


def test_that_it_stops_the_margin_before_the_deadline(tmp_path: Path, clock: ManualClock) -> None:
    trial = context(tmp_path, clock, deadline=1010.0, margin_s=2.0)
    clock.time = 1007.9
    assert not trial.should_stop()
    clock.time = 1008.0
    assert trial.time_left() == 2.0
    assert trial.should_stop()
    assert trial.stop_reason == "walltime"


def test_that_slow_steps_widen_the_margin(tmp_path: Path, clock: ManualClock) -> None:
    trial = context(tmp_path, clock, deadline=1030.0)
    for expected in (False, False, True):
        assert trial.should_stop() is expected
        clock.sleep(10.0)  # at 1020, ten seconds more would end on the deadline
    assert trial.pace["step_s"] == 10.0


def test_that_slow_checkpoints_widen_the_margin_and_are_no_step(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "hpc_hpo.worker.checkpoint._seal_folder", lambda folder, meta: clock.sleep(8.0)
    )
    trial = context(tmp_path, clock, deadline=1040.0)
    assert not trial.should_stop()
    clock.sleep(2.0)
    trial.checkpoint({})
    clock.sleep(2.0)
    assert not trial.should_stop()
    assert trial.pace == {"step_s": 4.0, "checkpoint_s": 8.0, "first_checkpoint_s": 10.0}
    clock.time = 1024.8  # a step of 12.8 s and a checkpoint of 8 s more would be too late
    assert trial.should_stop()


def test_that_a_rung_stops_once_its_step_is_reported(tmp_path: Path, clock: ManualClock) -> None:
    trial = context(tmp_path, clock, stop_step=3)
    trial.report(2, loss=0.5)
    assert not trial.should_stop()
    trial.report(3, loss=0.4)
    assert trial.should_stop()
    assert trial.stop_reason == "rung"


def test_that_a_stop_request_holds_and_brings_its_deadline(
    tmp_path: Path, clock: ManualClock
) -> None:
    requests = [Stop("preempted", 1005.0), None]
    trial = context(tmp_path, clock, deadline=2000.0, poll=lambda: requests.pop(0))
    assert trial.should_stop()
    assert trial.should_stop(), "it stays true"
    assert trial.stop_reason == "preempted"
    assert trial.time_left() == 5.0


def test_that_a_checkpoint_is_due_after_its_interval(tmp_path: Path, clock: ManualClock) -> None:
    trial = context(tmp_path, clock, checkpoint_every_s=60.0)
    clock.sleep(59)
    assert not trial.should_checkpoint()
    clock.sleep(1)
    assert trial.should_checkpoint()
    trial.checkpoint({"epoch": 1})
    assert not trial.should_checkpoint()
    clock.sleep(60)
    assert trial.should_checkpoint()


def test_that_a_checkpoint_is_due_when_it_has_to_stop(tmp_path: Path, clock: ManualClock) -> None:
    trial = context(tmp_path, clock, deadline=1010.0)
    clock.time = 1009.5
    assert trial.should_checkpoint()


def test_that_metrics_become_plain_numbers(tmp_path: Path, clock: ManualClock) -> None:
    trial = context(tmp_path, clock)
    trial.report(np.int64(1), a=np.float32(0.5), b=np.int16(3), c=np.array(2.0), d=True)
    assert trial.reports == {1: {"a": 0.5, "b": 3, "c": 2.0, "d": 1}}
    assert [type(v) for v in trial.reports[1].values()] == [float, int, float, int]


@pytest.mark.parametrize("value", ["0.5", None, [1.0, 2.0], 1j])
def test_that_a_metric_that_is_no_number_is_refused(
    tmp_path: Path, clock: ManualClock, value: Any
) -> None:
    with pytest.raises(TypeError, match=r"accuracy=.* is not a number"):
        context(tmp_path, clock).report(1, accuracy=value)


def test_that_reports_come_back_with_the_state(tmp_path: Path, clock: ManualClock) -> None:
    first = context(tmp_path, clock)
    first.report(1, loss=0.9)
    first.checkpoint({"epoch": 1, "w": np.ones(2)})
    saved = verify(tmp_path / "ckpt-000001-000001")
    second = context(tmp_path, clock, slice_=2, restored=saved)
    assert second.reports == {}, "an objective that does not restore begins anew"
    state = second.restore()
    assert state is not None and state["epoch"] == 1
    assert second.restored_files() is None
    assert second.reports == {1: {"loss": 0.9}}


def test_that_files_and_folders_of_a_framework_come_back(
    tmp_path: Path, clock: ManualClock
) -> None:
    work = tmp_path / "work"
    (work / "saved_model" / "variables").mkdir(parents=True)
    (work / "saved_model" / "variables" / "data").write_text("weights")
    (work / "log.txt").write_text("log")
    context(tmp_path, clock).checkpoint_file(work / "saved_model", str(work / "log.txt"))
    saved = verify(tmp_path / "ckpt-000001-000001")
    trial = context(tmp_path, clock, slice_=2, restored=saved)
    folder = trial.restored_files()
    assert folder is not None
    assert (folder / "saved_model" / "variables" / "data").read_text() == "weights"
    assert (folder / "log.txt").read_text() == "log"
    assert trial.restore() is None


def test_that_state_and_files_can_be_one_checkpoint(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "a").write_text("a")
    context(tmp_path, clock).checkpoint({"epoch": 3}, files=(tmp_path / "a",))
    saved = verify(tmp_path / "ckpt-000001-000001")
    trial = context(tmp_path, clock, slice_=2, restored=saved)
    assert trial.restore() == {"epoch": 3}
    assert trial.restored_files() is not None


def test_that_files_that_cannot_be_saved_are_named(tmp_path: Path, clock: ManualClock) -> None:
    trial = context(tmp_path / "trial", clock)
    with pytest.raises(CheckpointError, match=r"nothing\.pt"):
        trial.checkpoint_file(tmp_path / "nothing.pt")
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "model").write_text("x")
    with pytest.raises(CheckpointError, match="two files"):
        trial.checkpoint_file(tmp_path / "a" / "model", tmp_path / "b" / "model")
    with pytest.raises(CheckpointError, match="no path"):
        trial.checkpoint_file()
    assert list((tmp_path / "trial").iterdir()) == []


def test_that_a_trial_that_saves_nothing_makes_no_folder(
    tmp_path: Path, clock: ManualClock
) -> None:
    trial = context(tmp_path / "000007", clock)
    trial.report(1, loss=1.0)
    trial.should_stop()
    assert not (tmp_path / "000007").exists()
    assert trial.folder.is_dir()


def watch(clock: ManualClock, notice: Path, end: float | None = None, **facts: Any) -> Watch:
    return Watch(Node("0", "0", "h", 1, block_end=end, notice=notice), clock, **facts)


def test_that_a_notice_is_seen_and_may_be_tightened(tmp_path: Path, clock: ManualClock) -> None:
    notice = tmp_path / "notice.json"
    seen = watch(clock, notice, end=5000.0)
    assert seen.look() is None
    notice.write_text('{"deadline": 1100.0, "reason": "stop"}')
    assert seen.look() is None, "looked for at most five times a second"
    clock.sleep(0.2)
    assert seen.look() == Stop("stop", 1100.0)
    notice.write_text('{"deadline": 1050.0, "reason": "preempted"}')
    clock.sleep(0.2)
    assert seen.look() == Stop("stop", 1050.0)
    notice.write_text('{"deadline": 1060.0')  # half of one
    clock.sleep(0.2)
    assert seen.look() == Stop("stop", 1050.0)


def test_that_a_worker_told_to_end_leaves_less_than_a_second(
    tmp_path: Path, clock: ManualClock
) -> None:
    told = watch(clock, tmp_path / "none", end=5000.0, told_to_end=lambda: True)
    stop = told.look()
    assert stop is not None and stop.deadline == pytest.approx(1000.8)
    clock.sleep(0.5)
    assert told.look() == stop, "the deadline does not move on"


def test_that_a_term_to_all_processes_leaves_as_long_as_the_supervisor_says(
    tmp_path: Path, clock: ManualClock
) -> None:
    notice = tmp_path / "notice.json"
    told = watch(clock, notice, end=5000.0, told_to_end=lambda: True)
    assert told.look() == Stop("stop", pytest.approx(1000.8))
    notice.write_text('{"deadline": 1007.5, "reason": "preempted"}')
    clock.sleep(0.2)
    assert told.look() == Stop("stop", 1007.5)


def test_that_a_term_after_a_notice_changes_nothing(tmp_path: Path, clock: ManualClock) -> None:
    notice = tmp_path / "notice.json"
    notice.write_text('{"deadline": 1007.5, "reason": "preempted"}')
    told = watch(clock, notice, end=5000.0, told_to_end=lambda: True)
    assert told.look() == Stop("preempted", 1007.5)


def test_that_the_environment_of_a_block_is_read() -> None:
    node = Node.from_env(
        {
            "HPC_HPO_BLOCK": "b3",
            "HPC_HPO_BLOCK_END": "1234.5",
            "HPC_HPO_NOTICE": "/tmp/n",
            "PARSL_WORKER_RANK": "2",
        }
    )
    assert (node.block, node.worker, node.block_end) == ("b3", "2", 1234.5)
    assert node.stem(4).startswith("r4-bb3-w2-")
    assert Node.from_env({}).block_end is None
