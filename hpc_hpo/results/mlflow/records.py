"""What MLflow is told of a study and of its trials, as plain data. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import StudyState
from hpc_hpo.model import SliceRecord, Trial, TrialState
from hpc_hpo.results.columns import TRIAL_COLUMNS
from hpc_hpo.results.fronts import Goal
from hpc_hpo.results.table import POINT, direction_sign, printable, strict_json, trial_row
from hpc_hpo.steering.loop import DONE_REASONS

#: In front of the tags that are this package's own.
OWN = "hpc_hpo."
#: By these tags a study's and a trial's run are found again.
BEGAN, TRIAL = OWN + "began", OWN + "trial"
#: The tag that is set last: the fingerprint of what the run holds.
WRITTEN = OWN + "written"
PARENT, NAME = "mlflow.parentRunId", "mlflow.runName"

#: Columns of the table of trials that are no tags: a run has times of its own, and a rank changes
#: whenever another trial ends.
_NO_TAGS = {"trial", "rank", "started", "ended"}
_STATUS = {
    TrialState.ASKED: "SCHEDULED",
    TrialState.RUNNING: "RUNNING",
    TrialState.PAUSED: "RUNNING",
    TrialState.COMPLETED: "FINISHED",
    TrialState.FAILED: "FAILED",
    TrialState.STOPPED: "KILLED",
}
#: MLflow's limits, in characters; it cuts or refuses what is longer.
_KEY, _VALUE = 250, 6000
_ODD = re.compile(r"[^\w./ :-]")


@dataclass(frozen=True)
class Measured:
    """One value of a metric; `at` in milliseconds since the epoch."""

    key: str
    value: float
    at: int
    step: int


@dataclass
class Record:
    """One run.

    Attributes:
        began, ended: milliseconds since the epoch; `ended` only where no more will come.
        texts: artifacts that are made here, by name.
        files: artifacts that are copied, by name.
        artifacts: a folder with more of them, as it is in a payload's own run.
    """

    name: str
    status: str
    began: int
    ended: int | None
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[Measured] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    artifacts: Path | None = None

    def fingerprint(self) -> str:
        """Differs where anything does that a run can be told afterwards."""
        plain = asdict(self)
        del plain["began"], plain["artifacts"]
        plain["files"] = {name: _stamp(path) for name, path in self.files.items()}
        text = json.dumps(plain, sort_keys=True, default=str)
        return "1:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _stamp(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def key_of(name: str) -> str:
    """A parameter's or metric's name as MLflow takes it.

    Names that it would refuse get a part of their checksum, so that two never become one.
    """
    name = printable(name)
    parts = name.split("/")
    plain = name and not _ODD.search(name) and len(name) <= _KEY
    if plain and all(part not in ("", ".", "..") for part in parts):
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{_ODD.sub('_', name).replace('/', '_')[: _KEY - 8] or '_'}-{mark}"


def value_text(value: Any) -> str:
    """A value as MLflow shows it, in at most its longest length."""
    text = value if isinstance(value, str) else None
    if text is None:
        text = str(value) if isinstance(value, (bool, int, float)) else strict_json(value)
    text = printable(text)
    return text if len(text) <= _VALUE else text[: _VALUE - 3] + "..."


def milliseconds(seconds: float | None) -> int | None:
    """MLflow's times."""
    return None if seconds is None else round(seconds * 1000)


def trial_record(
    trial: Trial, folder: StudyFolder, since: float, goals: Sequence[Goal] = ()
) -> Record:
    """What is known of a trial.

    It began with its first slice, as far as that is known yet; else when that was submitted; else
    `since`.

    Parameters are its point, as text. Metrics are its reports and the numbers with a fraction
    of its row in the table of trials; the loss stands at the last step. Tags are the rest of the
    row, and where it ran. Reports have no times of their own in the journal: those of a slice are
    spread over it.
    """
    row = trial_row(trial, goals)
    starts = [s.started for s in trial.slices if s.started is not None]
    began = [*starts, *(s.submitted for s in trial.slices), since][0]
    ended = milliseconds(began if trial.final and row["ended"] is None else row["ended"])
    title = f"trial {trial.id}" if trial.segment is None else f"{trial.segment}/{trial.id}"
    record = Record(printable(title), _STATUS[trial.state], milliseconds(began) or 0, ended)
    record.params = {key_of(name): value_text(value) for name, value in trial.point.items()}
    record.metrics = list(_curves(trial))
    last = max(trial.reports, default=0)
    for name, value in row.items():
        if name.startswith(POINT) or name in _NO_TAGS or value is None:
            continue
        if isinstance(value, float) or TRIAL_COLUMNS.get(name) == "float":
            if trial.final:
                # Of values at one step MLflow shows the latest: not a report called loss.
                at = (ended or 0) + 1
                record.metrics.append(Measured(key_of(name), float(value), at, last))
        else:
            record.tags[OWN + name] = value_text(value)
    record.tags |= _trial_tags(trial)
    record.texts = dict(_texts(trial, folder))
    return record


def _curves(trial: Trial) -> Iterator[Measured]:
    slices = [record for record in trial.slices if record.step is not None]
    place, before = 0, -1
    for step in sorted(trial.reports):
        while place + 1 < len(slices) and (slices[place].step or 0) < step:
            before, place = slices[place].step or 0, place + 1
        at = _moment(slices[place], before, step) if slices else 0.0
        for name, value in trial.reports[step].items():
            yield Measured(key_of(name), float(value), round(at * 1000), step)


def _moment(record: SliceRecord, before: int, step: int) -> float:
    """When a slice that began after step `before` may have reported a step."""
    start = record.started if record.started is not None else record.submitted
    end = record.ended if record.ended is not None else start
    share = (step - before) / max((record.step or 0) - before, 1)
    return start + (end - start) * min(max(share, 0.0), 1.0)


def _trial_tags(trial: Trial) -> dict[str, str]:
    def listed(values: list[str | None]) -> str | None:
        return ", ".join(dict.fromkeys(v for v in values if v)) or None

    facts = {
        "trial": trial.id,
        "seed": trial.seed,
        "like": trial.like,
        "given": trial.given,
        "superseded": trial.superseded or None,
        "block": listed([record.block for record in trial.slices]),
        "host": listed([record.host for record in trial.slices]),
        "worker": listed([record.worker for record in trial.slices]),
        "ends": listed([record.end and record.end.value for record in trial.slices]),
        "checkpoint": trial.checkpoint and trial.checkpoint["name"],
    }
    return {OWN + name: value_text(value) for name, value in facts.items() if value is not None}


def _texts(trial: Trial, folder: StudyFolder) -> Iterator[tuple[str, str]]:
    if trial.checkpoint is not None:
        where = folder.trial(trial.id) / trial.checkpoint["name"]
        found = {**trial.checkpoint, "folder": str(where)}
        yield "checkpoint.json", strict_json(found, indent=1) + "\n"
    if trial.error is not None:
        parts = [trial.error.get(key) for key in ("message", "traceback", "log_tail")]
        yield "error.txt", printable("\n\n".join(str(part) for part in parts if part)) + "\n"


def study_record(state: StudyState, study: Mapping[str, Any], folder: StudyFolder) -> Record:
    """What is known of the whole study; its trials' runs hang on this one.

    The metric `best_loss` (of a segment: `best_loss/NAME`) has a value for each improvement, its
    step being the number of trials that had ended.
    """
    reason = state.stop_reason
    done = reason in DONE_REASONS
    status = "RUNNING" if reason is None else "FINISHED" if done else "SCHEDULED"
    ended = milliseconds(state.last_at) if done else None
    name = printable(str(study.get("name", "study")))
    record = Record(name, status, milliseconds(state.began) or 0, ended)
    facts = {
        "kind": "study",
        "study": name,
        "folder": str(folder.path),
        "direction": study.get("direction"),
        "optimizer": study.get("optimizer"),
        "site": state.run_info.get("site"),
        "version": state.run_info.get("version"),
        "runs": state.runs,
        "stop_reason": reason,
        "trials": len(state.trials),
        **{f"trials_{s.value}": state.trial_states[s.value] for s in TrialState},
    }
    record.tags = {OWN + key: value_text(value) for key, value in facts.items() if value}
    record.metrics = list(_improvements(state, direction_sign(dict(study))))
    found = {"study.yaml": folder.study, "manifest.json": folder.manifest}
    record.files = {name: path for name, path in found.items() if path.is_file()}
    return record


def _improvements(state: StudyState, sign: int) -> Iterator[Measured]:
    best: dict[str | None, float] = {}
    told = [number for kind, number in state.search_log if kind == "told"]
    for count, number in enumerate(told, start=1):
        trial = state.trials[number]
        if trial.loss is None or trial.state is not TrialState.COMPLETED or trial.superseded:
            continue
        if trial.segment in best and sign * trial.loss >= sign * best[trial.segment]:
            continue
        best[trial.segment] = trial.loss
        ended = max((s.ended for s in trial.slices if s.ended is not None), default=0.0)
        key = "best_loss" if trial.segment is None else f"best_loss/{trial.segment}"
        yield Measured(key_of(key), trial.loss, round(ended * 1000), count)
