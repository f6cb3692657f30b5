"""The words of the package as data: trials, slices, their states, and what crosses processes.

A *trial* is one point of one segment until it has a loss or has failed for good. It is run as
a chain of *slices*; a slice is one stretch of it on one worker. Walltime, early stopping,
preemption, retry and resume all end a slice and start the next.

Layer 1, imported by workers: standard library only. Requests and outcomes cross the process
border as plain JSON dicts, never as pickles (numpy scalars and long doubles do not survive the
way between ppc64le and x86-64).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

Point = dict[str, Any]
#: Name of the file in the study folder that holds its TaskSpec.
TASK_FILE = "task.json"
#: Name of a trial's checkpoint that it has from its parent; slices count from 1.
INHERITED = "ckpt-000000-000001"


class SliceEnd(str, enum.Enum):
    """How a slice ended."""

    COMPLETED = "completed"  #: the trial has its loss
    PAUSED = "paused"  #: checkpointed on purpose: walltime, rung, stop request, preemption
    FAILED = "failed"  #: the payload's own error
    LOST = "lost"  #: the node, the block or the worker died under it; never the payload's fault
    FENCED = "fenced"  #: a newer slice of the trial exists; this one's work is refused
    DECLINED = "declined"  #: never started: the worker's block ends too soon


class TrialState(str, enum.Enum):
    """Where a trial stands; it moves only along TRANSITIONS."""

    ASKED = "asked"  #: no slice of it has begun
    RUNNING = "running"  #: a slice of it is submitted
    PAUSED = "paused"  #: between two slices: paused, lost, or to be tried again
    COMPLETED = "completed"  #: it has its loss
    FAILED = "failed"  #: it has no loss and gets no further slice
    STOPPED = "stopped"  #: early, by a fidelity policy; its loss is that of its last rung


#: The one state table. A trial's slice ends move it; COMPLETED, FAILED and STOPPED are final.
TRANSITIONS: dict[TrialState, frozenset[TrialState]] = {
    TrialState.ASKED: frozenset({TrialState.RUNNING, TrialState.FAILED}),
    TrialState.RUNNING: frozenset(
        {TrialState.ASKED, TrialState.PAUSED, TrialState.COMPLETED, TrialState.FAILED}
    ),
    TrialState.PAUSED: frozenset({TrialState.RUNNING, TrialState.FAILED, TrialState.STOPPED}),
    TrialState.COMPLETED: frozenset(),
    TrialState.FAILED: frozenset(),
    TrialState.STOPPED: frozenset(),
}
FINAL = frozenset({TrialState.COMPLETED, TrialState.FAILED, TrialState.STOPPED})


class ErrorInfo(TypedDict, total=False):
    """Why a slice failed or was lost."""

    kind: str  #: exception, exit, signal, timeout, loss (not finite), import, output, lost, ...
    message: str
    traceback: str
    exit_code: int
    log_tail: str
    transient: bool  #: True when it is not the payload's fault (disk full): no attempt is spent


class Pace(TypedDict, total=False):
    """What a slice learned about its own speed, in seconds."""

    checkpoint_s: float  #: longest checkpoint written
    step_s: float  #: longest time between two calls of should_stop()
    mean_step_s: float  #: mean of those times, where there were enough to tell
    first_checkpoint_s: float  #: from the slice's start to its first commit


class Usual(TypedDict):
    """What slices of the study have shown, for one that learns its own speed; see worker.margin."""

    floor_s: float  #: the site's smallest margin, in seconds
    checkpoint_s: float  #: longest checkpoint, in seconds
    spread: float  #: how many times its mean step a slice's longest one is


class CheckpointInfo(TypedDict):
    """A committed checkpoint: a folder of the trial, named by slice and sequence number."""

    name: str
    slice: int
    at: float  #: seconds since the epoch
    step: int | None


@dataclass(frozen=True, slots=True)
class Shape:
    """What one trial takes of the machine: the same on each of its nodes.

    Attributes:
        ranks: processes.
        per_node: of them, on each node; `ranks` is a multiple of it.
        cores: of each rank.
        gpus: of each rank; below 1, several ranks of the trial on a node share one.
        exclusive: no other trial runs on its nodes.
        threads: OMP_NUM_THREADS of each rank.
    """

    ranks: int = 1
    per_node: int = 1
    cores: int = 1
    gpus: float = 0.0
    exclusive: bool = False
    threads: int = 1

    @property
    def nodes(self) -> int:
        """Nodes it runs on."""
        return self.ranks // self.per_node

    @property
    def node_cores(self) -> int:
        """Cores it takes of each of its nodes."""
        return self.per_node * self.cores

    @property
    def sharers(self) -> int:
        """Ranks that share one GPU: 3 with 0.33 of one each; 1 where each has its own."""
        return int(1 / self.gpus + 1e-9) if 0 < self.gpus < 1 else 1

    @property
    def node_gpus(self) -> int:
        """GPUs it takes of each of its nodes."""
        if self.gpus < 1:
            return math.ceil(self.per_node / self.sharers) if self.gpus > 0 else 0
        return self.per_node * int(self.gpus)

    def spec(self) -> list[Any]:
        """The form that crosses process borders."""
        return [self.ranks, self.per_node, self.cores, self.gpus, self.exclusive, self.threads]


class Place(TypedDict, total=False):
    """Where a slice runs: set by the placer, read by the worker that runs it."""

    index: int  #: no other slice that runs in the block at the same time has it
    nodes: list[list[Any]]  #: [name, [cores], [GPUs]] of each node, by number from 0
    bind: bool  #: cores are the node's own, to be bound to
    mask: str  #: the variable that masks GPUs, or "" where there are none
    launch: list[str]  #: the launch line of a trial of several ranks; empty for one
    erf: str  #: text of the file that stands for {erf} in it


class LocalInput(TypedDict):
    """An input of which each node makes a copy on its own disk."""

    key: str  #: stands for its content
    files: list[list[Any]]  #: [path within the input, absolute path, bytes, sha256] of each
    single: bool  #: payloads get the one file, not the folder
    unpack: bool  #: payloads get what is in the one file, an archive
    environment: bool  #: ... which is a packed environment


class SegmentInfo(TypedDict, total=False):
    """What a slice is told of its segment, where that has a name."""

    name: str
    values: dict[str, Any]  #: numbers, texts, booleans
    inputs: dict[str, str]  #: those that the segment alone has: name -> absolute path
    local: dict[str, LocalInput]  #: those of them that nodes copy
    number: int  #: by which evaluation payloads know it: its value model_id, or its place


class Parent(TypedDict):
    """Whose checkpoint a trial goes on from, in place of which bad trial."""

    trial: int
    checkpoint: str  #: its name there; the trial itself has it as INHERITED
    step: int  #: that the checkpoint is of
    replaces: int


class SliceRequest(TypedDict, total=False):
    """Steering to worker. What all slices of a study share stands in the task file."""

    dir: str  #: the study folder, absolute
    task: str  #: name of the task file in it (see TaskSpec)
    run: int  #: number of the steering run that asked
    trial: int
    slice: int  #: fencing number, from 1; only the highest of a trial may commit
    point: Point
    segment: SegmentInfo  #: absent in a study without segments
    seed: int
    attempt: int  #: failed attempts so far + 1
    known_step: int  #: reports up to this step are in the journal already
    spent_s: float  #: payload seconds of the trial's earlier slices
    margin_s: float  #: ask for the checkpoint this long before the deadline ...
    usual: Usual  #: ... until the slice knows its own steps; from then on by these
    needs_s: float  #: do not start with less time left than this
    parent: Parent  #: of a trial that began with another's checkpoint
    stop_step: int | None  #: a rung: pause once this step has been reported
    shape: list[Any]  #: Shape.spec() of the trial
    width: int  #: how many workers' worth of nodes it takes
    place: Place  #: filled in on the way, by the placer


class EvaluationFiles(TypedDict, total=False):
    """Names of an evaluation payload's files in its working directory."""

    input: str
    data: str
    output: str
    meta: str | None
    metrics: str | None
    load: str | None  #: the checkpoint is given back as this archive
    sandbox: list[list[str]]  #: [absolute path, name in the working directory]


class ContainerSpec(TypedDict, total=False):
    """The image of a command, and how it is run; see worker.containers."""

    image: str
    runtime: str
    binds: list[str]  #: /outside[:/inside[:ro|rw]]
    network: bool
    options: list[str]
    gpus: str  #: whose GPUs the trials use, or ""


class NetworkSpec(TypedDict):
    """What trials may do on the network; see worker.offline."""

    switches: bool  #: libraries are told that there is none
    deny: bool  #: what leaves the allocation is refused
    open: list[str]  #: names, addresses and networks that are not, besides


class TaskSpec(TypedDict, total=False):
    """What every slice of a study (or segment) shares; JSON in the study folder."""

    study: str
    kind: str  #: "python", "command" or "evaluation"
    target: str  #: python: "module:function"
    path: list[str]  #: python: folders put in front of sys.path
    argv: list[str]  #: command: arguments with {name} placeholders
    loss: dict[str, Any]  #: command: {"file": ..., "key": ...} or {"stdout": regex}
    objectives: dict[str, dict[str, Any]]  #: where there are several: name -> the same
    env: dict[str, str]
    network: NetworkSpec
    inputs: dict[str, str]  #: name -> absolute path
    local: dict[str, LocalInput]  #: those of them that nodes copy
    local_folder: str | None  #: for the copies, on each node; variables in it are the node's
    environment: str  #: the input that holds the payload's Python and programs
    max_time_s: float | None  #: payload seconds a trial may use over all its slices
    signal: str  #: name of the signal sent to a command ahead of its deadline
    kill_grace_s: float  #: from TERM to KILL
    checkpoint_files: list[str]  #: command: globs in the working directory
    checkpoint_every_s: float | None  #: None = by what one takes; see worker.margin
    checkpoint_keep: int
    evaluation: EvaluationFiles  #: evaluation: names of its files
    container: ContainerSpec  #: command, evaluation: the image it runs in
    fresh_process: bool  #: a new Python process for every slice
    distributed: bool  #: command: trials of the study may be of several ranks
    rank_timeout_s: float  #: how long ranks wait for one that does not come


class SliceOutcome(TypedDict, total=False):
    """Worker to steering; also the line in the worker's outcome spool."""

    run: int
    trial: int
    slice: int
    end: str  #: a SliceEnd value
    loss: float | None
    values: list[float]  #: of several objectives, in the study's order; `loss` is the first
    reason: str  #: of a pause: walltime, rung, stop, preempted
    error: ErrorInfo
    reports: list[list[Any]]  #: [step, {metric: value}], steps above known_step
    started: float  #: seconds since the epoch
    ended: float
    width: int  #: how many workers' worth of nodes it took
    host: str
    block: str
    worker: str
    pace: Pace
    checkpoint: CheckpointInfo | None  #: the newest committed one, of any slice
    restored: str | None  #: name of the checkpoint the slice began from
    log: list[Any]  #: [file relative to the study folder, start byte, end byte]
    network: list[str]  #: what it asked for on the network and was refused


@dataclass(slots=True)
class SliceRecord:
    """One slice as the journal knows it."""

    number: int
    run: int
    submitted: float
    end: SliceEnd | None = None
    started: float | None = None
    ended: float | None = None
    block: str | None = None
    worker: str | None = None
    host: str | None = None
    reason: str | None = None
    error: ErrorInfo | None = None
    log: tuple[Any, ...] | None = None
    network: list[str] | None = None
    restored: str | None = None
    wasted_s: float = 0.0  #: worker-seconds whose work has to be done again
    width: int = 1  #: how many workers' worth of nodes it took
    step: int | None = None  #: the last that it reported


#: The reports of all trials without any.
_NO_REPORTS: Mapping[int, dict[str, float]] = {}


@dataclass(slots=True)
class Trial:
    """One trial as replayed from the journal.

    A study may have millions, and most have one slice and no rung: what is empty is one object for
    all, so `slices`, `reports`, `rungs` and `heard` are replaced and never added to.
    """

    id: int
    point: Point
    segment: str | None = None
    seed: int = 0
    state: TrialState = TrialState.ASKED
    slices: tuple[SliceRecord, ...] = ()
    failures: int = 0  #: failed attempts of the payload (losses do not count)
    losses: int = 0  #: slices in a row that ended without progress, not by their own error
    loss: float | None = None
    values: list[float] | None = None  #: of several objectives; `loss` is the first
    error: ErrorInfo | None = None
    spent_s: float = 0.0
    reports: Mapping[int, dict[str, float]] = field(default_factory=lambda: _NO_REPORTS)
    checkpoint: CheckpointInfo | None = None
    like: int | None = None  #: the trial of another segment whose point it was given
    given: int | None = None  #: its place among the segment's points of `start_from`
    superseded: bool = False  #: its segment was begun again; it counts no more
    stop_step: int | None = None  #: the rung that its last slice was to pause at
    waits: bool = False  #: it has paused at a rung and was not sent on yet
    rungs: tuple[int, ...] = ()  #: steps at which it paused for a rung
    heard: tuple[float, ...] = ()  #: rungs' losses told to the optimiser
    parent: Parent | None = None

    def __post_init__(self) -> None:
        if self.parent is not None and self.checkpoint is None:
            self.checkpoint = CheckpointInfo(name=INHERITED, slice=0, at=0.0, step=self.base)

    @property
    def base(self) -> int:
        """The step that it goes on from; 0 where it has no parent."""
        return self.parent["step"] if self.parent is not None else 0

    @property
    def gone(self) -> int:
        """The last step that it has reported, or that it goes on from."""
        return max(self.reports, default=self.base)

    def move(self, state: TrialState) -> None:
        """Change the state along the table.

        Raises:
            ValueError: the table has no such transition.
        """
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"trial {self.id}: no way from {self.state.value} to {state.value}")
        self.state = state

    @property
    def final(self) -> bool:
        """True once the trial has a loss, was stopped early, or has failed for good."""
        return self.state in FINAL

    @property
    def open_slice(self) -> SliceRecord | None:
        """The slice that was submitted and has not ended."""
        return self.slices[-1] if self.slices and self.slices[-1].end is None else None
