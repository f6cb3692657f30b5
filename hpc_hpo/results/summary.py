"""How a study stands, as one plain object: what ``hpc-hpo status`` shows."""

from __future__ import annotations

from typing import Any

from hpc_hpo.block_record import BlockRecord
from hpc_hpo.folder import StudyFolder, steering_alive
from hpc_hpo.journal import StudyState
from hpc_hpo.model import SliceEnd, TrialState
from hpc_hpo.results.fronts import front_row
from hpc_hpo.results.limits import limits, node_seconds
from hpc_hpo.results.segments import SegmentRow, segment_counts, segment_rows
from hpc_hpo.results.table import direction_sign
from hpc_hpo.steering.loop import DONE_REASONS

#: States of a segment of which nothing is left to do.
OVER = ("done", "target", "stopped", "failed")


def study_state(state: StudyState, segments: list[SegmentRow], alive: bool) -> str:
    """One word for the whole study.

    new: never run; running: a steering process is at work; done: nothing is left to do;
    failed: nothing is left to do and no trial has a loss; stopped: work is left, and nobody
    is at it.
    """
    if alive:
        return "running"
    if state.runs == 0:
        return "new"
    over = all(row.state in OVER for row in segments)
    finished = state.stop_reason in DONE_REASONS or over
    if not finished:
        return "stopped"
    return "done" if state.trial_states[TrialState.COMPLETED.value] else "failed"


def _block_end(block: BlockRecord, state: StudyState, now: float, alive: bool) -> float:
    """Until when a block without a recorded end is counted: no block outlives its deadline,
    and without a steering process nothing is known of it after the journal's last event.
    """
    limits = [now, block.deadline]
    if not alive:
        limits.append(state.last_at)
    return min(limit for limit in limits if limit is not None)


def allocated_seconds(state: StudyState, now: float, alive: bool) -> float:
    """Worker-seconds held by all blocks so far."""
    ends = ((block, _block_end(block, state, now, alive)) for block in state.blocks.values())
    return sum((block.allocated_s(end) for block, end in ends), 0.0)


def _blocks(state: StudyState, now: float, alive: bool) -> dict[str, Any]:
    counts = {"requested": 0, "running": 0, "ended": 0, "abandoned": 0}
    held = []
    for block in state.blocks.values():
        counts["abandoned" if block.state != "ended" and not alive else block.state] += 1
        if block.state == "running" and alive:
            left = max(0.0, block.deadline - now) if block.deadline is not None else None
            held.append(
                {
                    "block": block.id,
                    "job": block.job,
                    "workers": block.workers,
                    "seconds_left": left,
                }
            )
    return {**counts, "total": len(state.blocks), "held": held}


def _segments(rows: list[SegmentRow]) -> dict[str, Any]:
    problems = {str(row.name): row.problem for row in rows if row.problem is not None}
    return {**segment_counts(rows), "problems": problems}


def summary(
    folder: StudyFolder, state: StudyState, study: dict[str, Any], now: float
) -> dict[str, Any]:
    """The object of ``hpc-hpo status --json``; JSON values only, times in seconds.

    - study, dir: its name and folder
    - state: see study_state; stop_reason: why the last run stopped, if it said so
    - steering: {host, pid, since} of the steering process, or null
    - trials: counts by state, total, and budget (null where it sets no number of them, or there
      is no study file to read)
    - limits: {kind, used, most} of each limit of the budget that is reached by computing, the
      nearest first; kind is trials, steps or node-hours
    - segments: counts by state, total, and problems: those that failed -> why; null in a study
      without segments
    - best: {trial, loss, point}, or null; of several objectives, by the first
    - front: with several objectives, {trials, hypervolume}: the numbers of the best trials; null in
      a study with segments, where each has its own
    - blocks: counts by state, total, and those held now with their seconds_left; abandoned
      are those whose end nobody recorded, because their steering process died
    - slices: counts by how they ended
    - utilisation: busy_worker_seconds / allocated_worker_seconds, null before any block has
      begun; slices count once they have ended, so it lags while long ones run
    - allocated_node_seconds: what the blocks have held of the machine
    - lost_worker_seconds: worker time whose results had to be computed again
    - steering_cpu_seconds; elapsed_seconds, while a steering process was at work; runs, the
      number of steering processes so far
    - refused: outcomes that came from slices that were no longer their trial's newest
    - overran: trials that ran past a rung to their end

    Args:
        study: the frozen study as a plain dict.
        now: seconds since the epoch.
    """
    holder = steering_alive(folder, now)
    alive = holder is not None
    best = state.best(direction_sign(study))
    segments = segment_rows(state, study)
    budgets = [row.budget for row in segments]
    trials = None if None in budgets else sum(filter(None, budgets))
    allocated = allocated_seconds(state, now, alive)
    # What a living steering process has not yet written down.
    since = max(0.0, now - state.last_at) if alive and state.last_at is not None else 0.0
    return {
        "study": study.get("name", folder.path.name),
        "dir": str(folder.path),
        "state": study_state(state, segments, alive),
        "stop_reason": state.stop_reason,
        "steering": {key: holder[key] for key in ("host", "pid", "since")} if holder else None,
        "trials": {
            **{each.value: state.trial_states[each.value] for each in TrialState},
            "total": len(state.trials),
            "budget": trials,
        },
        "limits": [
            {"kind": limit.kind, "used": limit.used, "most": limit.most}
            for limit in limits(state, study, trials, now, alive)
        ],
        "segments": _segments(segments) if "segments" in study else None,
        "front": front_row(segments[0].front, segments[0].goals) if len(segments) == 1 else None,
        "best": best and {"trial": best.id, "loss": best.loss, "point": best.point},
        "blocks": _blocks(state, now, alive),
        "slices": {end.value: state.slice_ends[end.value] for end in SliceEnd},
        "utilisation": state.busy_s / allocated if allocated > 0 else None,
        "busy_worker_seconds": state.busy_s,
        "allocated_worker_seconds": allocated,
        "allocated_node_seconds": node_seconds(state, study, now, alive),
        "lost_worker_seconds": state.wasted_s,
        "steering_cpu_seconds": state.steering_cpu_s,
        "elapsed_seconds": state.elapsed_s + since,
        "runs": state.runs,
        "refused": len(state.refused),
        "network_refused": state.network_refused,
        "overran": len(state.overran),
    }
