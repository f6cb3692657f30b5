"""How the pilot looks after blocks, with an engine and a scheduler of the test's own."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from itertools import pairwise

import pytest

from hpc_hpo.errors import PilotError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import SealedWriter, from_json, seal, to_json
from hpc_hpo.pilot.blocks import JobSeen
from hpc_hpo.pilot.parsl_pilot import ParslPilot


class Refusal(PilotError):
    def __init__(self, transient):
        self.transient = transient
        super().__init__("bsub says no")


class Engine:
    """Stands for the executor, its provider and the source of blocks."""

    nodes, workers_per_node, max_blocks, walltime_s, look_s = 1, 2, 1, 100.0, 1.0

    def __init__(self):
        self.blocks_from = self
        self.refusals = []
        self.launched, self.cancelled, self.held = [], [], []
        self.seen: dict[str, JobSeen] = {}
        self.managers: list[dict] = []
        self.answers: dict[tuple[int, int], Future] = {}
        self.free_room = 100

    # the source of blocks
    def executor(self, folder, run):
        return self

    def states(self, executor, jobs, hurry):
        return self.seen

    def room(self, wanted, waiting, running):
        return max(0, min(wanted, self.free_room - waiting - running))

    def script_folder(self, folder):
        return folder

    def complaint(self, executor, job):
        return "its output"

    # the executor
    def prepare(self, run_dir, scripts, run_id):
        pass

    def start(self):
        pass

    def shutdown(self):
        pass

    def interchange_alive(self):
        return True

    def connected_managers(self):
        return self.managers

    def hold_block(self, block):
        self.held.append(block)

    def submit_slice(self, request, priority, needs_s, shape):
        request = from_json(request)
        answer = self.answers[request["trial"], request["slice"]] = Future()
        return answer

    def launch_block(self):
        if self.refusals:
            raise self.refusals.pop(0)
        self.launched.append(f"job{len(self.launched)}")
        return str(len(self.launched) - 1), self.launched[-1]

    def cancel(self, jobs):
        self.cancelled += jobs
        return [True] * len(jobs)


class Scene:
    """A pilot one second of whose time passes with each look."""

    def __init__(self, folder):
        self.folder = StudyFolder(folder)
        self.folder.make()
        self.engine = Engine()
        self.time = 1000.0
        self.pilot = ParslPilot(self.folder, self.engine, now=lambda: self.time)
        self.pilot.start(1)
        self.events = []

    def look(self, demand=2):
        self.time += 1.0
        self.pilot.want(demand)
        self.events += self.pilot.poll()

    def blocks(self):
        """State and reason of each block by its last event."""
        last = {}
        for event in self.events:
            if event["e"] == "block":
                last[event["block"]] = (event["state"], event.get("reason"))
        return last

    def write(self, name, **record):
        SealedWriter(self.folder.spool / name).append(seal({"run": 1, **record}))

    def node(self, event, block, **facts):
        facts = {"workers": 2, "deadline": self.time + 100, "reason": "preempted", **facts}
        self.write(f"block-r1-b{block}-h-1.jsonl", e=event, block=block, at=self.time, **facts)

    def connect(self, block):
        self.engine.managers.append(
            {"block_id": block, "active": True, "worker_count": 2, "tasks": 1}
        )

    def saw(self, job, state):
        """The scheduler says so, a moment later."""
        self.time += 1.0
        self.engine.seen[job] = JobSeen(state, self.time)

    def submit(self, trial, slice_=1):
        request = {"trial": trial, "slice": slice_, "needs_s": 0.0}
        return self.pilot.submit(request, 1)

    def start_block(self):
        """One block, running and connected, with slice 1 of trial 0 on it."""
        self.look()
        future = self.submit(0)
        self.node("node-start", "0")
        self.connect("0")
        self.look()
        self.write("r1-b0-w0-h-1.jsonl", e="start", trial=0, slice=1, at=self.time, block="0",
                   worker="0", host="h")  # fmt: skip
        return future


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path / "study")


def test_that_a_scheduler_that_is_down_is_tried_again_ever_later_and_said_once(scene, caplog):
    scene.engine.refusals = [Refusal(True) for _ in range(4)]
    with caplog.at_level(logging.WARNING):
        times = []
        while not scene.engine.launched:
            left = len(scene.engine.refusals)
            scene.look()
            if len(scene.engine.refusals) < left or scene.engine.launched:
                times.append(scene.time)
    assert [b - a for a, b in pairwise(times)] == [5, 10, 20, 40]
    assert [r.message.splitlines()[0] for r in caplog.records] == [
        "bsub says no", "the scheduler takes blocks again",
    ]  # fmt: skip


def test_that_a_refusal_that_stays_ends_the_run_after_the_third(scene):
    scene.engine.refusals = [Refusal(False) for _ in range(3)]
    with pytest.raises(PilotError, match="bsub says no"):
        for _ in range(60):
            scene.look()
    assert not scene.engine.refusals


def test_that_an_outage_of_a_day_ends_the_run(scene):
    scene.engine.refusals = [Refusal(True) for _ in range(10_000)]
    with pytest.raises(PilotError):
        for _ in range(24 * 60):
            scene.time += 60.0
            scene.look()


def test_that_a_refusal_ends_nothing_while_a_block_runs(scene):
    scene.start_block()
    scene.engine.refusals = [Refusal(False) for _ in range(4)]
    scene.engine.max_blocks = 2
    for _ in range(60):
        scene.look(demand=4)
    assert len(scene.engine.refusals) < 2
    assert scene.blocks()["1.0"][0] == "running"


def test_that_the_queue_s_limit_is_never_passed(scene):
    scene.engine.max_blocks, scene.engine.free_room = 9, 2
    for _ in range(5):
        scene.look(demand=100)
    assert len(scene.engine.launched) == 2


def test_that_a_requeued_job_is_a_new_block_and_its_slices_are_settled(scene):
    future = scene.start_block()
    scene.saw("job0", "waiting")
    scene.look()
    assert scene.blocks() == {"1.0": ("ended", "requeued"), "1.0.1": ("requested", None)}
    assert future.result(0)["end"] == "lost"
    scene.node("node-start", "0.1")
    scene.look()
    assert scene.blocks()["1.0.1"][0] == "running"
    assert scene.engine.launched == ["job0"], "no other block is needed"


def test_that_a_reply_from_before_the_start_does_not_mean_a_requeue(scene):
    scene.look()
    scene.saw("job0", "waiting")
    scene.time += 1.0
    scene.node("node-start", "0")
    scene.connect("0")
    scene.look()
    scene.look()
    assert scene.blocks() == {"1.0": ("running", None)}


def test_that_a_job_that_begins_again_unseen_is_taken_up_by_its_nodes_word(scene):
    scene.start_block()
    scene.node("node-start", "0.2")
    scene.look()
    assert scene.blocks() == {"1.0": ("ended", "requeued"), "1.0.2": ("running", None)}


def test_that_a_block_cut_short_is_replaced_once_its_job_is_known_to_be_gone(scene):
    scene.start_block()
    scene.node("node-end", "0")
    scene.engine.managers.clear()
    scene.look()
    assert scene.blocks()["1.0"] == ("ended", "preempted")
    assert scene.engine.launched == ["job0"], "it may be in the queue again"
    scene.saw("job0", "gone")
    scene.look()
    scene.look()
    assert scene.engine.launched == ["job0", "job1"]


def test_that_a_block_of_two_nodes_goes_on_with_one(scene):
    scene.engine.nodes = 2
    scene.look()
    for host in ("a", "b"):
        scene.write(f"block-r1-b0-{host}-1.jsonl", e="node-start", block="0", at=scene.time,
                    workers=2, deadline=scene.time + 100)  # fmt: skip
    scene.connect("0")
    scene.look()
    scene.write("block-r1-b0-a-1.jsonl", e="node-end", block="0", at=scene.time, reason="died")
    scene.look()
    assert scene.blocks() == {"1.0": ("running", None)}


def test_that_an_orphan_gets_no_more_slices_and_its_late_outcome_is_refused(scene):
    future = scene.start_block()
    scene.saw("job0", "gone")
    scene.look()
    assert future.result(0)["end"] == "lost"
    scene.look()
    scene.look()
    assert scene.engine.held == ["0"]
    late = {"run": 1, "trial": 0, "slice": 1, "end": "fenced", "reports": []}
    scene.engine.answers[0, 1].set_result(to_json(late).encode())
    scene.look()
    refused = [e["outcome"] for e in scene.events if e["e"] == "refused"]
    assert refused == [{"run": 1, "trial": 0, "slice": 1, "end": "fenced"}]


def test_that_the_jobs_of_a_dead_run_are_cancelled_at_the_start(tmp_path):
    folder = StudyFolder(tmp_path / "study")
    folder.make()
    engine = Engine()
    ParslPilot(folder, engine, leftovers=["7", "8"]).start(2)
    assert engine.cancelled == ["7", "8"]


def test_that_stopping_cancels_what_waits_and_what_runs(scene):
    scene.engine.max_blocks = 2
    scene.start_block()
    scene.look(demand=4)
    scene.look(demand=4)
    scene.node("node-end", "0", reason="stopped")
    events = scene.pilot.stop()
    assert set(scene.engine.cancelled) == {"job0", "job1"}
    assert {e["block"] for e in events if e.get("state") == "ended"} == {"1.0", "1.1"}


def test_that_a_block_nobody_has_looked_at_while_it_ran_has_its_start(scene):
    scene.look()
    scene.node("node-start", "0")
    scene.node("node-end", "0", reason="released")
    events = [e for e in scene.pilot.stop() if e["e"] == "block"]
    assert [(e["state"], e.get("workers")) for e in events] == [("running", 2), ("ended", None)]
    assert events[0]["started"] == 1001.0


def test_that_workers_which_just_came_up_are_waited_for_when_all_are_to_pause(
    scene,
):
    scene.look()
    scene.submit(0)
    scene.node("node-start", "0")
    scene.connect("0")
    # At once, long before the next look is due.
    scene.pilot.pause_all()
    scene.pilot.poll()
    assert scene.pilot.capacity().connected == 2
