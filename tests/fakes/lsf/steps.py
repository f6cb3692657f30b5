"""jsrun's side in the daemon: options, resource sets, and steps that wait for room.

Sources: the jsrun section of the Summit user guide (options and their defaults, resource sets that
never span a node, steps that never share cores or GPUs); for explicit resource files, IBM's page
on them and the use that RADICAL-Pilot makes of them: ``cpu_index_using: logical`` and a line
``rank: 0: { host: 1; cpu: {0-3}; gpu: {0} }`` for each rank, hosts from 1, for 0 is the batch node.
 ``-h`` is jsrun's short form of
``--chdir`` and ``-E`` of ``--env``; there is no selection of hosts by name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.fakes.lsf.state import STARTED, Job

#: Long names of the options with a value, by their short ones.
LONG = {
    "n": "nrs",
    "a": "tasks_per_rs",
    "c": "cpu_per_rs",
    "g": "gpu_per_rs",
    "r": "rs_per_host",
    "b": "bind",
    "d": "launch_distribution",
    "l": "latency_priority",
    "o": "stdio_stdout",
    "k": "stdio_stderr",
    "M": "smpiargs",
    "E": "env",
    "h": "chdir",
    "U": "erf_input",
}
_SHORT = {long: short for short, long in LONG.items()}


class StepRefused(Exception):
    """jsrun ends with exit code 1 and this text."""


@dataclass(frozen=True)
class StepRequest:
    """One jsrun line. `sets` is None where all that fits is wanted; `bind` counts cores a task."""

    command: tuple[str, ...]
    sets: int | None = None
    tasks: int = 1
    cores: int = 1
    gpus: int = 0
    per_host: int | None = None
    bind: int | None = 1
    cyclic: bool = False
    immediate: bool = False
    stdout: str | None = None
    stderr: str | None = None
    mpi: bool = True
    chdir: str | None = None
    env: tuple[str, ...] = ()
    #: (host, hardware threads, GPUs) of each rank
    explicit: tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class ResourceSet:
    """Cores and GPUs of one host."""

    host: str
    cores: tuple[int, ...]
    gpus: tuple[int, ...]


@dataclass
class Nodes:
    """What is free on a job's nodes, and the steps on them."""

    cores: dict[str, set[int]]
    gpus: dict[str, set[int]]
    smt: int = 1
    steps: dict[int, list[ResourceSet]] = field(default_factory=dict)
    last: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)


def _split(argv: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """(short name, value) pairs, and the command line after them."""
    pairs: list[tuple[str, str]] = []
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word in ("-i", "--immediate"):
            pairs.append(("i", ""))
            continue
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            short = _SHORT.get(name)
        else:
            short, value = (word[1:2], word[2:]) if word[1:2] in LONG else (None, "")
            equals = value
        if short is None:
            raise StepRefused(f"jsrun: unrecognized option '{word}'")
        if not equals:
            if not rest:
                raise StepRefused(f"jsrun: option '{word}' requires an argument")
            value = rest.pop(0)
        pairs.append((short, value))
    return pairs, rest


def read_step(argv: Sequence[str], folder: Path = Path()) -> StepRequest:
    """The step a jsrun line asks for.

    Raises:
        StepRefused: an unknown option or a bad value.
    """
    pairs, command = _split(argv)
    if not command:
        raise StepRefused("jsrun: no application was given")
    last = dict(pairs)

    def count(short: str, default: int, least: int = 1) -> int:
        text = last.get(short, str(default))
        if not text.isdigit() or int(text) < least:
            raise StepRefused(f"jsrun: bad value for --{LONG[short]}: {text}")
        return int(text)

    bind = re.fullmatch(r"packed(?::(?:smt:)?(\d+))?|none|rs", last.get("b", "packed:1"))
    if bind is None:
        raise StepRefused(f"jsrun: bad value for --bind: {last['b']}")
    spread = last.get("d", "packed")
    if spread not in ("packed", "cyclic"):
        raise StepRefused(f"jsrun: bad value for --launch_distribution: {spread}")
    if not re.fullmatch(r"((gpu|cpu|mem)-(gpu|cpu|mem),?)+", last.get("l", "gpu-cpu").lower()):
        raise StepRefused(f"jsrun: bad value for --latency_priority: {last['l']}")
    packed = bind[0].startswith("packed")
    if "U" in last:
        return StepRequest(
            command=tuple(command),
            sets=0,
            bind=None,
            explicit=read_explicit(folder / last["U"]),
            mpi=last.get("M", "") != "off",
            env=tuple(value for short, value in pairs if short == "E"),
        )
    return StepRequest(
        command=tuple(command),
        sets=count("n", 1) if "n" in last else None,
        tasks=count("a", 1),
        cores=count("c", 1),
        gpus=count("g", 0, least=0),
        per_host=count("r", 1) if "r" in last else None,
        bind=int(bind[1] or 1) if packed else None,
        cyclic=spread == "cyclic",
        immediate="i" in last,
        stdout=last.get("o"),
        stderr=last.get("k"),
        mpi=last.get("M", "") != "off",
        chdir=last.get("h"),
        env=tuple(value for short, value in pairs if short == "E"),
    )


_RANK = re.compile(
    r"rank:\s*(\d+):\s*\{\s*host:\s*(\d+);\s*cpu:\s*\{([\d,-]+)\}"
    r"(?:\s*;\s*gpu:\s*\{([\d,-]+)\})?\s*\}"
)


def read_explicit(
    path: Path,
) -> tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...]:
    """(host, hardware threads, GPUs) of each rank, from an explicit resource file.

    Raises:
        StepRefused: it cannot be read, or a line of it is not as documented.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise StepRefused(f"jsrun: {path}: {error.strerror}") from error
    ranks = []
    for line in filter(str.strip, lines):
        if line.startswith(("cpu_index_using:", "overlapping_rs:", "skip_missing_cpu:")):
            continue
        match = _RANK.fullmatch(line.strip())
        if match is None or int(match[1]) != len(ranks):
            raise StepRefused(f"jsrun: {path}: not an explicit resource: {line}")
        ranks.append((int(match[2]), _numbers(match[3]), _numbers(match[4] or "")))
    return tuple(ranks)


def _numbers(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def place(step: StepRequest, nodes: Nodes) -> list[ResourceSet] | None:
    """Resource sets out of what is free, host after host; None when they do not all fit now."""
    placed: list[ResourceSet] = []
    if step.explicit:
        hosts = list(nodes.cores)
        for number, threads, gpus in step.explicit:
            if not 1 <= number <= len(hosts):
                raise StepRefused(f"Error: the explicit resource file names host {number}")
            host = hosts[number - 1]
            cores = tuple(sorted({thread // nodes.smt for thread in threads}))
            if not (set(cores) <= nodes.cores[host] and set(gpus) <= nodes.gpus[host]):
                return None
            placed.append(ResourceSet(host, cores, gpus))
        return placed
    for host in nodes.cores:
        cores, gpus = sorted(nodes.cores[host]), sorted(nodes.gpus[host])
        here = len(cores) // step.cores
        if step.gpus:
            here = min(here, len(gpus) // step.gpus)
        if step.per_host is not None:
            here = min(here, step.per_host)
        if step.sets is not None:
            here = min(here, step.sets - len(placed))
        for i in range(here):
            placed.append(
                ResourceSet(
                    host,
                    tuple(cores[i * step.cores : (i + 1) * step.cores]),
                    tuple(gpus[i * step.gpus : (i + 1) * step.gpus]),
                )
            )
    complete = bool(placed) if step.sets is None else len(placed) == step.sets
    return placed if complete else None


def lay_out(step: StepRequest, sets: Sequence[ResourceSet]) -> list[dict[str, Any]]:
    """Each rank's host, cores, GPUs and place on its host, in the order of the ranks."""
    total = len(sets) * step.tasks
    seats: dict[int, int] = dict.fromkeys(range(len(sets)), 0)
    on_host: dict[str, int] = {}
    tasks: list[dict[str, Any]] = []
    for rank in range(total):
        index = rank % len(sets) if step.cyclic else rank // step.tasks
        chosen, seat = sets[index], seats[index]
        seats[index] += 1
        cores = chosen.cores
        if step.bind is not None:
            first = seat * step.bind % len(cores)
            cores = chosen.cores[first : first + step.bind]
        local = on_host[chosen.host] = on_host.get(chosen.host, -1) + 1
        tasks.append({"host": chosen.host, "cores": cores, "gpus": chosen.gpus, "local": local})
    for task in tasks:
        task["local_size"] = on_host[task["host"]] + 1
    return tasks


class Steps:
    """The steps of all running jobs."""

    def __init__(self, cpus: int, gpus: int, smt: int = 1) -> None:
        self._cpus, self._gpus, self._smt = cpus, gpus, smt
        self._nodes: dict[tuple[int, int], Nodes] = {}

    def _empty(self, hosts: Sequence[str]) -> Nodes:
        return Nodes(
            {host: set(range(self._cpus)) for host in hosts},
            {host: set(range(self._gpus)) for host in hosts},
            self._smt,
        )

    def nodes(self, job: Job) -> Nodes:
        """The nodes of the job's present run."""
        assert job.allocation is not None
        return self._nodes.setdefault((job.id, job.runs), self._empty(list(job.allocation.slots)))

    async def begin(self, job: Job, step: StepRequest) -> tuple[int, list[dict[str, Any]]]:
        """Wait until the step fits, take its cores and GPUs: its number and its tasks.

        Raises:
            StepRefused: it would not fit on the empty nodes, or the job ended meanwhile.
        """
        nodes = self.nodes(job)
        run = job.runs
        if place(step, self._empty(list(nodes.cores))) is None:
            asked = f"{step.sets} sets of {step.cores} cores and {step.gpus} GPUs"
            raise StepRefused(
                f"Error: the resource sets do not fit the allocation: {asked} on "
                f"{len(nodes.cores)} nodes of {self._cpus} cores and {self._gpus} GPUs"
            )
        if step.sets is None:
            # All that the allocation holds, not what happens to be free.
            fitting = place(step, self._empty(list(nodes.cores))) or []
            step = replace(step, sets=len(fitting))
        async with nodes.changed:
            while (placed := place(step, nodes)) is None:
                await nodes.changed.wait()
                if job.state not in STARTED or job.runs != run:
                    raise StepRefused("Error: the allocation has ended")
            nodes.last += 1
            nodes.steps[nodes.last] = placed
            for chosen in placed:
                nodes.cores[chosen.host] -= set(chosen.cores)
                nodes.gpus[chosen.host] -= set(chosen.gpus)
            return nodes.last, lay_out(step, placed)

    async def end(self, nodes: Nodes, number: int) -> None:
        """Give the step's cores and GPUs back and let waiting steps look again."""
        async with nodes.changed:
            for chosen in nodes.steps.pop(number):
                nodes.cores[chosen.host] |= set(chosen.cores)
                nodes.gpus[chosen.host] |= set(chosen.gpus)
            nodes.changed.notify_all()

    async def wake(self, job: int, run: int) -> None:
        """This run of the job has ended: its waiting steps are told so."""
        nodes = self._nodes.pop((job, run), None)
        if nodes is not None:
            async with nodes.changed:
                nodes.changed.notify_all()
