"""A modelled site: blocks that wait, start, lose nodes and end, with virtual workers on them."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpc_hpo.model import SliceEnd, SliceOutcome, SliceRequest
from hpc_hpo.pilot.base import Capacity
from hpc_hpo.pilot.policy import LEAD_SHARE, Limits, LiveBlock, decide
from hpc_hpo.pilot.queues import jobs_to_submit
from hpc_hpo.simulate.clock import VirtualClock
from hpc_hpo.simulate.conditions import Conditions
from hpc_hpo.simulate.trials import NODE, PREEMPTION, WAIT, Course, Trials

#: Slices at the head of the queue that are tried on the blocks there are.
TRIED = 16


@dataclass
class _Flight:
    future: Future[SliceOutcome]
    course: Course
    block: _Block
    workers: list[int]


@dataclass
class _Block:
    id: str
    requested: float
    state: str = "requested"
    started: float = 0.0
    deadline: float = math.inf
    up: bool = False
    reason: str = ""
    free: deque[tuple[int, float]] = field(default_factory=deque)
    dead: dict[int, float] = field(default_factory=dict)
    running: dict[int, _Flight] = field(default_factory=dict)


class ModelPilot:
    """See base.Pilot."""

    def __init__(self, conditions: Conditions, clock: VirtualClock, trials: Trials) -> None:
        self._is, self._clock, self._trials = conditions, clock, trials
        self._blocks: dict[str, _Block] = {}
        #: blocks whose wait is over, while as many run as the queue lets run
        self._held: deque[Callable[[float], None]] = deque()
        self._queue: list[tuple[int, int, SliceRequest, Future[SliceOutcome]]] = []
        self._order = itertools.count()
        self._events: list[dict[str, Any]] = []
        self._demand, self._next_look, self._lead_s = 0, 0.0, 1.0
        self._connected = 0
        self._pausing = False
        self._interchange_free = 0.0
        #: worker-seconds by what became of them, and how long free workers waited
        self.parts: defaultdict[str, float] = defaultdict(float)
        self.waits: list[float] = []
        self.node_s, self.jobs, self.most_waiting, self.most_jobs = 0.0, 0, 0, 0

    def start(self, run: int) -> None:
        self._run = run

    def submit(self, request: SliceRequest, priority: int) -> Future[SliceOutcome]:
        self._clock.spend(self._clock.scale * self._is.submit_cpu_s)
        future: Future[SliceOutcome] = Future()
        with self._clock.aside():
            heapq.heappush(self._queue, (priority, next(self._order), request, future))
            self._assign(self._clock.now())
        return future

    def want(self, slices: int) -> None:
        self._demand = slices

    def capacity(self) -> Capacity:
        now = self._clock.now()
        up = [b for b in self._blocks.values() if b.up]
        return Capacity(
            self._connected, max((b.deadline - now for b in up), default=None),
            self._is.nodes * self._is.per_node * (len(self._blocks) - len(up)),
        )  # fmt: skip

    def poll(self) -> list[dict[str, Any]]:
        now = self._clock.now()
        if now >= self._next_look:
            self._next_look = now + self._is.look_s
            self._connected = sum(
                (self._is.nodes - len(b.dead)) * self._is.per_node
                for b in self._blocks.values() if b.up
            )  # fmt: skip
            if not self._pausing:
                self._resize(now)
        events, self._events = self._events, []
        return events

    def pause_all(self) -> None:
        self._pausing = True
        now = self._clock.now()
        for block in self._blocks.values():
            for flight in block.running.values():
                self._course(flight, now, "stop")

    def stop(self) -> list[dict[str, Any]]:
        with self._clock.aside():
            now = self._clock.now()
            for block in list(self._blocks.values()):
                self._end_block(block, now, "stopped" if block.running else "released")
            for _, _, request, future in self._queue:
                future.set_result(_declined(request))
            self._queue.clear()
        return self.poll()

    # -- blocks ------------------------------------------------------------------

    def _resize(self, now: float) -> None:
        """Request and release blocks by the policy, within the queue's limits."""
        walltime = self._is.walltime_s or math.inf
        needs = [f.course.request.get("needs_s", 0.0) for b in self._blocks.values()
                 for f in itertools.islice(b.running.values(), 1)]  # fmt: skip
        needs += [entry[2].get("needs_s", 0.0) for entry in self._queue[:TRIED]]
        limits = Limits(
            self._is.max_blocks, self._is.nodes * self._is.per_node,
            min(self._lead_s, LEAD_SHARE * walltime), min(needs, default=0.0),
        )  # fmt: skip
        live = [
            LiveBlock(b.id, b.state == "running", b.deadline - now if b.state == "running"
                      else walltime, b.up and not b.running)
            for b in self._blocks.values()
        ]  # fmt: skip
        decision = decide(live, self._demand, limits)
        with self._clock.aside():
            for name in decision.release:
                self._end_block(self._blocks[name], now, "released")
            waiting = sum(b.state == "requested" for b in self._blocks.values())
            running = len(self._blocks) - waiting
            for _ in range(jobs_to_submit(self._is.queue, decision.request, waiting, running)):
                self._request(now)

    def _say(self, block: _Block, at: float, **facts: Any) -> None:
        name = f"{self._run}.{block.id}"
        self._events.append({"e": "block", "block": name, "state": block.state, "at": at, **facts})

    def _request(self, now: float) -> None:
        block = _Block(str(self.jobs), now)
        self.jobs += 1
        self._blocks[block.id] = block
        self._say(block, now, job=block.id, requested=now)
        rng = np.random.default_rng([self._is.seed, WAIT, int(block.id)])
        wait, start_up = self._is.wait(rng), self._is.start_up(rng)
        self._clock.at(now + wait, lambda at: self._start_block(block, at, start_up, rng))
        waiting = sum(b.state == "requested" for b in self._blocks.values())
        self.most_waiting = max(self.most_waiting, waiting)
        self.most_jobs = max(self.most_jobs, len(self._blocks))

    def _start_block(
        self, block: _Block, at: float, start_up: float, rng: np.random.Generator
    ) -> None:
        if block.state == "ended":
            return
        if self._full():
            self._held.append(lambda freed: self._start_block(block, freed, start_up, rng))
            return
        block.state, block.started = "running", at
        if self._is.walltime_s is not None:
            block.deadline = at + self._is.walltime_s
            self._clock.at(block.deadline, lambda end: self._end_block(block, end, "walltime"))
        finite = math.isfinite(block.deadline)
        self._say(block, at, started=at, workers=self._is.nodes * self._is.per_node,
                  deadline=block.deadline if finite else None)  # fmt: skip
        self._clock.at(at + start_up, lambda up: self._come_up(block, up))
        if self._is.preempted is not None:
            own = np.random.default_rng([self._is.seed, PREEMPTION, int(block.id)])
            taken = at + self._is.preempted(own)
            if taken + self._is.grace_s < block.deadline:
                self._clock.at(taken, lambda now: self._preempt(block, now))
        if self._is.mtbf_s:
            self._await_failure(block, at, np.random.default_rng([self._is.seed, NODE, self.jobs]))

    def _node(self, worker: int) -> int:
        """Of a block's worker: they are dealt out, so that wide trials lie on several."""
        return worker % self._is.nodes

    def _full(self) -> bool:
        """Whether as many jobs run as the queue lets run."""
        most = self._is.queue.max_running if self._is.queue is not None else None
        running = (b.state == "running" for b in self._blocks.values())
        return most is not None and sum(running) >= most

    def _come_up(self, block: _Block, at: float) -> None:
        if block.state != "running":
            return
        block.up = True
        self._lead_s = max(1.0, at - block.requested)
        for worker in range(self._is.per_node * self._is.nodes):
            if self._node(worker) not in block.dead:
                block.free.append((worker, at))
        self.parts["start-up"] += len(block.free) * (at - block.started)
        for since in block.dead.values():
            self.parts["start-up"] += self._is.per_node * (since - block.started)
        self._assign(at)

    def _await_failure(self, block: _Block, at: float, rng: np.random.Generator) -> None:
        """The next failure among the block's living nodes; failures have no memory."""
        living = self._is.nodes - len(block.dead)
        if not living or not self._is.mtbf_s:
            return
        when = at + float(rng.exponential(self._is.mtbf_s / living))

        def fail(now: float) -> None:
            if block.state == "ended":
                return
            alive = [n for n in range(self._is.nodes) if n not in block.dead]
            self._lose_node(block, alive[int(rng.integers(len(alive)))], now)
            self._await_failure(block, now, rng)

        if when < block.deadline:
            self._clock.at(when, fail)

    def _lose_node(self, block: _Block, node: int, now: float) -> None:
        """The others go on, as after `srun --no-kill`; the node's slices are lost."""
        block.dead[node] = now
        for other, since in block.free:
            if self._node(other) == node:
                self.parts["waiting for points"] += now - since
        block.free = deque(slot for slot in block.free if self._node(slot[0]) != node)
        for flight in [f for f in block.running.values() if node in map(self._node, f.workers)]:
            flight.course.cut(now, SliceEnd.LOST, "died")
            self._finish(flight, now, self._is.notice_s)

    def _preempt(self, block: _Block, at: float) -> None:
        """TERM: its slices have the grace to checkpoint, and none begins there any more."""
        if block.state == "ended":
            return
        block.deadline = at - 1.0
        ends = at + self._is.grace_s
        for flight in block.running.values():
            self._course(flight, ends, "preempted")
        self._clock.at(ends, lambda now: self._end_block(block, now, "preempted"))

    def _end_block(self, block: _Block, at: float, reason: str) -> None:
        if block.state == "ended":
            return
        ran = block.state == "running"
        block.state, block.reason = "ended", reason
        del self._blocks[block.id]
        # What waits and did not begin here does not fit what was left of the block.
        forced = reason in ("walltime", "preempted")
        idle = "ends of blocks" if forced or self._queue else "nothing left to do"
        for flight in list(block.running.values()):
            if reason in ("stopped", "released"):
                flight.course.cut(at, SliceEnd.LOST, "steering")
            self._finish(flight, at, self._is.look_s, stopped=reason == "stopped", idle=idle)
        if ran:
            if not block.up:
                workers = self._is.nodes - len(block.dead)
                self.parts["start-up"] += workers * self._is.per_node * (at - block.started)
                for since in block.dead.values():
                    self.parts["start-up"] += self._is.per_node * (since - block.started)
            for _, since in block.free:
                self.parts[idle] += at - since
            for since in block.dead.values():
                self.parts["dead nodes"] += self._is.per_node * (at - since)
            self.node_s += self._is.nodes * (at - block.started)
        self._say(block, at, ended=at, reason=reason)
        while self._held and not self._full():
            self._held.popleft()(at)

    # -- slices --------------------------------------------------------------------

    def _assign(self, now: float) -> None:
        """Start what is queued where there is room and time for it."""
        kept: list[tuple[int, int, SliceRequest, Future[SliceOutcome]]] = []
        while self._queue and len(kept) < TRIED and any(b.free for b in self._blocks.values()):
            entry = heapq.heappop(self._queue)
            if not self._place(entry[2], entry[3], now):
                kept.append(entry)
        for entry in kept:
            heapq.heappush(self._queue, entry)

    def _place(self, request: SliceRequest, future: Future[SliceOutcome], now: float) -> bool:
        width = request.get("width", 1)
        for block in self._blocks.values():
            if len(block.free) < width or block.deadline - now < request.get("needs_s", 0.0):
                continue
            begins = self._interchange_free = max(now, self._interchange_free) + self._is.dispatch_s
            workers = []
            for _ in range(width):
                worker, since = block.free.popleft()
                self.parts["waiting for points"] += begins - since
                self.waits.append(begins - since)
                workers.append(worker)
            course = Course(self._trials, request, begins)
            flight = _Flight(future, course, block, workers)
            block.running[request["trial"]] = flight
            self._course(flight, block.deadline, "walltime")
            return True
        return False

    def _course(self, flight: _Flight, deadline: float, reason: str) -> None:
        """Lay down how a slice ends; anew when it is asked to stop before."""
        course = Course(self._trials, flight.course.request, flight.course.started)
        if reason == "stop":
            # The stop leaves it time, unlike the block's end.
            course.follow(deadline + DRAIN_S, reason, DRAIN_S)
        else:
            course.follow(deadline, reason, self._is.grace_s if reason == "preempted" else None)
        flight.course = course
        self._clock.at(course.ends, lambda at: self._expire(flight, course, at))

    def _expire(self, flight: _Flight, course: Course, at: float) -> None:
        block, trial = flight.block, course.request["trial"]
        if flight.course is not course or block.running.get(trial) is not flight:
            return
        # One that dies with its block is settled by that.
        if course.outcome["end"] == SliceEnd.LOST.value and at >= block.deadline:
            return
        self._finish(flight, at, 0.0)
        self._assign(at)

    def _finish(
        self, flight: _Flight, at: float, notice_s: float, *, stopped: bool = False,
        idle: str = "ends of blocks",
    ) -> None:  # fmt: skip
        block, course = flight.block, flight.course
        del block.running[course.request["trial"]]
        if course.ends > at:
            course.cut(at, SliceEnd.LOST, "walltime")
        course.settle()
        width = len(flight.workers)
        length, end = max(0.0, at - course.started), course.outcome["end"]
        # One that was sent to a worker and had not begun when its block ended.
        self.parts["waiting for points"] -= width * max(0.0, course.started - at)
        used = min(length, course.useful_s + course.overhead_s)
        useful = min(used, course.useful_s)
        rest = length - used
        where = "failed attempts" if end == SliceEnd.FAILED.value else "work lost"
        if stopped:
            # The simulation ends here, not the trial.
            useful, rest = useful + rest, 0.0
        self.parts["trials"] += width * useful
        self.parts["checkpoints"] += width * (used - useful)
        self.parts[where] += width * rest
        outcome = course.outcome
        first = flight.workers[0]
        outcome["block"], outcome["host"] = block.id, f"n{self._node(first)}"
        outcome["worker"] = str(first // self._is.nodes)
        for worker in flight.workers:
            if block.state == "running" and self._node(worker) not in block.dead:
                block.free.append((worker, at))
        if notice_s and self._blocks:
            self._clock.at(at + notice_s, lambda _: flight.future.set_result(outcome))
        else:
            flight.future.set_result(outcome)


#: After a stop request, slices get this long to checkpoint, in seconds.
DRAIN_S = 120.0


def _declined(request: SliceRequest) -> SliceOutcome:
    return SliceOutcome(
        run=request["run"], trial=request["trial"], slice=request["slice"],
        end=SliceEnd.DECLINED.value,
    )  # fmt: skip
