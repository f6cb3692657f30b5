"""The sections of a site file as strict, immutable models. docs/sites.md explains each key."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from hpc_hpo.schema import Count, Model, PositiveDuration, Size, refuse


def _cores(value: Any) -> Any:
    if value == "auto":
        # Not cpu_count: a container or a batch system may have granted fewer.
        return len(os.sched_getaffinity(0))
    if isinstance(value, str):
        raise refuse("not a number of cores", "a whole number, or auto for this machine's")
    return value


def as_tuple(value: Any) -> Any:
    """A list as YAML gives it, as the tuple that an immutable model holds."""
    return tuple(value) if isinstance(value, list) else value


_Domain = Annotated[int, Field(ge=0)]


class Node(Model):
    """The shape of one node."""

    cores: Annotated[Count, BeforeValidator(_cores)] = Field(
        "auto", validate_default=True, description="usable cores, or auto"
    )
    smt: Count = Field(1, description="hardware threads of each core")
    gpus: int = Field(0, ge=0, description="GPUs that the scheduler counts")
    domains: Count = Field(1, description="NUMA domains, among which cores and GPUs divide")
    gpu_domains: Annotated[tuple[_Domain, ...], BeforeValidator(as_tuple)] = Field(
        (), description="the NUMA domain of each GPU, from 0; by their numbers when not given"
    )
    gpu_vendor: Literal["nvidia", "amd", "intel"] = Field(
        "nvidia", description="whose GPUs, which decides the variable that masks them"
    )
    memory: Size | None = Field(None, description="memory that jobs may use")


class Heartbeat(Model):
    """How soon the two ends of a pilot notice that the other is gone."""

    period: PositiveDuration = Field(2.0, description="time between signs of life")
    threshold: PositiveDuration = Field(6.0, description="silence after which one is gone")


class Submit(Model):
    """How a job is handed to the scheduler."""

    style: Literal["file", "redirection"] = Field(
        "file", description="file: bsub SCRIPT; redirection: bsub < SCRIPT"
    )
    size: Literal["nodes", "slots"] = Field(
        "nodes", description="nodes: -nnodes N; slots: -n SLOTS with span[ptile=CORES]"
    )


class Warn(Model):
    """The signal by which the scheduler announces a job's end."""

    signal: Literal["SIGUSR1", "SIGUSR2", "SIGTERM", "SIGINT", "SIGHUP"] = Field(
        description="the signal to ask for"
    )
    ahead: PositiveDuration = Field(description="how long before the end it is asked for")


class CpuLimit(Model):
    """What a login node allows one process, in CPU time."""

    warn: PositiveDuration = Field(description="CPU time at which the site slows a process down")
    kill: PositiveDuration = Field(description="CPU time at which the site kills it")


def _node_range(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] > value[1]:
        raise refuse("the range is empty", "[fewest, most], as in [1, 45]")
    return value


def _two(value: Any) -> Any:
    if not isinstance(value, list) or len(value) != 2:
        raise refuse("not a range of nodes", "[fewest, most], as in [1, 45]")
    return tuple(value)


class Bin(Model):
    """The jobs of some sizes, and what they may ask for."""

    nodes: Annotated[tuple[Count, Count], BeforeValidator(_two), AfterValidator(_node_range)] = (
        Field(description="fewest and most nodes, as in [1, 45]")
    )
    walltime: PositiveDuration = Field(description="the longest walltime")
    preemptible_after: PositiveDuration | None = Field(
        None, description="running time from which a job may be preempted"
    )


class Queue(Model):
    """What a queue allows one user. A limit that is not given is not known."""

    bins: Annotated[tuple[Bin, ...], BeforeValidator(as_tuple)] = Field(
        (), description="sizes of jobs with their longest walltimes"
    )
    max_eligible: Count | None = Field(
        None, description="waiting jobs that the scheduler considers"
    )
    max_queued: Count | None = Field(None, description="jobs in any state")
    max_running: Count | None = Field(None, description="jobs that run at one time")
    chaining: bool = Field(True, description="false where a job may not be followed by the next")
    default: bool = Field(False, description="the queue of studies that name none")
    partition: str | None = Field(None, min_length=1, description="Slurm's -p, where not the name")
    qos: str | None = Field(None, min_length=1, description="Slurm's -q")
