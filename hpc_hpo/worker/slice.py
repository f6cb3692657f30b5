"""One slice, from its request to its outcome: fence, checkpoint, payload, verdict."""

from __future__ import annotations

from hpc_hpo.clock import Clock
from hpc_hpo.errors import StorageError
from hpc_hpo.model import INHERITED, ErrorInfo, SliceEnd, SliceOutcome, SliceRequest, TaskSpec
from hpc_hpo.worker.checkpoint import choose, remove_leftovers
from hpc_hpo.worker.fence import Fenced, candidates, check_fence, claim, record_choice
from hpc_hpo.worker.job import SliceJob, stamp, trial_folder
from hpc_hpo.worker.log import LogFile
from hpc_hpo.worker.node import Node, Watch
from hpc_hpo.worker.objective import describe_error
from hpc_hpo.worker.offline import add_attempts, attempts
from hpc_hpo.worker.payload_python import RunnerClient


def run_slice(
    request: SliceRequest,
    task: TaskSpec,
    *,
    node: Node,
    watch: Watch,
    log: LogFile,
    runner: RunnerClient,
    clock: Clock,
) -> SliceOutcome:
    """Run one slice to its end.

    Args:
        request: from the steering process.
        task: what all slices of the study share.
        node: where this worker runs.
        watch: what may end the slice early.
        log: where the payload prints.
        runner: the process for Python objectives.
        clock: injected time.

    Returns:
        A whole outcome, whatever happened; nothing is raised for an error of the payload, the
        disk or the trial's folder.
    """
    started, log_start = clock.now(), log.size()
    outcome: SliceOutcome
    restored: str | None = None
    try:
        job = _begin(request, task, watch, log, log_start, clock, started)
        restored = job.restored.name if job.restored is not None else None
        seen = job.attempts_log.stat().st_size if job.attempts_log.exists() else 0
        outcome = _run_payload(job, runner)
        add_attempts(outcome, attempts(job.attempts_log, seen))
        job.add_saved(outcome)
        # A slice that was taken for dead must not win over the one that replaced it.
        check_fence(job.folder, request["slice"])
    except Fenced as error:
        outcome = SliceOutcome(
            end=SliceEnd.FENCED.value, loss=None, error=ErrorInfo(kind="fenced", message=str(error))
        )
    except (OSError, StorageError) as error:
        info = describe_error("storage", error)
        info["transient"] = True
        outcome = SliceOutcome(end=SliceEnd.FAILED.value, loss=None, error=info)
    outcome["restored"] = restored
    outcome["log"] = [log.name, log_start, log.size()]
    return stamp(outcome, request, node, started, clock.now())


def _begin(
    request: SliceRequest,
    task: TaskSpec,
    watch: Watch,
    log: LogFile,
    log_start: int,
    clock: Clock,
    started: float,
) -> SliceJob:
    """Claim the trial and choose the checkpoint to go on from (see fence)."""
    folder, number = trial_folder(request), request["slice"]
    claim(folder, number)
    saved, lineage, parent = None, list[str](), request.get("parent")
    if number > 1 or parent is not None:
        names = candidates(folder, number, parent is not None)
        saved, lineage = choose(folder, names, log.note)
        if saved is None and parent is not None:
            raise StorageError(
                f"the checkpoint of trial {parent['trial']} that this trial goes on from is "
                f"damaged or gone: {folder / INHERITED}"
            )
        record_choice(folder, number, lineage)
        check_fence(folder, number)
        remove_leftovers(folder, number)
    return SliceJob(
        request=request,
        task=_with_own_inputs(task, request),
        watch=watch,
        log=log,
        log_start=log_start,
        clock=clock,
        started=started,
        restored=saved,
        lineage=lineage,
    )


def _with_own_inputs(task: TaskSpec, request: SliceRequest) -> TaskSpec:
    """The task with the inputs of the trial's segment beside those that all share."""
    own = request.get("segment", {}).get("inputs")
    if not own:
        return task
    more = task.copy()
    more["inputs"] = {**task.get("inputs", {}), **own}
    return more


def _run_payload(job: SliceJob, runner: RunnerClient) -> SliceOutcome:
    if job.past_timeout():
        return job.timed_out()
    # A node opens what its study runs, and no more; the pool's fork server has it already.
    if job.task["kind"] != "python":
        from hpc_hpo.worker.payload_command import run_command

        outcome = run_command(job)
    elif job.shape.ranks > 1:
        from hpc_hpo.worker.payload_ranks import run_ranks

        outcome = run_ranks(job)
    else:
        outcome = runner.run(job)
    if outcome["end"] == SliceEnd.PAUSED.value and not (outcome.get("checkpoint") or job.restored):
        job.log.note(
            f"trial {job.request['trial']} paused without any checkpoint; it will start afresh"
        )
    return outcome
