"""Parsl's interchange, taught to match slices to managers by the time their block has left.

Parsl's own interchange gives the next task to any manager with a free worker (parsl #3249 asks
for more). Here a task names the seconds it needs (``needs_s`` in its resource spec) and goes
only to a manager whose block lasts that long, so that the rest of a block is offered to the
slices that fit. A manager's block end is its ``drain_time``, which the block's supervisor sets
and Parsl's registration message carries.

It extends ``Interchange`` of exactly the Parsl version named in setup.cfg: workers must run
that version in any case.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from typing import Any

from parsl.executors.high_throughput.interchange import Interchange

#: Seconds between looks at whether the steering process still lives.
PARENT_LOOK_S = 0.5


class MatchingInterchange(Interchange):
    """Gives each manager the first queued tasks that its block's remaining time allows."""

    def take_fitting(self, count: int, seconds_left: float) -> list[dict[str, Any]]:
        """Up to `count` tasks from the queue, in order, that need at most `seconds_left`."""
        queue = self.pending_task_queue
        taken: list[dict[str, Any]] = []
        position = len(queue) - 1  # the queue's end comes first
        while position >= 0 and len(taken) < count:
            task = queue[position][-1]
            spec = task["context"].get("resource_spec", {})
            if spec.get("needs_s", 0.0) <= seconds_left:
                del queue[position]
                taken.append(task)
            position -= 1
        return taken

    def expire_drained_managers(
        self, interesting_managers: set[bytes], monitoring_radio: Any
    ) -> None:
        """Nothing: a block ends by its scheduler or by release, not by Parsl's drain."""

    def process_tasks_to_send(
        self, interesting_managers: set[bytes], monitoring_radio: Any
    ) -> None:
        """Send queued tasks to the managers with free workers and time for them.

        A manager that has room but no time for what is queued stays interesting: the next
        task may fit.
        """
        if not interesting_managers or not self.pending_task_queue:
            return
        now = time.time()
        managers = self.manager_selector.sort_managers(self._ready_managers, interesting_managers)
        for manager_id in managers:
            if not self.pending_task_queue:
                return
            manager = self._ready_managers[manager_id]
            room = manager["max_capacity"] - len(manager["tasks"])
            if room <= 0 or not manager["active"] or manager["draining"]:
                interesting_managers.discard(manager_id)
                continue
            tasks = self.take_fitting(room, manager["drain_time"] - now)
            if not tasks:
                continue
            self.manager_sock.send_multipart([manager_id, pickle.dumps(tasks)])
            self.count += len(tasks)
            manager["tasks"].extend(task["task_id"] for task in tasks)
            manager["idle_since"] = None
            if len(tasks) == room:
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
    """Entry point: the steering process's id as argument, the settings on stdin (from Parsl)."""
    # A Ctrl-C in the terminal is the steering process's to handle: it still needs its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Given, not asked for: it may be dead before this line is reached.
    die_with(int(sys.argv[1]))
    settings = pickle.load(sys.stdin.buffer)
    MatchingInterchange(**settings).start()


if __name__ == "__main__":
    main()
