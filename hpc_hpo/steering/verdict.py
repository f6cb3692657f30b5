"""What a slice's end means for its trial: pure decisions, in one place.

Only the payload's own errors spend attempts. Walltime, lost nodes, preemption and a dead
steering process never do (parsl #1905); they are bounded by `max_losses`, the slices in a row
that end without progress, so that a trial that kills its node or never reaches a checkpoint
within a block does not run for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpc_hpo.journal import Event, StudyState
from hpc_hpo.model import CheckpointInfo, ErrorInfo, SliceEnd, SliceOutcome, Trial, TrialState
from hpc_hpo.steering.terms import Terms

#: Errors that the same point would meet again: not tried again.
LASTING_ERRORS = frozenset({"loss", "timeout", "import", "network"})

#: Reasons of pauses that were asked for, whatever the trial had done until then.
PLANNED = ("steering", "stop", "rung")


#: So many failures in one run, and nothing else in the whole study, end a search without a budget
#: of trials: it would go on failing for as long as its node-hours last.
HOPELESS = 100


def reached(terms: Terms, state: StudyState, now: float | None = None) -> str:
    """Which limit of the whole study is reached, or "".

    That of epochs is not among them: see spending.

    Args:
        now: until when blocks are counted; None: until the journal's last event.
    """
    if terms.wall_time_s is not None and state.elapsed_s >= terms.wall_time_s:
        return "wall_time"
    until = state.last_at if now is None else now
    if terms.node_s is not None and state.node_s(until or 0.0, terms.nodes) >= terms.node_s:
        return "node_hours"
    failed = state.trial_states[TrialState.FAILED.value]
    here = state.final_trials - state.run_base[0]
    if terms.endless and here >= HOPELESS and failed == state.final_trials and not state.steps:
        return "failing"
    return ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The consequence of a slice's end.

    Attributes:
        state: the trial's new state.
        wasted_s: worker-seconds whose work has to be done again.
        futile: the slice made no progress and it was not the payload's own error.
        error: why the trial failed, when that is not the slice's own error.
    """

    state: TrialState
    wasted_s: float = 0.0
    futile: bool = False
    error: ErrorInfo | None = None


def judge(trial: Trial, outcome: SliceOutcome, max_attempts: int, max_losses: int) -> Verdict:
    """Decide what follows from `outcome`, which came from the trial's open slice.

    Args:
        trial: as it was before the outcome.
        outcome: the slice's end; its `checkpoint` is the trial's newest committed one.
        max_attempts: failed attempts after which the trial has failed.
        max_losses: futile slices in a row after which it has.
    """
    end = SliceEnd(outcome["end"])
    if end is SliceEnd.COMPLETED:
        return Verdict(TrialState.COMPLETED)
    if end is SliceEnd.DECLINED:
        begun = any(s.started is not None for s in trial.slices)
        return Verdict(TrialState.PAUSED if begun else TrialState.ASKED)
    error = outcome.get("error") or {}
    if end is SliceEnd.FAILED and not error.get("transient"):
        lasting = error.get("kind") in LASTING_ERRORS
        failed = lasting or trial.failures + 1 >= max_attempts
        return Verdict(TrialState.FAILED if failed else TrialState.PAUSED)
    wasted = _wasted(trial, outcome)
    futile = not _progressed(trial, outcome) and outcome.get("reason") not in (
        "steering",
        "stop",
        "rung",
    )
    if futile and trial.losses + 1 >= max_losses:
        why = error.get("message") or outcome.get("reason") or end.value
        return Verdict(
            TrialState.FAILED,
            wasted,
            True,
            {
                "kind": "losses",
                "message": f"given up after {trial.losses + 1} slices in a row that ended "
                f"without a new checkpoint; the last one: {why}",
            },
        )
    return Verdict(TrialState.PAUSED, wasted, futile)


def _progressed(trial: Trial, outcome: SliceOutcome) -> bool:
    checkpoint = outcome.get("checkpoint")
    known = trial.checkpoint["name"] if trial.checkpoint else None
    return checkpoint is not None and checkpoint["name"] != known


def _wasted(trial: Trial, outcome: SliceOutcome) -> float:
    """Seconds of the slice after its last own checkpoint."""
    if "started" not in outcome or "ended" not in outcome:
        return 0.0
    since = outcome["started"]
    checkpoint: CheckpointInfo | None = outcome.get("checkpoint")
    if checkpoint is not None and checkpoint["slice"] == outcome["slice"]:
        since = max(since, checkpoint["at"])
    return max(0.0, outcome["ended"] - since)


def usable_loss(outcome: SliceOutcome) -> float | None:
    """The loss of a completed slice when it is a finite number, as are all its objectives."""
    loss = outcome.get("loss")
    finite = loss is not None and all(map(math.isfinite, [loss, *outcome.get("values", ())]))
    return loss if finite else None


def end_event(trial: Trial, outcome: SliceOutcome, terms: Terms, now: float) -> Event:
    """The journal's event of the end of the trial's open slice."""
    record = trial.slices[-1]
    verdict = judge(trial, outcome, terms.max_attempts, terms.max_losses)
    event: Event = {"e": "end", "at": now, **outcome, "state": verdict.state.value}
    if "block" in outcome:
        # Workers number the blocks of their own run only.
        event["block"] = f"{record.run}.{outcome['block']}"
    if verdict.wasted_s:
        event["wasted_s"] = round(verdict.wasted_s, 6)
    if verdict.futile:
        event["futile"] = True
    if verdict.error is not None:
        event["error"] = _joined(outcome.get("error"), verdict.error)
    if verdict.state is TrialState.COMPLETED and usable_loss(outcome) is None:
        event["state"] = TrialState.FAILED.value
        event["end"] = SliceEnd.FAILED.value
        found = outcome.get("values") or outcome.get("loss")
        message = f"the loss is {found!r}, not a finite number"
        event["error"] = {"kind": "loss", "message": message}
    return event


def _joined(error: ErrorInfo | None, verdict: ErrorInfo) -> ErrorInfo:
    """The slice's own error with the verdict's kind and message on top."""
    merged = ErrorInfo(**(error or {}))
    merged.update(verdict)
    return merged
