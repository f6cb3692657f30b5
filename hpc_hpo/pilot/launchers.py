"""Launch lines and job scripts: resources and site in, text out. Pure.

One launch line starts one supervisor (worker/block.py) on each node of a block; the workers of a
node are its children. So a block is one step, whatever the number of its trials.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

#: By these a job script tells the supervisors about their job (worker/deadline.py).
JOB_START = "HPC_HPO_JOB_START"
TIME_LEFT = "HPC_HPO_TIME_LEFT"
RESTART = "HPC_HPO_RESTART"


def srun_line(nodes: int) -> list[str]:
    """One task a node of Slurm's job, with all of the node's cores.

    A lost node ends neither the step nor the job: the others go on with their slices.
    """
    return [
        "srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1",
        "--no-kill", "--kill-on-bad-exit=0", "--mpi=none", "--cpu-bind=none",
    ]  # fmt: skip


def jsrun_line(nodes: int, cores: int, gpus: int) -> list[str]:
    """One resource set of one task a node, holding all of the node; unbound within it.

    Args:
        cores, gpus: of a node, as jsrun counts them.
    """
    return [
        "jsrun", "-n", str(nodes), "-r", "1", "-a", "1", "-c", str(cores), "-g", str(gpus),
        "-b", "none",
    ]  # fmt: skip


def mpiexec_line(nodes: int) -> list[str]:
    """One process a node by Hydra or PALS; nothing on one node, where the script runs already."""
    return ["mpiexec", "-n", str(nodes), "-ppn", "1"] if nodes > 1 else []


def openmpi_line(nodes: int) -> list[str]:
    """One process a node by Open MPI's mpirun."""
    return ["mpirun", "-n", str(nodes), "--map-by", "ppr:1:node", "--bind-to", "none"] if (
        nodes > 1
    ) else []  # fmt: skip


def with_lead(lead: str, command: str) -> str:
    """Shell lines that run a block's lead beside its nodes' command, and end it with that."""
    return "\n".join(
        [
            f"{lead} &",
            "lead=$!",
            f"{command} &",
            "nodes=$!",
            'wait "$nodes"',
            "status=$?",
            'kill "$lead" 2>/dev/null',
            'wait "$lead"',
            'exit "$status"',
        ]
    )


def launch_line(
    launcher: str, nodes: int, cores: int, gpus: int, several_ranks: bool = False
) -> list[str]:
    """What to put before a command so that it runs once on each node of a job.

    Args:
        launcher: a site's `launcher`.
        nodes: of the job.
        cores, gpus: of a node.
        several_ranks: whether other launch lines will start trials beside this one. jsrun gives
            a step only what no other holds, so this one then takes a core of each node and
            no GPU; it is not bound to it.
    """
    if launcher == "jsrun" and several_ranks:
        return jsrun_line(nodes, 1, 0)
    if launcher == "srun":
        return srun_line(nodes)
    if launcher == "jsrun":
        return jsrun_line(nodes, cores, gpus)
    if launcher == "mpiexec":
        return mpiexec_line(nodes)
    if launcher == "openmpi":
        return openmpi_line(nodes)
    return []


@dataclass(frozen=True)
class JobScript:
    """What a block's job script is made of.

    Attributes:
        directives: whole lines for the scheduler.
        prepare: shell lines before the workers start: modules, worker_init.
        time_left: a shell command that prints the job's remaining time; "" = none.
        launch: the launch line (see launch_line).
        command: what runs on each node, a shell word list.
        starts: path prefix of the folders that count the job's starts; a requeued job keeps its
            id, so only these tell its second life from its first.
        signals: path of the file in which the script leaves the signals that reach it.
        lead: what starts the block's lead on this node, as a shell command; "" = none.
    """

    directives: Sequence[str]
    prepare: Sequence[str]
    time_left: str
    launch: Sequence[str]
    command: str
    starts: str
    signals: str
    lead: str = ""

    def text(self) -> str:
        """The script.

        Signals reach the supervisors by a file: a batch script runs beside its steps, often on
        another node, and srun and jsrun would hand a signal to every process of a step, to most
        of which a USR1 is deadly. The launcher itself ignores the warnings for the same reason.
        The traps stand before anything else: Slurm's warning may come a minute early.
        The script ends with the launcher's own status; a signal only interrupts the wait.
        """
        passed = [f'"{name}=${name}"' for name in (JOB_START, TIME_LEFT, RESTART)]
        return "\n".join(
            [
                "#!/bin/bash",
                *self.directives,
                "",
                f'tell() {{ echo "$1 $(date +%s)" > {shlex.quote(self.signals)}; }}',
                *(f"trap 'tell {name}' {name}" for name in ("USR1", "USR2", "TERM", "INT")),
                f"{JOB_START}=$(date +%s)",
                f"{RESTART}=0",
                f'until mkdir {shlex.quote(self.starts)}"${RESTART}" 2>/dev/null; do',
                f"  {RESTART}=$(({RESTART} + 1))",
                f'  [ "${RESTART}" -lt 1000 ] || exit 1',
                "done",
                *self.prepare,
                f'{TIME_LEFT}="$(date +%s) $({self.time_left or "true"})"',
                *self._start_lead(passed),
                f"(trap '' USR1 USR2; exec {shlex.join(self.launch)} env {' '.join(passed)} \\",
                f"  {self.command}) &",
                "step=$!",
                'while :; do wait "$step"; status=$?; kill -0 "$step" 2>/dev/null || break; done',
                *(['kill "$lead" 2>/dev/null', 'wait "$lead"'] if self.lead else []),
                'exit "$status"',
                "",
            ]
        )

    def _start_lead(self, passed: Sequence[str]) -> list[str]:
        if not self.lead:
            return []
        return [f"(exec env {' '.join(passed)} \\", f"  {self.lead}) &", "lead=$!"]
