"""Who shows a study's runs while it goes on: a process beside the one that steers.

It follows the journal as anyone may, from the outside: `hpc-hpo export --follow`, of which nothing
is known here but its command. So the steering loop has no part in it, waits for none of it but at
its own end, and loses nothing with it: the journal has everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import storage_error
from hpc_hpo.study import Study

#: What the process says, and what it has done so far, in the folder of logs.
LOG, REPORT = "mlflow.log", "mlflow.json"
#: How long the end of a study waits for the last runs to be written, and the end of a run that
#: will go on later, in seconds.
LAST_WAIT_S, SHORT_WAIT_S = 60.0, 10.0
#: From asking a process to end to ending it, in seconds.
_GRACE_S = 5.0
#: Between two looks at the process, in seconds.
_LOOK_S = 5.0
MEND = "`hpc-hpo export --format mlflow` writes what is missing"


def check_tracking(study: Study) -> Iterator[InputError]:
    """What keeps a study's runs from being shown."""
    if study.tracking is None:
        return
    store = study.tracking.store(study.folder, study.folder)
    for name in ("mlflow",) if store.files else ("mlflow", "sqlalchemy", "alembic"):
        if find_spec(name) is None:
            yield study.document.problem(
                "tracking", f"it needs the package {name}, which is not installed here",
                valid="pip install 'hpc_hpo[mlflow]'",
            )  # fmt: skip
            return


class Tracker:
    """The process, as the steering one sees it.

    Args:
        command: starts it; it ends once its standard input has.
        folder: of the study.
        now: time in seconds.
        say: tells people a line.
    """

    def __init__(
        self,
        command: list[str],
        folder: StudyFolder,
        now: Callable[[], float],
        say: Callable[[str], object],
    ) -> None:
        self._command, self._folder, self._now, self._say = command, folder, now, say
        self._process: subprocess.Popen[bytes] | None = None
        self._said: set[str] = set()
        self._look_at = 0.0

    def start(self) -> None:
        """Start it; that it does not start is said, and no more."""
        (self._folder.logs / REPORT).unlink(missing_ok=True)
        package = Path(__file__).parents[1]
        paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        try:
            with open(self._folder.logs / LOG, "ab") as log:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env,
                    # Ctrl-C is for the steering process, which ends this one in order.
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            self._warn(str(storage_error(self._folder.logs / LOG, error)))

    def _warn(self, problem: str) -> None:
        if problem not in self._said:
            self._said.add(problem)
            self._say(f"mlflow: {problem}")

    def observe(self) -> None:
        """Say what went wrong, once; called at every turn of the loop."""
        if self._process is None or self._now() < self._look_at:
            return
        self._look_at = self._now() + _LOOK_S
        error = self._report().get("error")
        if error:
            self._warn(error)
        if self._process.poll() is not None:
            self._warn(f"ended: {self._last_words()}; {MEND}")

    def _report(self) -> dict[str, Any]:
        try:
            found = json.loads((self._folder.logs / REPORT).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            text = (self._folder.logs / LOG).read_bytes()[-4000:].decode(errors="replace")
            if lines := text.strip().splitlines():
                return lines[-1]
        return "it said nothing"

    def finish(self, *, done: bool) -> str:
        """Wait for the last runs to be written, and end the process; how it went, for people.

        Args:
            done: nothing is left to do in the study, so no later run would write the rest.
        """
        process = self._process
        if process is None:
            return f"was not started; {MEND}"
        self._look_at = 0.0
        self.observe()
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        late = False
        try:
            process.wait(LAST_WAIT_S if done else SHORT_WAIT_S)
        except subprocess.TimeoutExpired:
            late = True
        self.end()
        report = self._report()
        skipped = f"; {report['skipped']} left out, see {LOG}" if report.get("skipped") else ""
        failed = f" after {report['failed']} failed attempts" if report.get("failed") else ""
        if late:
            return f"was not done in time{skipped}; {MEND}"
        if process.returncode:
            return f"ended{failed}: {self._last_words()}; {MEND}"
        return f"all runs are written{failed}{skipped}"

    def end(self) -> None:
        """End the process, whatever it is at; what it was writing is taken back by the store."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def tracking(
    study: Study, folder: StudyFolder, now: Callable[[], float], say: Callable[[str], object]
) -> Iterator[Tracker | None]:
    """The process for a study that wants one; ended, at the latest, with this."""
    if study.tracking is None:
        yield None
        return
    store = study.tracking.store(study.folder, folder.path)
    command = [sys.executable, "-m", "hpc_hpo.cli.main", "export", str(folder.path)]
    command += ["--format", "mlflow", "-o", store.uri, "--follow"]
    tracker = Tracker(command, folder, now, say)
    tracker.start()
    try:
        yield tracker
    except BaseException:
        tracker.finish(done=False)
        raise
    finally:
        tracker.end()
