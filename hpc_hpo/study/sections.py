"""The sections of study.yaml as strict, immutable models. docs/study.md explains each key."""

from __future__ import annotations

import ipaddress
import re
import string
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from hpc_hpo.errors import InputError
from hpc_hpo.schema import Count, Duration, Model, PositiveDuration, Size, refuse
from hpc_hpo.units import format_duration
from hpc_hpo.yamlio import Document

#: Prefix of the environment variables that tell a payload about its slice.
RESERVED_ENV = "HPC_HPO_"
SIGNALS = ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGINT", "SIGTERM")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def placeholders(argument: str) -> list[str]:
    """The names in the ``{name}`` placeholders of one argument; ``{{`` is a plain brace.

    Raises:
        ValueError: a brace without its partner, or a placeholder that is more than a name.
    """
    names = []
    for _, name, spec, conversion in string.Formatter().parse(argument):
        if name is None:
            continue
        if spec or conversion or not name:
            raise ValueError("a placeholder is a name in braces and nothing more")
        names.append(name)
    return names


def _inside(value: str) -> str:
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts:
        raise refuse("this must stay inside the trial's working folder", "a relative path")
    return value


#: A path or glob inside a trial's working folder.
InnerPath = Annotated[str, AfterValidator(_inside)]


def _variable(value: str) -> str:
    if not _VARIABLE.match(value):
        raise refuse("not a name", "letters, digits and _, not beginning with a digit")
    return value


Identifier = Annotated[str, AfterValidator(_variable)]


class Loss(Model):
    """Where the loss of a command is found: a key of a JSON file, or a line it prints."""

    file: InnerPath | None = Field(None, description="JSON file in the working folder")
    key: str | None = Field(None, min_length=1, description="key of the loss; a.b goes deeper")
    stdout: str | None = Field(None, description="regular expression with one (group)")

    @field_validator("stdout")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            valid = r'a regular expression with one (group), as in "val_loss=(\\S+)"'
            try:
                groups = re.compile(value).groups
            except re.error as error:
                raise refuse(f"not a regular expression: {error}", valid) from None
            if groups != 1:
                raise refuse(f"the expression has {groups} groups", valid)
        return value

    def spec(self) -> dict[str, str]:
        """The form that workers get: {"stdout": ...} or {"file": ..., "key": ...}."""
        if self.stdout is not None:
            return {"stdout": self.stdout}
        return {"file": self.file or "output.json", "key": self.key or "loss"}


class OptimizerChoice(Model):
    """The optimiser's name, its seed, and its own options."""

    model_config = ConfigDict(extra="allow")

    name: str = Field("auto", min_length=1, description="the optimiser's name")
    seed: int | None = Field(None, ge=0, description="the optimiser's seed; the study's by default")

    def spec(self) -> dict[str, Any]:
        """Name and options, without the seed: what the optimisers' registry takes."""
        return {"name": self.name, **(self.model_extra or {})}


class Budget(Model):
    """When the study is done: at the first limit that is reached."""

    trials: Count | None = Field(None, description="number of trials, as in trials: 40")
    epochs: Count | None = Field(None, description="steps that all trials together report")
    node_hours: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="node-hours of all blocks, all runs"
    )
    parallel: Count | None = Field(None, description="trials at one time; all workers by default")
    wall_time: PositiveDuration | None = Field(None, description="time of steering, all runs")
    target_loss: float | None = Field(None, description="stop once a loss is as good as this")

    @model_validator(mode="after")
    def _ends(self) -> Budget:
        if self.trials is None and self.epochs is None and self.node_hours is None:
            raise refuse(
                "nothing says how much is to be computed", "trials, epochs or node_hours, as in "
                "{trials: 40}",
            )  # fmt: skip
        return self

    def problems(self, kind: str, doc: Document) -> Iterator[InputError]:
        """What the model cannot see; `kind` is that of the study's payload."""
        if self.epochs is not None and kind == "evaluation":
            yield doc.problem(
                "budget.epochs", "an evaluation reports no steps", found=self.epochs,
                valid="budget.trials or budget.node_hours",
            )  # fmt: skip

    def words(self, trials: int | None) -> str:
        """What ends the search, for people.

        Args:
            trials: of all segments together; None: not limited.
        """
        limits = [] if trials is None else [f"{trials} trials"]
        limits += [] if self.epochs is None else [f"{self.epochs} steps of all trials together"]
        limits += [] if self.node_hours is None else [f"{self.node_hours:g} node-hours"]
        return limits[0] if len(limits) == 1 else f"{', '.join(limits)}; whichever comes first"


def _ranks(value: Any) -> Any:
    if isinstance(value, str) and value.strip().isdigit():
        raise refuse("wrong type", "a whole number, without quotes")
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise refuse("wrong type", "a whole number, or an expression over parameters")
    if isinstance(value, int) and value < 1:
        raise refuse("out of range", "a whole number of at least 1")
    return value


class TrialNeeds(Model):
    """What one trial uses, and what is done when it fails."""

    ranks: Annotated[int | str, BeforeValidator(_ranks)] = Field(
        1, description="processes; a number, or an expression over parameters, as in px * py"
    )
    ranks_per_node: Count | None = Field(None, description="of them on each node")
    nodes: Count | None = Field(None, description="nodes, in place of ranks_per_node")
    cores_per_rank: Count = Field(1, description="cores for each process")
    gpus_per_rank: float = Field(
        0, ge=0, description="GPUs for each process; 0.5 has two of a trial share one"
    )
    threads: Count | None = Field(None, description="OMP_NUM_THREADS; its cores by default")
    exclusive: bool = Field(False, description="no other trial on its nodes")
    rank_timeout: PositiveDuration = Field(
        60.0, description="how long ranks wait for one that does not come to should_stop()"
    )
    memory: Size | None = Field(None, description="memory of the whole trial")
    expected_time: PositiveDuration | None = Field(None, description="usual time of a trial")
    max_time: PositiveDuration | None = Field(None, description="a trial is ended after this")
    max_attempts: Count = Field(3, description="attempts before the trial has failed")
    max_losses: Count = Field(
        5, description="slices lost in a row without a new checkpoint before the trial has failed"
    )
    fresh_process: bool = Field(False, description="a new Python process for every slice")


def _signal_name(value: Any) -> Any:
    if isinstance(value, str) and not value.startswith("SIG"):
        return f"SIG{value}"
    return value


class Checkpointing(Model):
    """How often trials are saved, what is kept, and how a command is told to save."""

    files: tuple[InnerPath, ...] = Field((), description="globs of a command's checkpoint files")
    every: PositiveDuration | None = Field(
        None, description="time between checkpoints; by default 5m, and longer for long ones"
    )
    keep: Count = Field(2, description="checkpoints kept of each trial")
    signal: Annotated[
        Literal["SIGUSR1", "SIGUSR2", "SIGHUP", "SIGINT", "SIGTERM"],
        BeforeValidator(_signal_name),
    ] = Field("SIGUSR1", description="sent to a command ahead of its deadline")
    kill_grace: Duration = Field(10.0, description="time from TERM to KILL")

    @field_validator("files", mode="before")
    @classmethod
    def _list_of_globs(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Blocks(Model):
    """The batch jobs that hold the workers; written as a mapping, or as the word auto."""

    nodes: Count = Field(1, description="nodes of each block")
    walltime: PositiveDuration | None = Field(None, description="a block is killed after this")
    max: Count = Field(1, description="blocks at one time")
    workers_per_node: Count | None = Field(None, description="trials at one time on a node")

    _auto: bool = PrivateAttr(False)

    @property
    def auto(self) -> bool:
        """Whether the plan chooses them; until it has, they hold the defaults."""
        return self._auto

    def words(self) -> str:
        """The blocks in words, for people."""
        nodes = f"{self.nodes} node{'s' if self.nodes > 1 else ''}"
        walltime = (
            "without end" if self.walltime is None else f"for {format_duration(self.walltime)}"
        )
        return f"blocks of {nodes} {walltime}, {self.max} at one time"

    @model_validator(mode="wrap")
    @classmethod
    def _auto_or_mapping(cls, value: Any, handler: ModelWrapValidatorHandler[Blocks]) -> Blocks:
        if isinstance(value, str):
            if value != "auto":
                raise refuse("neither auto nor a mapping", "auto, or as in {nodes: 1, max: 4}")
            blocks = handler({})
            blocks._auto = True
            return blocks
        return handler(value)

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> Any:
        return "auto" if self._auto else handler(self)


#: A host's name, an address, or a network of addresses.
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9])?\Z")


def check_network(value: Any) -> Any:
    """The key `network`: deny, allow, or a list of what is open besides the allocation."""
    valid = "deny, allow, or a list of hosts that stay open, as in [db.cluster, 10.4.0.0/16]"
    if value in ("deny", "allow"):
        return value
    if not isinstance(value, (list, tuple)) or not value:
        raise refuse("neither a word nor a list of hosts", valid)
    for host in value:
        text = host if isinstance(host, str) else ""
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            if not _HOST.match(text):
                raise refuse(f"{host!r} is no host", valid) from None
    return tuple(value)


def normal_optimizer(value: Any) -> Any:
    """Both forms of the key as one: a name, or a mapping with the name in it."""
    return {"name": value} if isinstance(value, str) else value


def check_env(env: Mapping[str, str]) -> Mapping[str, str]:
    """Refuse names that no shell can set and those that the package sets itself."""
    for name, value in env.items():
        if not _VARIABLE.match(name) or name.startswith(RESERVED_ENV):
            raise refuse(
                f"{name!r} cannot be set here",
                f"names of letters, digits and _ that do not begin with {RESERVED_ENV}",
            )
        if "\0" in value:
            raise refuse(f"{name} holds a NUL character", "text without NUL")
    return env
