"""A study's results into a store of MLflow: everything, or what has changed since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from hpc_hpo.model import Trial
from hpc_hpo.results.fronts import goals_of
from hpc_hpo.results.mlflow.payload import merge, payload_runs, products_of
from hpc_hpo.results.mlflow.records import OWN, study_record, trial_record, value_text
from hpc_hpo.results.mlflow.store import STUDY, Refused, RunStore, began_of
from hpc_hpo.results.table import printable
from hpc_hpo.results.view import StudyView
from hpc_hpo.study.stores import Store


@dataclass
class Summary:
    """What came of it.

    Attributes:
        runs: how many of the trials' runs were "made", "added" to, and the "same".
        skipped: what could not be written, in words.
    """

    runs: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)


class MlflowExport:
    """Writes one study into one store, as often as it is asked to.

    Runs are found by their tags, so that what is there is added to and never made twice, whoever
    wrote it.

    Raises:
        InputError: MLflow is not installed.
    """

    def __init__(self, view: StudyView, store: Store) -> None:
        self._view, self._goals = view, goals_of(view.study)
        title = printable(str(view.study.get("name", "study")))
        self._runs = RunStore(store, title, began_of(view.state.began, view.study))

    def write(
        self,
        trials: Collection[int] | None = None,
        progress: Callable[[int], object] = lambda count: None,
    ) -> Summary:
        """Write the study's run and those of trials.

        Args:
            trials: numbers of those that have changed; None: all.
            progress: told 1 after each trial.

        Raises:
            StudyHeld, StorageError, InputError: as of RunStore.open_for_writing.
        """
        view, found = self._view, Summary()
        since = view.state.began or 0.0
        numbers = sorted(view.state.trials if trials is None else trials)
        with self._runs.open_for_writing():
            record = study_record(view.state, view.study, view.folder)
            if not self._runs.has(STUDY, record.fingerprint()):
                self._runs.write(STUDY, record, None, record.fingerprint())
            for number in numbers:
                self._write_trial(view.state.trials[number], since, found)
                progress(1)
        return found

    def _write_trial(self, trial: Trial, since: float, found: Summary) -> None:
        """A trial's run with what its payload's own run holds, or with several nested in it."""
        key = str(trial.id), ""
        record = trial_record(trial, self._view.folder, since, self._goals)
        left = products_of(self._view.study, self._view.folder, trial.id) if trial.final else {}
        names = self._view.study.get("evaluation") or {}
        record.files |= {Path(names[kind]).name: path for kind, path in left.items()}
        written = record.fingerprint()
        if self._runs.has(key, written):
            found.runs["same"] += 1
            return
        with payload_runs(left.get("metrics")) as own:
            found.skipped += [f"{record.name}: {problem}" for problem in own.problems]
            if own.problems:
                record.tags[OWN + "payload_problem"] = value_text("; ".join(own.problems))
            try:
                if len(own.runs) == 1:
                    ((number, one),) = own.runs.items()
                    merge(record, one, number)
                    own.runs.clear()
                how = self._runs.write(key, record, STUDY, "" if own.runs else written)
                for number, one in own.runs.items():
                    self._runs.write((key[0], number), one, key, one.fingerprint())
                if own.runs:
                    self._runs.mark(key, written)
                found.runs[how] += 1
            except Refused as error:
                found.skipped.append(str(error))
