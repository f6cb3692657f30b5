"""A study's results into a store of MLflow: everything, or what has changed since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from hpc_hpo.results.mlflow.records import study_record, trial_record
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
        self._view = view
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
            self._runs.write(STUDY, study_record(view.state, view.study, view.folder))
            for number in numbers:
                record = trial_record(view.state.trials[number], view.folder, since)
                try:
                    found.runs[self._runs.write((str(number), ""), record, STUDY)] += 1
                except Refused as error:
                    found.skipped.append(str(error))
                progress(1)
        return found
