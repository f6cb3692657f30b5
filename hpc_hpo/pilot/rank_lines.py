"""Launch lines of trials of several ranks. Pure: a shape and its place in, an argument list out.

The one place that knows the launchers' flags for ranks; launchers.py has those of the pilot.
Which cores and GPUs each rank uses is decided by the placer and set by the rank's keeper
(worker/keeper.py), so that it is the same under every launcher: here the launchers are told the
nodes and the counts, and not to bind.

Sources: srun(1) of Slurm 22.05; the jsrun section of the Summit user guide, IBM's description of
explicit resource files and OLCF's tutorial on their CPU indexes; mpiexec(1) of MPICH's Hydra and
of HPE's PALS; mpirun(1) of Open MPI.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpc_hpo.model import Shape
from hpc_hpo.ranks import rank_share

Nodes = Sequence[tuple[str, Sequence[int], Sequence[int]]]


def rank_line(
    launcher: str, shape: Shape, nodes: Nodes, *, node_gpus: int, smt: int = 1, mpi: str | None
) -> tuple[list[str], str]:
    """What to put before a command so that it runs once for each rank of a trial.

    Args:
        launcher: the site's.
        nodes: (name, cores, GPUs) of the trial on each node.
        node_gpus: GPUs that a node has.
        smt: hardware threads of each core.
        mpi: how srun wires the ranks up (``--mpi``); None = as the site's Slurm is set.

    Returns:
        The argument list, and the text of the file that ``{erf}`` in it stands for, or "".
        In that text ``{host:NAME}`` stands for jsrun's number of a host.
    """
    if launcher == "srun":
        return srun_ranks(shape, nodes, node_gpus, mpi), ""
    if launcher == "jsrun":
        return ["jsrun", "--erf_input", "{erf}"], explicit_resources(shape, nodes, smt)
    if launcher == "openmpi":
        return openmpi_ranks(shape, nodes), ""
    if launcher == "mpiexec":
        return hydra_ranks(shape, nodes), ""
    # This machine, and nothing but it.
    return ["mpiexec", "-n", str(shape.ranks)], ""


def srun_ranks(shape: Shape, nodes: Nodes, node_gpus: int, mpi: str | None) -> list[str]:
    """A step beside the pilot's own, which holds all of the nodes: it overlaps it.

    It gets all cores and GPUs of its nodes, of which the keepers take each rank's own. So it says
    no --cpus-per-task: that implies --exact, by which Slurm would choose a few cores itself and,
    where it confines steps to them, the same ones for two trials on a node.
    """
    return [
        "srun",
        f"--nodes={len(nodes)}",
        f"--ntasks={shape.ranks}",
        f"--ntasks-per-node={shape.per_node}",
        f"--nodelist={','.join(name for name, _, _ in nodes)}",
        "--distribution=block",
        "--overlap",
        "--kill-on-bad-exit=1",
        "--cpu-bind=none",
        *([f"--gpus-per-node={node_gpus}", "--gpu-bind=none"] if shape.node_gpus else []),
        *([f"--mpi={mpi}"] if mpi else []),
    ]


def explicit_resources(shape: Shape, nodes: Nodes, smt: int) -> str:
    """jsrun's explicit resource file: host, cores and GPUs of each rank.

    Its CPUs are hardware threads: on Summit logical ones, without gaps, are 0 to 167 with smt4.
    """
    lines = ["cpu_index_using: logical", "overlapping_rs: allow"]
    for number, node in enumerate(nodes):
        for local in range(shape.per_node):
            cores, gpus = rank_share(shape, node, local)
            threads = [core * smt + thread for core in cores for thread in range(smt)]
            place = f"host: {{host:{node[0]}}}; cpu: {{{_ranges(threads)}}}"
            if gpus:
                place += f"; gpu: {{{_ranges(gpus)}}}"
            lines.append(f"rank: {number * shape.per_node + local}: {{ {place} }}")
    return "\n".join(lines) + "\n"


def _ranges(numbers: Sequence[int]) -> str:
    """0-3,7 for 0, 1, 2, 3, 7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def hydra_ranks(shape: Shape, nodes: Nodes) -> list[str]:
    """Hydra (MPICH, Intel) and PALS: both take -n, -ppn and --hosts."""
    hosts = ",".join(name for name, _, _ in nodes)
    return ["mpiexec", "-n", str(shape.ranks), "-ppn", str(shape.per_node), "--hosts", hosts]


def openmpi_ranks(shape: Shape, nodes: Nodes) -> list[str]:
    """Open MPI's mpirun."""
    hosts = ",".join(f"{name}:{shape.per_node}" for name, _, _ in nodes)
    return [
        "mpirun", "-n", str(shape.ranks), "--host", hosts,
        "--map-by", f"ppr:{shape.per_node}:node", "--bind-to", "none",
    ]  # fmt: skip
