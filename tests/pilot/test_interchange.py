"""Slices go only to blocks that last long enough, in order of priority."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time

from parsl.executors.high_throughput.manager_selector import BlockIdManagerSelector
from sortedcontainers import SortedList

from hpc_hpo.model import Shape
from hpc_hpo.pilot.desk import Desk
from hpc_hpo.pilot.interchange import MORE, REST, MatchingInterchange
from tests.e2e.conftest import wait_until


class Socket:
    def __init__(self):
        self.sent = []

    def send_multipart(self, parts):
        manager, tasks = parts
        self.sent.append((manager, [t["task_id"] for t in pickle.loads(tasks)]))


def interchange(tasks, managers):
    """An interchange without its network: queue and managers as Parsl keeps them."""
    made = MatchingInterchange.__new__(MatchingInterchange)
    made.manager_sock, made.count = Socket(), 0
    made.manager_selector = BlockIdManagerSelector()
    made.pending_task_queue = SortedList(key=lambda entry: (entry[0], entry[1]))
    for number, (priority, needs) in enumerate(tasks, 1):
        spec = {"priority": priority, "needs_s": needs, "shape": Shape().spec()}
        message = {"task_id": number, "context": {"resource_spec": spec}, "buffer": b"{}"}
        made.pending_task_queue.add((-priority, -number, message))
    made._ready_managers = {
        name: {
            "block_id": name.decode(), "tasks": [], "max_capacity": room, "active": True,
            "draining": False, "hostname": "node1", "drain_time": time.time() + left,
            "idle_since": 0.0,
        }
        for name, (room, left) in managers.items()
    }  # fmt: skip
    made.desk = Desk({"cores": 8}, time.time)
    return made


def test_that_a_slice_waits_for_a_block_that_lasts_long_enough():
    made = interchange([(0, 100.0)], {b"short": (1, 50.0)})
    interesting = {b"short"}
    made.process_tasks_to_send(interesting, None)
    assert made.manager_sock.sent == []
    assert interesting == {b"short"}, "the next slice may fit"
    made._ready_managers[b"long"] = {
        **made._ready_managers[b"short"],
        "block_id": "long",
        "tasks": [],
        "drain_time": time.time() + 500.0,
    }
    interesting.add(b"long")
    made.process_tasks_to_send(interesting, None)
    assert made.manager_sock.sent == [(b"long", [1])]
    assert interesting == {b"short"}, "the one without room is not looked at again"


def test_that_the_rest_of_a_block_goes_to_the_slices_that_fit():
    made = interchange([(0, 100.0), (1, 20.0), (1, 30.0), (1, 60.0)], {b"b": (2, 50.0)})
    made.process_tasks_to_send({b"b"}, None)
    assert made.manager_sock.sent == [(b"b", [2, 3])]
    assert [entry[-1]["task_id"] for entry in reversed(made.pending_task_queue)] == [1, 4]


def test_that_priority_goes_first_and_then_the_order_of_submission():
    made = interchange([(1, 0.0), (1, 0.0), (0, 0.0)], {b"b": (3, 50.0)})
    made.process_tasks_to_send({b"b"}, None)
    assert made.manager_sock.sent == [(b"b", [3, 1, 2])]


def test_that_a_draining_or_full_manager_gets_nothing():
    made = interchange([(0, 0.0)], {b"full": (0, 50.0), b"draining": (2, 50.0)})
    made._ready_managers[b"draining"]["draining"] = True
    made.process_tasks_to_send({b"full", b"draining"}, None)
    assert made.manager_sock.sent == []


def test_that_the_interchange_ends_with_its_steering_process():
    # Its parent is this test, not the process it is told to live with: as if that had died
    # before the interchange came to look.
    process = subprocess.Popen(
        [sys.executable, "-m", "hpc_hpo.pilot.interchange", "1"],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: process.poll() is not None, 20)
    finally:
        process.kill()
        process.stdin.close()


def test_that_a_long_queue_is_not_looked_through_for_each_worker():
    made = interchange([(1, 0.0)] * 1000, {b"b": (2, 50.0)})
    shown = []
    assign = made.desk.assign
    made.desk.assign = lambda tasks, *rest: shown.append(len(tasks)) or assign(tasks, *rest)
    made.process_tasks_to_send({b"b"}, None)
    assert made.manager_sock.sent == [(b"b", [1, 2])]
    assert shown == [2 * 2 + MORE]


def test_that_slices_too_long_for_every_block_hide_no_others():
    made = interchange([(0, 100.0)] * 100 + [(1, 20.0)], {b"b": (2, 50.0)})
    made.process_tasks_to_send({b"b"}, None)
    assert made.manager_sock.sent == [(b"b", [101])]


def test_that_after_a_slow_look_messages_come_first(monkeypatch):
    made = interchange([(1, 0.0)] * 3, {b"b": (1, 50.0)})
    now = [100.0]
    monkeypatch.setattr("hpc_hpo.pilot.interchange.time.monotonic", lambda: now[0])
    look = made.desk.look

    def slow(*args):
        now[0] += 1.0
        look(*args)

    made.desk.look = slow
    made.process_tasks_to_send({b"b"}, None)
    made._ready_managers[b"b"]["tasks"].clear()
    now[0] += 0.9 * REST
    made.process_tasks_to_send({b"b"}, None)
    assert made.manager_sock.sent == [(b"b", [1])], "too early for the next look"
    now[0] += 0.2 * REST
    made.process_tasks_to_send({b"b"}, None)
    assert made.manager_sock.sent == [(b"b", [1]), (b"b", [2])]
