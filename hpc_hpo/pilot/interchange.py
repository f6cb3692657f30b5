"""Parsl's interchange, taught to place slices on the nodes of blocks.

Parsl's own interchange gives the next task to any manager with a free worker (parsl #3249 asks
for more; parsl #3927 and #2870 are about tasks of several nodes or GPUs). Here a task names the
seconds it needs (``needs_s`` in its resource spec) and its shape, and is sent with its place:
nodes, cores and GPUs that no other slice has (desk.py). A slice of one rank goes to the manager
of its node, one of several ranks to its block's lead, which calls the launcher. It goes only to a
block that lasts long enough, so that the rest of a block is offered to the slices that fit. A
manager's block end is its ``drain_time``, which the block's supervisor sets and Parsl's
registration message carries.

It extends ``Interchange`` of exactly the Parsl version named in setup.cfg: workers must run
that version in any case.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import threading
import time
from collections import Counter
from typing import Any

from parsl.executors.high_throughput.interchange import Interchange

from hpc_hpo.pilot.desk import Desk, room_of

#: Seconds between looks at whether the steering process still lives.
PARENT_LOOK_S = 0.5
#: Placing looks at all managers; on thousands of nodes that is not done for each message. After a
#: look that took longer than this, in seconds, so many times its length go to messages.
SLOW_LOOK_S, REST = 0.002, 4.0
#: Slices of one shape that are looked at beyond twice those that could begin.
MORE = 16


class MatchingInterchange(Interchange):
    """Places each queued slice on nodes whose block lasts long enough.

    Attributes:
        desk: where slices are placed; set after construction.
    """

    desk: Desk
    _look_due = 0.0

    def expire_drained_managers(
        self, interesting_managers: set[bytes], monitoring_radio: Any
    ) -> None:
        """Nothing: a block ends by its scheduler or by release, not by Parsl's drain."""

    def process_tasks_to_send(
        self, interesting_managers: set[bytes], monitoring_radio: Any
    ) -> None:
        """Send queued slices to where the placer puts them.

        A manager that has room but nothing that fits stays interesting: the next slice may.
        """
        begun = time.monotonic()
        if not interesting_managers or not self.pending_task_queue or begun < self._look_due:
            return
        self._place_some(interesting_managers)
        took = time.monotonic() - begun
        if took > SLOW_LOOK_S:
            self._look_due = begun + took + REST * took

    def _candidates(self) -> dict[int, Any]:
        """Queue entries that could begin now, the first first; no more of a shape than needed."""
        able = [
            m for m in self._ready_managers.values()
            if room_of(m) > 0 and m["active"] and not m["draining"]
        ]  # fmt: skip
        if not able:
            return {}
        most = 2 * sum(map(room_of, able)) + MORE
        longest_s = max(m["drain_time"] for m in able) - time.time()
        seen: Counter[tuple[Any, ...]] = Counter()
        found = {}
        # The queue's end comes first.
        for entry in reversed(self.pending_task_queue):
            spec = entry[-1]["context"].get("resource_spec", {})
            shape = tuple(spec["shape"])
            if seen[shape] < most and spec.get("needs_s", 0.0) <= longest_s:
                seen[shape] += 1
                found[entry[-1]["task_id"]] = entry
        return found

    def _place_some(self, interesting_managers: set[bytes]) -> None:
        self.desk.look(self._ready_managers, interesting_managers)
        queue = self.pending_task_queue
        waiting = self._candidates()
        sent: dict[bytes, list[dict[str, Any]]] = {}
        for number, manager_id, place in self.desk.assign(
            [entry[-1] for entry in waiting.values()], self._ready_managers, time.time()
        ):
            entry = waiting[number]
            queue.remove(entry)
            task = entry[-1]
            request = json.loads(task["buffer"])
            request["place"] = place
            task["buffer"] = json.dumps(request).encode()
            sent.setdefault(manager_id, []).append(task)
        for manager_id, tasks in sent.items():
            manager = self._ready_managers[manager_id]
            self.manager_sock.send_multipart([manager_id, pickle.dumps(tasks)])
            self.count += len(tasks)
            manager["tasks"].extend(task["task_id"] for task in tasks)
            manager["idle_since"] = None
        for manager_id in list(interesting_managers):
            seen = self._ready_managers.get(manager_id)
            if seen is None or not room_of(seen) or not seen["active"] or seen["draining"]:
                interesting_managers.discard(manager_id)


def die_with(parent: int) -> None:
    """End this process once the process `parent` is not (or no longer) its parent.

    Parsl's interchange outlives a killed steering process; its managers would then wait for
    tasks until their walltime.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def main() -> None:
    """Entry point: the steering process's id and the site's facts (shapes.place_settings) as
    arguments, the settings on stdin (from Parsl)."""
    # A Ctrl-C in the terminal is the steering process's to handle: it still needs its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Given, not asked for: it may be dead before this line is reached.
    die_with(int(sys.argv[1]))
    settings = pickle.load(sys.stdin.buffer)
    interchange = MatchingInterchange(**settings)
    interchange.desk = Desk(json.loads(sys.argv[2]), time.time)
    interchange.start()


if __name__ == "__main__":
    main()
