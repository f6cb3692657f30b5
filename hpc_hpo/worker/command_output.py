"""What a command leaves behind: its loss and its reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc_hpo.model import ErrorInfo, SliceEnd, SliceOutcome, TaskSpec
from hpc_hpo.worker.log import LogFile
from hpc_hpo.worker.objective import judge_loss, judge_losses

REPORTS = "metrics.jsonl"
_DEFAULT_LOSS = {"file": "output.json", "key": "loss"}


class NoOutput(Exception):
    """The command has not written a loss."""


def loss_rule(task: TaskSpec) -> dict[str, Any]:
    """Where the loss is: {"file", "key"} or {"stdout"}."""
    rule = task.get("loss") or {}
    return rule if "stdout" in rule else {**_DEFAULT_LOSS, **rule}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NoOutput(f"the command wrote no {path.name}") from None
    except (ValueError, RecursionError) as error:
        raise NoOutput(f"{path.name} is not valid JSON: {error}") from error


def _dig(document: Any, key: str, name: str) -> Any:
    """The value at a key path such as ``metrics.val.loss``; a key with dots in it wins."""
    if isinstance(document, dict) and key in document:
        return document[key]
    found = document
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            raise NoOutput(f"{name} has no key {key!r}")
        found = found[part]
    return found


def read_output(task: TaskSpec, workdir: Path, log: LogFile, log_start: int) -> SliceOutcome:
    """The outcome that the command's loss means.

    Raises:
        NoOutput: there is no loss; the text says where it was looked for.
    """
    rule, objectives = loss_rule(task), task.get("objectives", {})
    if task["kind"] == "evaluation":
        refused = _refused(_read_json(workdir / rule["file"]), rule["file"])
        if refused is not None:
            return refused
    if not objectives:
        return judge_loss(_number(rule, workdir, log, log_start))
    rules = {n: own if "stdout" in own else {**rule, **own} for n, own in objectives.items()}
    return judge_losses({n: _number(r, workdir, log, log_start) for n, r in rules.items()})


def _number(rule: Mapping[str, Any], workdir: Path, log: LogFile, log_start: int) -> float:
    """One loss, by the rule where it is.

    Raises:
        NoOutput: it is not there.
    """
    if "stdout" in rule:
        text = log.last_match(log_start, rule["stdout"])
        if text is None:
            raise NoOutput(f"the command printed nothing that matches {rule['stdout']!r}")
        try:
            return float(text)
        except ValueError:
            raise NoOutput(f"the printed loss {text!r} is not a number") from None
    document = _read_json(workdir / rule["file"])
    value = _dig(document, rule["key"], rule["file"])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NoOutput(f"{rule['file']}: {rule['key']} is {value!r}, not a number")
    return value


def _refused(document: Any, name: str) -> SliceOutcome | None:
    """The outcome when the evaluation's own status says that it failed."""
    if not isinstance(document, dict):
        raise NoOutput(f"{name} is not a JSON object")
    status = document.get("status", 0)
    if status == 0 or status is None:
        return None
    message = f"the evaluation ended with status {status!r}"
    if document.get("message"):
        message += f": {document['message']}"
    return SliceOutcome(
        end=SliceEnd.FAILED.value, loss=None, error=ErrorInfo(kind="output", message=message)
    )


def _report(line: bytes) -> tuple[int, dict[str, float]] | None:
    """A line of ``metrics.jsonl`` as step and metrics; None: of something else, or half written."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    step = record.get("step") if isinstance(record, dict) else None
    if type(step) is not int:
        return None
    metrics = {n: v for n, v in record.items() if n != "step" and type(v) in (int, float)}
    return step, metrics


def read_reports(workdir: Path) -> dict[int, dict[str, float]]:
    """Metrics by step from ``metrics.jsonl``; lines that are not such an object are skipped."""
    path = workdir / REPORTS
    if not path.exists():
        return {}
    with open(path, "rb") as stream:
        return dict(found for line in stream if (found := _report(line)) is not None)


class StepWatch:
    """The highest step in ``metrics.jsonl`` while it grows; reads only what is new."""

    def __init__(self, workdir: Path) -> None:
        self._path = workdir / REPORTS
        self._read = 0
        self._highest = -1

    def look(self) -> int:
        """The highest step so far; -1 while there is none."""
        try:
            size = self._path.stat().st_size
            if size == self._read:
                return self._highest
            with open(self._path, "rb") as stream:
                # A file that was written anew is read from its start.
                self._read = self._read if size > self._read else 0
                stream.seek(self._read)
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    found = _report(line)
                    self._highest = self._highest if found is None else max(self._highest, found[0])
        except FileNotFoundError:
            pass  # none was reported yet
        return self._highest
