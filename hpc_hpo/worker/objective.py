"""Loading a Python objective, calling it, and turning what comes back into an outcome."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc_hpo.errors import StorageError
from hpc_hpo.fsio import NO_ROOM
from hpc_hpo.model import ErrorInfo, SliceEnd, SliceOutcome, TaskSpec
from hpc_hpo.worker.context import TrialContext
from hpc_hpo.worker.fence import Fenced

Objective = Callable[..., Any]
#: Frames of these files are ours: a user's traceback does not show them.
_OURS = str(Path(__file__).resolve().parent) + os.sep
_PROGRAM = "<frozen importlib._bootstrap"


class ObjectiveMissing(Exception):
    """The module has no such function."""


@functools.lru_cache(maxsize=64)
def _load(target: str, path: tuple[str, ...]) -> tuple[Objective, bool]:
    sys.path[:0] = [folder for folder in path if folder not in sys.path]
    module_name, _, function_name = target.partition(":")
    found: Any = importlib.import_module(module_name)
    for part in function_name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ObjectiveMissing(
                f"module {module_name!r} ({getattr(found, '__file__', '?')}) "
                f"has no {function_name!r}"
            ) from None
    if not callable(found):
        raise ObjectiveMissing(f"{target} is a {type(found).__name__}, not a function")
    return found, _takes_trial(found)


def _takes_trial(objective: Objective) -> bool:
    try:
        inspect.signature(objective).bind({}, None)
    except TypeError:
        return False  # def objective(config)
    except ValueError:
        return True  # a builtin without a signature
    return True


def user_traceback(error: BaseException) -> str:
    """The traceback without frames of this package and of the import machinery."""
    report = traceback.TracebackException.from_exception(error)
    todo = [report]
    while todo:
        one = todo.pop()
        one.stack = traceback.StackSummary.from_list(
            [f for f in one.stack if not f.filename.startswith((_OURS, _PROGRAM))]
        )
        todo += [e for e in (one.__cause__, one.__context__) if e is not None]
    return "".join(report.format())


def describe_error(kind: str, error: BaseException) -> ErrorInfo:
    """What a failed slice tells about the exception that ended it."""
    text = str(error)
    info = ErrorInfo(
        kind=kind,
        message=f"{type(error).__name__}: {text}" if text else type(error).__name__,
        traceback=user_traceback(error),
    )
    if isinstance(error, StorageError) or (isinstance(error, OSError) and error.errno in NO_ROOM):
        info["transient"] = True
    return info


def _failed(error: ErrorInfo) -> SliceOutcome:
    return SliceOutcome(end=SliceEnd.FAILED.value, loss=None, error=error)


def judge_loss(value: Any, name: str = "the loss") -> SliceOutcome:
    """The outcome of a trial that ended with the loss `value`.

    Args:
        name: what it is called in errors.
    """
    if isinstance(value, (str, bytes, bool)):
        return _failed(ErrorInfo(kind="output", message=f"{name} is {value!r}, not a number"))
    try:
        loss = float(value)
    except (TypeError, ValueError, OverflowError):
        kind = type(value).__name__
        return _failed(ErrorInfo(kind="output", message=f"{name} is a {kind}, not a number"))
    if not math.isfinite(loss):
        return _failed(ErrorInfo(kind="loss", message=f"{name} is {loss}, not a finite number"))
    return SliceOutcome(end=SliceEnd.COMPLETED.value, loss=loss)


def judge_losses(values: Mapping[str, Any]) -> SliceOutcome:
    """The outcome of a trial that ended with these values of several objectives."""
    found: list[float] = []
    for name, value in values.items():
        outcome = judge_loss(value, f"the objective {name}")
        loss = outcome.get("loss")
        if loss is None:
            return outcome
        found.append(loss)
    return SliceOutcome(end=SliceEnd.COMPLETED.value, loss=found[0], values=found)


def _judge(value: Any, trial: TrialContext, names: Sequence[str]) -> SliceOutcome:
    """The outcome of an objective that returned `value`.

    Args:
        names: of several objectives; empty where there is one loss.
    """
    if value is None:
        if trial.stop_reason is not None:
            return SliceOutcome(end=SliceEnd.PAUSED.value, loss=None, reason=trial.stop_reason)
        return _failed(
            ErrorInfo(
                kind="output",
                message="the objective returned None although trial.should_stop() never was "
                "true; return the loss, a number or a dict with the key "
                f"{_listed(names or ['loss'])}",
            )
        )
    if names and not isinstance(value, dict):
        try:
            value = dict(zip(names, value, strict=True))
        except (TypeError, ValueError):
            message = (
                f"the objective returned {value!r:.100}, not a dict with the keys {_listed(names)} "
                "or as many values"
            )
            return _failed(ErrorInfo(kind="output", message=message))
    if isinstance(value, dict):
        known = names or ["loss"]
        missing = [name for name in known if name not in value]
        if missing:
            return _failed(
                ErrorInfo(
                    kind="output",
                    message=f"the objective returned a dict without the key {_listed(missing)}: "
                    f"{sorted(map(str, value))}",
                )
            )
        values = {name: value[name] for name in known}
        outcome = judge_losses(values) if names else judge_loss(value["loss"])
        extra = {str(name): item for name, item in value.items() if name not in known}
        if extra:
            # The final metrics belong to the last step.
            step = max(trial.reports, default=0)
            before = trial.reports.get(step, {})
            trial.report(step, **extra)
            trial.reports[step] = {**before, **trial.reports[step]}
        return outcome
    return judge_loss(value)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def evaluate(task: TaskSpec, point: dict[str, Any], trial: TrialContext) -> SliceOutcome:
    """Run the objective for one slice. Whatever it raises becomes part of the outcome."""
    try:
        objective, takes_trial = _load(task["target"], tuple(task.get("path", ())))
    except (Exception, SystemExit) as error:
        return _failed(describe_error("import", error))
    try:
        value = objective(point, trial) if takes_trial else objective(point)
        return _judge(value, trial, list(task.get("objectives", ())))
    except Fenced as error:
        return SliceOutcome(
            end=SliceEnd.FENCED.value, loss=None, error=ErrorInfo(kind="fenced", message=str(error))
        )
    except SystemExit as error:
        info = describe_error("exit", error)
        info["message"] = f"the objective called sys.exit({error.code!r}); return the loss instead"
        info["exit_code"] = error.code if isinstance(error.code, int) else int(bool(error.code))
        return _failed(info)
    except BaseException as error:
        return _failed(describe_error("exception", error))
