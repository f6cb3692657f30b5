"""Which job starts next: first come, first served, with backfill in front of the one that waits.

Only a queue's first `eligible` pending jobs are looked at (4 a user at Summit); those after them
pend as ineligible, whatever room there is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from tests.fakes.lsf.cluster import Cluster
from tests.fakes.lsf.depend import Dependency
from tests.fakes.lsf.state import FINISHED, PEND, Allocation, Job, Request

UNLIMITED = math.inf
#: Slots of the batch node, which bslots counts unless told to look at compute nodes only.
BATCH_NODE_SLOTS = 10

INELIGIBLE = "User has reached the per-user limit of eligible jobs"
DEPENDS = "Job dependency condition not satisfied"
NEVER = "Dependency condition invalid or never satisfied"
NO_ROOM = "Not enough slots or resources for whole duration of the job"


@dataclass
class Room:
    """Free slots and GPU numbers of each host."""

    slots: dict[str, int]
    gpus: dict[str, list[int]]

    def copy(self) -> Room:
        """A copy to try things on."""
        return Room(dict(self.slots), {host: list(free) for host, free in self.gpus.items()})

    def take(self, taken: Allocation) -> None:
        """Hand `taken` out."""
        for host, slots in taken.slots.items():
            self.slots[host] -= slots
        for host, gpus in taken.gpus.items():
            self.gpus[host] = [gpu for gpu in self.gpus[host] if gpu not in gpus]

    def give(self, back: Allocation) -> None:
        """Take `back` what was handed out."""
        for host, slots in back.slots.items():
            self.slots[host] += slots
        for host, gpus in back.gpus.items():
            self.gpus[host] = sorted([*self.gpus[host], *gpus])


@dataclass(frozen=True)
class Occupied:
    """Nodes that another user holds until a moment of the cluster's clock."""

    allocation: Allocation
    until: float


class Scheduler:
    """Hands nodes out."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.room = Room(
            dict.fromkeys(cluster.hosts, cluster.cpus),
            {host: list(range(cluster.gpus)) for host in cluster.hosts},
        )
        self.others: list[Occupied] = []

    def place(self, request: Request, room: Room, avoid: Collection[str] = ()) -> Allocation | None:
        """Hosts for `request` out of `room`, or None when they do not suffice now."""
        if self.cluster.by_nodes:
            return self._place_nodes(request.nodes, room, avoid)
        slots: dict[str, int] = {}
        left = request.slots
        for host, free in room.slots.items():
            if host in avoid or len(room.gpus[host]) < request.gpus_per_host:
                continue
            # With ptile each host but the last has exactly that many.
            share = min(left, request.ptile or free)
            if share and free >= share:
                slots[host] = share
                left -= share
        if left:
            return None
        return Allocation(slots, {h: room.gpus[h][: request.gpus_per_host] for h in slots})

    def _place_nodes(self, count: int, room: Room, avoid: Collection[str]) -> Allocation | None:
        whole = self.cluster.cpus
        hosts = [h for h, free in room.slots.items() if free == whole and h not in avoid][:count]
        if len(hosts) < count:
            return None
        return Allocation(dict.fromkeys(hosts, whole), {h: list(room.gpus[h]) for h in hosts})

    def occupy(self, nodes: int, until: float) -> Occupied | None:
        """Give `nodes` free nodes to another user; None when there are not that many."""
        allocation = self._place_nodes(nodes, self.room, ())
        if allocation is None:
            return None
        self.room.take(allocation)
        self.others.append(Occupied(allocation, until))
        return self.others[-1]

    def leave(self, occupied: Occupied) -> None:
        """The other user is done."""
        self.others.remove(occupied)
        self.room.give(occupied.allocation)

    def eligible(self, jobs: Iterable[Job], known: dict[int, Job]) -> list[Job]:
        """Pending jobs that may start if they fit, in order; the others are told why not."""
        counts: dict[str, int] = {}
        found: list[Job] = []
        for job in jobs:
            if job.state != PEND:
                continue
            if job.request.after:
                condition = Dependency(job.request.after)
                if not condition.holds(lambda i: known[i].state):
                    lost = condition.never(lambda i: known[i].state)
                    job.pend_reason = NEVER if lost else DEPENDS
                    continue
            name = job.request.queue
            queue = self.cluster.queue(name)
            counts[name] = counts.get(name, 0) + 1
            if queue and queue.eligible is not None and counts[name] > queue.eligible:
                job.pend_reason = INELIGIBLE
                continue
            found.append(job)
        return found

    def _reserve(self, job: Job, jobs: Iterable[Job], now: float) -> tuple[float, set[str]]:
        """When the first job that does not fit can start at the latest, and on which hosts."""
        room = self.room.copy()
        ends = [(o.until, o.allocation) for o in self.others]
        for other in jobs:
            if other.allocation is not None and other.state not in FINISHED:
                ends.append((other.end or UNLIMITED, other.allocation))
        for moment, back in sorted(ends, key=lambda pair: pair[0]):
            room.give(back)
            placed = self.place(job.request, room)
            if placed is not None:
                return max(moment, now), set(placed.slots)
        return UNLIMITED, set()

    def start_next(self, jobs: Sequence[Job], known: dict[int, Job], now: float) -> Job | None:
        """Place one job that may start now, its allocation taken; None when there is none."""
        shadow, reserved = UNLIMITED, set[str]()
        waiting = False
        for job in self.eligible(jobs, known):
            ends = now + (job.limit or UNLIMITED)
            avoid = reserved if waiting and ends > shadow else ()
            placed = self.place(job.request, self.room, avoid)
            if placed is not None:
                self.room.take(placed)
                job.allocation = placed
                return job
            job.pend_reason = NO_ROOM
            if not waiting:
                waiting = True
                shadow, reserved = self._reserve(job, jobs, now)
        return None

    def windows(
        self, jobs: Sequence[Job], known: dict[int, Job], now: float, compute_only: bool
    ) -> list[tuple[int, float]]:
        """Backfill windows, longest first: slots that are free for at least that many seconds."""
        shadow, reserved = UNLIMITED, set[str]()
        for job in self.eligible(jobs, known):
            shadow, reserved = self._reserve(job, jobs, now)
            break
        held = sum(self.room.slots[host] for host in reserved)
        free = sum(self.room.slots.values()) - held
        if not compute_only:
            free += BATCH_NODE_SLOTS
        windows = [(free, UNLIMITED)] if free else []
        if held and shadow > now:
            windows.append((free + held, shadow - now))
        return windows
