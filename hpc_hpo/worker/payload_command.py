"""Commands: any program that reads its parameters and writes a loss."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hpc_hpo.errors import InputError
from hpc_hpo.model import Pace, SliceEnd, SliceOutcome
from hpc_hpo.worker.checkpoint import Saved, Store
from hpc_hpo.worker.command_files import FileWatch, put_back
from hpc_hpo.worker.command_output import NoOutput, StepWatch, loss_rule, read_output, read_reports
from hpc_hpo.worker.contained import in_container
from hpc_hpo.worker.fence import list_names
from hpc_hpo.worker.job import SliceJob, base_environment, start_payload
from hpc_hpo.worker.margin import NONE, interval, margin
from hpc_hpo.worker.payload_evaluation import ignored, keep_products, prepare
from hpc_hpo.worker.place import distributed, master_port
from hpc_hpo.worker.process import end_session, signal_session
from hpc_hpo.worker.rank_server import RankServer

_TICK_S = 0.1
#: A launcher gets this long to end its ranks on other nodes, in seconds.
LAUNCHER_GRACE_S = 1.0
_INPUT = "input.json"
#: Ends after which an evaluation's metrics are whole.
_ENDED = (SliceEnd.COMPLETED.value, SliceEnd.FAILED.value)
_WORKDIR = re.compile(r"s(\d{6,})$")


def run_command(job: SliceJob) -> SliceOutcome:
    """Run the command for one slice; the outcome's fields that only the payload knows.

    Raises:
        Fenced: a newer slice of the trial has started.
        OSError: the working directory cannot be made.
    """
    workdir = _make_workdir(job)
    request, task = job.request, job.task
    ranks: RankServer | None = None
    try:
        argv = _arguments(job)
        if not argv:
            return job.failed("command", "the command is empty")
        argv, environment = in_container(job, argv, _environment(job), workdir)
        if job.shape.ranks > 1:
            ranks = RankServer(job, workdir, argv=argv, environment=environment)
            argv = ranks.launch
        process, gate = start_payload(job, argv, cwd=workdir, env=environment)
        job.bind(process.pid)
    except (InputError, ValueError) as error:
        return job.failed("command", str(error))
    except OSError as error:
        if ranks is not None:
            ranks.close()
        return job.failed("command", f"{argv[0]}: cannot be started: {error.strerror}")
    try:
        _remove_older_workdirs(job)
        ignore = ignored(task) if _evaluates(job) else [_INPUT, str(loss_rule(task).get("file"))]
        files = FileWatch(workdir, task.get("checkpoint_files", []), ignore)
        keep = task.get("checkpoint_keep", 2)
        store = Store(job.folder, request["slice"], job.lineage, keep, job.clock)
        steps = StepWatch(workdir)
        attendant = _Attendant(job, workdir, process, files, store, ranks, steps)
        outcome = attendant.attend()
    finally:
        # Nothing the command has started outlives its slice; the launcher ends its ranks.
        if ranks is not None:
            ranks.close()
        end_session(process, 0.0 if ranks is None else LAUNCHER_GRACE_S)
        if gate is not None:
            gate.close()
    if _evaluates(job) and outcome["end"] in _ENDED:
        keep_products(job, workdir)
    outcome["pace"] = attendant.pace
    if "error" in outcome:
        outcome["error"].setdefault("log_tail", job.log_tail())
    if store.last is not None:
        outcome["checkpoint"] = store.last.info
    outcome["reports"] = job.unknown(attendant.reports())
    return outcome


def _make_workdir(job: SliceJob) -> Path:
    workdir = job.folder / f"s{job.request['slice']:06d}"
    if workdir.exists():
        shutil.rmtree(workdir)
    workdir.mkdir(parents=True)
    if _evaluates(job):
        prepare(job, workdir)
        return workdir
    put_back(job.restored, workdir)
    (workdir / _INPUT).write_text(json.dumps(job.request["point"]))
    return workdir


def _evaluates(job: SliceJob) -> bool:
    return job.task["kind"] == "evaluation"


def _remove_older_workdirs(job: SliceJob) -> None:
    for name in list_names(job.folder):
        match = _WORKDIR.match(name)
        if match and int(match[1]) < job.request["slice"]:
            shutil.rmtree(job.folder / name, ignore_errors=True)


def _arguments(job: SliceJob) -> list[str]:
    from hpc_hpo.worker.template import fill, locate

    request, inputs = job.request, job.task.get("inputs", {})
    templates = locate(job.task["argv"], job.task.get("path", []))
    return fill(
        templates, request["point"], inputs, request["trial"], request["seed"],
        request.get("segment"),
    )  # fmt: skip


def _environment(job: SliceJob) -> dict[str, str]:
    request = job.request
    env = {
        **base_environment(job),
        "HPC_HPO_TRIAL": str(request["trial"]),
        "HPC_HPO_SLICE": str(request["slice"]),
        "HPC_HPO_SEED": str(request["seed"]),
        "HPC_HPO_CHECKPOINT_SIGNAL": _signal(job).name,
        "HPC_HPO_POINT": json.dumps(request["point"]),
    }
    if (segment := request.get("segment")) is not None:
        env["HPC_HPO_SEGMENT"] = segment["name"]
        for name, value in segment.get("values", {}).items():
            env[f"HPC_HPO_SEGMENT_{name.upper()}"] = str(value)
    if job.watch.deadline is not None:
        env["HPC_HPO_DEADLINE"] = repr(job.watch.deadline)
    if (rung := request.get("stop_step")) is not None:
        env["HPC_HPO_STOP_STEP"] = str(rung)
    place = request.get("place")
    if place is not None and job.shape.ranks == 1 and job.task.get("distributed"):
        # So that one script does for all sizes of a study. A study of single ranks is left alone:
        # by these variables frameworks take a process for one of several.
        port = master_port(request, os.environ.get("HPC_HPO_BLOCK", ""))
        env = {**distributed(place, job.shape, 0, 0, port), **env}
    for name, path in job.task.get("inputs", {}).items():
        env["HPC_HPO_INPUT_" + re.sub(r"\W", "_", name).upper()] = path
    return env


def _signal(job: SliceJob) -> signal.Signals:
    return signal.Signals[job.task.get("signal", "SIGUSR1")]


@dataclass
class _Attendant:
    """Waits for one command: saves its files, signals it in time, enforces the limits."""

    job: SliceJob
    workdir: Path
    process: subprocess.Popen[bytes]
    files: FileWatch
    store: Store
    ranks: RankServer | None
    steps: StepWatch
    signalled_at: float | None = None
    reason: str = ""
    answer_s: float | None = None

    def attend(self) -> SliceOutcome:
        """Wait until the command ends or has to be ended."""
        job = self.job
        while True:
            if self.ranks is not None:
                self.ranks.pump(0.0)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._judge(self.process.wait(timeout=_TICK_S))
            if self.ranks is not None and self.ranks.failures and self.signalled_at is None:
                return self._rank_failed()
            if job.past_timeout():
                end_session(self.process, job.kill_grace_s)
                return job.timed_out()
            if job.past_last_call():
                end_session(self.process, 0.0)
                self._save_if_changed(quiet=True)
                return job.lost(f"the command was still running at the deadline{self._ignored()}")
            self._signal_in_time()
            if self._save_is_due():
                self._save_if_changed(quiet=True)

    def _ignored(self) -> str:
        if self.signalled_at is None:
            return ""
        waited = self.job.clock.now() - self.signalled_at
        return f"; {_signal(self.job).name} had been sent {waited:.1f} s before"

    def _signal_in_time(self) -> None:
        if self.signalled_at is not None:
            return
        job = self.job
        reason = self._why_to_pause()
        if reason:
            self.signalled_at, self.reason = job.clock.now(), reason
            if self.ranks is not None:
                self.ranks.send({"signal": int(_signal(job))})
            else:
                signal_session(self.process.pid, _signal(job))

    def _why_to_pause(self) -> str:
        """walltime, rung, stop or preempted; "" while the command may go on."""
        job = self.job
        stop, deadline = job.watch.look(), job.watch.deadline
        if stop is not None:
            return stop.reason
        room = margin(job.request.get("margin_s", 1.0), None, NONE, self.store.longest_s)
        if deadline is not None and job.clock.now() >= deadline - room:
            return "walltime"
        rung = job.request.get("stop_step")
        return "rung" if rung is not None and self.steps.look() >= rung else ""

    def _save_is_due(self) -> bool:
        job, last = self.job, self.store.last_at
        if self.signalled_at is not None:
            # Seen often from here on: what is at rest when the command has to be killed counts.
            self.files.changed(job.clock.now(), quiet=True)
            return False
        since = job.started if last is None else last
        due = interval(job.task.get("checkpoint_every_s"), self.store.longest_s)
        return job.clock.now() - since >= due

    def _save_if_changed(self, *, quiet: bool) -> Saved | None:
        """Commit the checkpoint files, if they are new; a failed save does not end the slice."""
        signature = self.files.changed(self.job.clock.now(), quiet=quiet)
        if signature is None:
            return None
        reports = self.reports()
        try:
            saved = self.store.commit(
                lambda folder: self.files.copy(signature, folder),
                step=max(reports, default=None),
                reports=reports,
                kind="command",
            )
        except OSError as error:
            if error.errno != errno.EAGAIN:
                # The command still runs and may finish; its last checkpoint stays.
                self.job.log.note(f"checkpoint files could not be saved: {error}")
            return None
        self.files.mark_saved(signature)
        return saved

    def _judge(self, code: int) -> SliceOutcome:
        """The outcome of a command that ended by itself."""
        job = self.job
        if self.signalled_at is not None:
            self.answer_s = job.clock.now() - self.signalled_at
            return self._judge_signalled()
        if code != 0 and self.ranks is not None and self.ranks.failures:
            return self._rank_failed()
        if code != 0 and not _evaluates(job):
            return job.died(code)
        try:
            return read_output(job.task, self.workdir, job.log, job.log_start)
        except NoOutput as error:
            # An evaluation has failed only when it says so, or says nothing.
            return job.died(code) if code != 0 else job.failed("output", str(error), code)

    def _rank_failed(self) -> SliceOutcome:
        """One rank has ended badly; the others would wait for it."""
        assert self.ranks is not None
        self.ranks.pump(_TICK_S)
        error = self.ranks.first_failure()
        assert error is not None
        if self.job.watch.ending(self.job.request.get("margin_s", 0.0)):
            return self.job.lost("the ranks were ended as the block ended")
        return SliceOutcome(end=SliceEnd.FAILED.value, loss=None, error=error)

    def _judge_signalled(self) -> SliceOutcome:
        """After the signal any way to end is a pause, unless there is a loss."""
        job = self.job
        try:
            return read_output(job.task, self.workdir, job.log, job.log_start)
        except NoOutput:
            self._save_if_changed(quiet=False)
        return SliceOutcome(end=SliceEnd.PAUSED.value, loss=None, reason=self.reason)

    def reports(self) -> dict[int, dict[str, float]]:
        """All reports of the trial so far, those of the checkpoint it began from included."""
        before = self.job.restored.reports if self.job.restored is not None else {}
        return {**before, **read_reports(self.workdir)}

    @property
    def pace(self) -> Pace:
        """How long this slice's checkpoints and its answer to the signal took, in seconds."""
        pace = Pace()
        if self.answer_s is not None:
            pace["step_s"] = self.answer_s
        if self.store.first_at is not None:
            pace["checkpoint_s"] = self.store.longest_s
            pace["first_checkpoint_s"] = self.store.first_at - self.job.started
        return pace
