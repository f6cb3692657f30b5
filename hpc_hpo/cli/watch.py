"""``hpc-hpo watch``: look on while a study runs, perhaps on another machine."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_hpo.cli.common import find_study, path_argument, read_study
from hpc_hpo.cli.progress import make_view
from hpc_hpo.cli.status import MEANING
from hpc_hpo.cli.tally import Tally, journal_capacity
from hpc_hpo.clock import Clock, SystemClock
from hpc_hpo.errors import ExitCode
from hpc_hpo.folder import StudyFolder, steering_alive
from hpc_hpo.following import JournalFollower
from hpc_hpo.pilot.base import Capacity
from hpc_hpo.results.segments import segment_rows
from hpc_hpo.results.summary import study_state
from hpc_hpo.steerer.chain import read_chain, waiting_job

#: How often the journal is looked at, in seconds.
LOOK_S = 0.5
#: ... and who steers the study: a file that its writer refreshes every ten seconds.
HOLDER_EVERY_S = 2.0
#: As a shell reports a process ended by SIGINT.
INTERRUPTED = 130
CODES = {"stopped": ExitCode.WORK_LEFT, "failed": ExitCode.NO_RESULT}


@click.command()
@path_argument
@click.option("--plain", is_flag=True, help="Lines in place of the picture.")
def watch(path: Path, plain: bool) -> int:
    """Watch a study that runs elsewhere.

    PATH is the study's folder or its study.yaml (default: here). Nothing is changed or locked, so
    any number of people may watch, from every machine that sees the folder. It ends when the study
    does, or with Ctrl-C.
    """
    return Watch(path, find_study(path), SystemClock(), plain=plain).run()


class Watch:
    """One watching of a study.

    Args:
        path: what the user gave.
        folder: the study's; nothing need be there yet.
    """

    def __init__(self, path: Path, folder: StudyFolder, clock: Clock, *, plain: bool) -> None:
        self._path, self._folder, self._clock, self._plain = path, folder, clock, plain
        self._journal = JournalFollower(folder.journal, clock.now)
        self._holder_due = 0.0
        self._steered = False
        self._waiting: str | None = None
        self._study = read_study(folder, path)
        self._begin()

    def _begin(self) -> None:
        """Make a tally and a view of them, for a journal that is read from its start."""
        self._state, self._run, self._whole = self._journal.state, self._journal.state.runs, False
        self._tally = Tally(self._study, self._clock.now)
        title = f"{self._study['name']} in {self._folder.path}"
        self._view = make_view(self._tally, title, plain=self._plain, at_once=True)

    def run(self) -> int:
        """Show the study until nobody is at it any more; the exit code."""
        try:
            while True:
                # Asked before reading, so that the last words of a run are read after its end.
                self._look_for_steerer()
                more = self._journal.read()
                if self._renew():
                    # Whoever steers was looked for before this run was heard of.
                    self._holder_due = 0.0
                    continue
                if more and self._journal.share < 1.0:
                    self._view.wait(f"reading its journal: {self._journal.share:.0%}")
                    continue
                self._show()
                if self._state.runs and not self._steered and self._waiting is None:
                    break
                self._clock.sleep(LOOK_S)
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            self._view.close()
        word = study_state(self._state, segment_rows(self._state, self._study), alive=False)
        click.echo(f"{self._study['name']}: {MEANING[word]}")
        return CODES.get(word, ExitCode.DONE)

    def _look_for_steerer(self) -> None:
        now = self._clock.now()
        if now >= self._holder_due:
            self._holder_due = now + HOLDER_EVERY_S
            self._steered = steering_alive(self._folder, now) is not None
            self._waiting = waiting_job(read_chain(self._folder))

    def _renew(self) -> bool:
        """Heed a journal that was replaced, and the study file of a new run; whether one was."""
        state = self._journal.state
        if state is self._state and state.runs == self._run:
            return False
        self._study = read_study(self._folder, self._path)
        if state is self._state:
            self._run = state.runs
            self._tally.renew(self._study)
        else:
            self._view.close()
            self._begin()
        return True

    def _show(self) -> None:
        state = self._state
        if not self._whole:
            # What has failed before is not told again, line by line.
            self._whole = True
            self._tally.update(state)
        note = ""
        if not self._steered:
            job = f"job {self._waiting} is to go on with it" if self._waiting else ""
            note = job or ("" if state.runs else "the study has not begun")
            self._view.update(state, Capacity(0, None, 0), note, steered=False)
        else:
            self._view.update(state, journal_capacity(state, self._clock.now()), note)
