"""A site as a strict, immutable model."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr

from hpc_hpo.schema import Duration, Model, PositiveDuration, Size, one_of, refuse
from hpc_hpo.site.sections import CpuLimit, Heartbeat, Node, Queue, Submit, Warn, as_tuple

#: What a site can require of each study, as the study's keys.
REQUIREMENTS = ("account",)


def _this_arch(value: Any) -> Any:
    return platform.machine() if value == "auto" else value


def _known_requirements(value: tuple[str, ...]) -> tuple[str, ...]:
    for word in value:
        if word not in REQUIREMENTS:
            raise refuse(f"{word!r} is nothing to require", one_of(word, REQUIREMENTS))
    return value


def _bare_directives(value: tuple[str, ...]) -> tuple[str, ...]:
    for line in value:
        if line.startswith("#") or "\n" in line or not line.strip():
            raise refuse(
                "a directive is one line without #BSUB, #SBATCH or #PBS",
                'a list, as in ["-C nvme"]',
            )
    return value


def _libc_version(value: str) -> str:
    if not re.fullmatch(r"\d+\.\d+", value):
        raise refuse("not a version of glibc", 'as ldd --version says it, as in "2.28"')
    return value


def _minor_version(value: str) -> str:
    if not re.fullmatch(r"3\.\d+", value):
        raise refuse("not a minor version of Python", 'as in "3.11"')
    return value


_Words = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]


class Site(Model):
    """A validated site. Built by load_site; times in seconds, sizes in bytes."""

    name: str = Field(min_length=1, description="the site's name")
    scheduler: Literal["local", "lsf", "slurm", "pbs"] = Field(
        description="what starts blocks: local, lsf, slurm or pbs"
    )
    submit: Submit = Field(Submit(), description="how a job is handed to the scheduler")
    launcher: Literal["none", "jsrun", "srun", "mpiexec", "openmpi"] = Field(
        "none", description="what starts ranks on nodes; mpiexec is Hydra's or PALS's"
    )
    mpi: Literal["pmi2", "pmix", "cray_shasta", "none"] | None = Field(
        None, description="how srun wires the ranks of an MPI program up"
    )
    arch: Annotated[str, BeforeValidator(_this_arch)] = Field(
        "auto", validate_default=True, description="the nodes' architecture, as of uname -m"
    )
    page_size: Size | None = Field(None, description="the nodes' memory pages, as of getconf")
    glibc: Annotated[str, AfterValidator(_libc_version)] | None = Field(
        None, description='the nodes\' C library, as of ldd --version, as in "2.28"'
    )
    node: Node = Field(default_factory=Node, description="the shape of one node")
    address: str = Field(
        "127.0.0.1", min_length=1, description="where workers reach the steering process"
    )
    interface: str | None = Field(
        None, min_length=1, description="the network interface that has this address"
    )
    network: bool = Field(True, description="whether nodes reach the outside")
    scratch: str | None = Field(None, description="a folder on the parallel file system")
    purged: _Words = Field((), description="folders whose old files the site deletes")
    node_local: str | None = Field(None, description="a folder on each node's own disk")
    python: str | None = Field(None, min_length=1, description="the workers' interpreter")
    python_version: Annotated[str, AfterValidator(_minor_version)] | None = Field(
        None, description='minor version of the workers\' Python, as in "3.11"'
    )
    supplies: dict[str, str] = Field(
        {}, description="Python packages that modules hold, with the line that loads each"
    )
    modules: _Words = Field((), description="modules to load before workers start")
    worker_init: str = Field("", description="shell lines that run before workers start")
    queues: dict[str, Queue] = Field({}, description="the queues by name, with their limits")
    directives: Annotated[_Words, AfterValidator(_bare_directives)] = Field(
        (), description='options of every job, as in ["-C nvme"]'
    )
    requires: Annotated[_Words, AfterValidator(_known_requirements)] = Field(
        (), description="keys that a study must give: account"
    )
    heartbeat: Heartbeat = Field(Heartbeat(), description="signs of life")
    kill_grace: Duration = Field(1.0, description="TERM to KILL at the walltime")
    warning: Warn | None = Field(None, description="the scheduler's signal ahead of the end")
    checkpoint_floor: Duration = Field(0.5, description="smallest margin before a deadline")
    poll: PositiveDuration = Field(1.0, description="time between looks at the blocks' states")
    cpu_limit: CpuLimit | None = Field(None, description="what the login node allows a process")
    max_walltime: PositiveDuration | None = Field(None, description="longest walltime of a block")
    unverified: dict[str, str] = Field({}, description="key paths nobody could check, with why")

    _path: Path = PrivateAttr()

    @property
    def path(self) -> Path:
        """The site's file, absolute."""
        return self._path

    @property
    def batch(self) -> bool:
        """Whether blocks are jobs of a batch system."""
        return self.scheduler != "local"

    @property
    def default_queue(self) -> str | None:
        """The queue of studies that name none: the one marked so, or the only one."""
        marked = [name for name, queue in self.queues.items() if queue.default]
        names = marked or list(self.queues)
        return names[0] if len(names) == 1 else None
