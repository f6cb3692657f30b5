"""A study shown in MLflow while it runs: its journal is followed, and what has changed is written.

It runs in a process of its own, started by the one that steers (tracking.py), which neither waits
for it nor fails through it. What could not be written is tried again; the journal remains the
truth, and an export mends what is missing.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable
from typing import Any

from hpc_hpo.errors import HpoError, InputError
from hpc_hpo.following import JournalFollower
from hpc_hpo.fsio import write_atomic
from hpc_hpo.journal import Event
from hpc_hpo.results.mlflow.export import MlflowExport
from hpc_hpo.results.view import StudyView
from hpc_hpo.study.stores import Store
from hpc_hpo.tracking import REPORT

#: Rests between two passes: at least, as a multiple of what the last one took, and at most, in
#: seconds.
REST_S, REST_SHARE, MOST_REST_S = 5.0, 4.0, 120.0
#: Of the last pass, once the steering process has ended.
LAST_TRIES = 3
NICENESS = 10


class LiveExport:
    """Follows one journal into one store.

    Args:
        view: the study; its state is not used.
        now: time in seconds.
        ended: waits so many seconds, or less once the steering process has ended; whether it has.
        sleep: waits so many seconds in any case.
    """

    def __init__(
        self,
        view: StudyView,
        store: Store,
        now: Callable[[], float],
        ended: Callable[[float], bool],
        sleep: Callable[[float], None],
    ) -> None:
        self._view, self._store = view, store
        self._now, self._ended, self._sleep = now, ended, sleep
        self._changed: set[int] | None = set()  # None: all
        self._news = False
        self._follower = JournalFollower(view.folder.journal, now, self._hear)
        self._export: MlflowExport | None = None
        self._report: dict[str, Any] = {
            "pid": os.getpid(), "passes": 0, "failed": 0, "skipped": 0, "behind": 0, "error": None,
        }  # fmt: skip

    def _hear(self, event: Event) -> None:
        self._news = self._news or event["e"] != "tick"
        if event["e"] == "segment" and event["op"] == "rerun":
            self._changed = None  # its trials are set aside
        elif self._changed is not None and "trial" in event:
            self._changed.add(event["trial"])

    def run(self) -> None:
        """Go on until the steering process has ended and all is written.

        Raises:
            InputError: the store, or MLflow, cannot be used at all.
            HpoError: the last trials could not be written, LAST_TRIES times.
        """
        rest = 0.0
        while not self._ended(rest):
            begun = self._now()
            failed = self._pass() is not None
            took = self._now() - begun
            rest = min(max(REST_S, REST_SHARE * took, 2 * rest if failed else 0.0), MOST_REST_S)
        for left in reversed(range(LAST_TRIES)):
            error = self._pass()
            if error is None:
                return
            if not left:
                raise error
            self._sleep(REST_S)

    def _pass(self) -> HpoError | None:
        """Write what has changed since the last pass; why it could not be written."""
        state = self._follower.state
        while self._follower.read():
            pass
        if self._follower.state is not state or self._export is None:
            # The first pass, or a journal that was replaced.
            view = StudyView(self._view.folder, self._view.study, self._follower.state)
            if view.state.began is None:
                return None
            self._export, self._changed = MlflowExport(view, self._store), None
        if not self._news:
            return None
        trials = self._changed
        known = self._follower.state.trials
        numbers = [n for n in (known if trials is None else trials) if n in known]
        try:
            found = self._export.write(numbers)
        except InputError:
            raise
        except HpoError as error:
            self._tell(failed=1, behind=len(numbers), error=str(error))
            return error
        for line in found.skipped:
            print(line, flush=True)
        self._changed, self._news = set(), False
        self._tell(passes=1, skipped=len(found.skipped), behind=0)
        return None

    def _tell(self, behind: int, error: str | None = None, **more: int) -> None:
        """Leave word for the steering process; an error that comes again is said once."""
        report = self._report
        if error is not None and error != report["error"]:
            print(error, flush=True)
        report |= {key: report[key] + count for key, count in more.items()}
        report |= {"behind": behind, "error": error or report["error"]}
        write_atomic(self._view.folder.logs / REPORT, json.dumps(report) + "\n", durable=False)


def follow(view: StudyView, store: Store) -> None:
    """Follow a study until standard input ends.

    Raises:
        HpoError: see LiveExport.run.
    """
    os.nice(NICENESS)
    LiveExport(view, store, time.time, _input_ended, time.sleep).run()


def _input_ended(seconds: float) -> bool:
    """Its other end is held by the steering process, and falls with it, however that ends."""
    ready, _, _ = select.select([sys.stdin.fileno()], [], [], seconds)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1)
