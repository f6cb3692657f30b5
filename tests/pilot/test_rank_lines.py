"""Launch lines of several ranks, read back as the launchers document them."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections import Counter
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.model import Place, Shape
from hpc_hpo.pilot.desk import Desk
from hpc_hpo.pilot.names import LEAD
from hpc_hpo.pilot.rank_lines import rank_line
from hpc_hpo.pilot.shapes import place_settings
from hpc_hpo.ranks import rank_share
from hpc_hpo.site import list_sites, load_site
from hpc_hpo.worker.keeper import find_rank, find_share
from hpc_hpo.worker.place import share_variables

SITES = [load_site(name) for name in list_sites()]
FLAGS = {"--overlap", "--exact"}


class Started(NamedTuple):
    """A process that a launcher has started."""

    node: str
    environ: dict[str, str]
    threads: list[int] | None = None  #: hardware threads that the launcher has bound it to
    gpus: list[int] | None = None


def options(argv: list[str]) -> dict[str, str]:
    """--name=value and --name value, -n value."""
    found: dict[str, str] = {}
    words = iter(argv[1:])
    for word in words:
        name, equals, value = word.partition("=")
        found[name] = value if equals else "" if name in FLAGS else next(words)
    return found


def numbers(text: str) -> list[int]:
    """0, 1, 2, 7 for 0-2,7."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def in_blocks(names: list[str], per_node: int, rank: str, local: str) -> list[Started]:
    """Ranks node by node, with the variables that tell them their numbers."""
    return [
        Started(name, {rank: str(node * per_node + on), local: str(on)})
        for node, name in enumerate(names)
        for on in range(per_node)
    ]


def by_srun(argv: list[str], erf: str) -> list[Started]:
    told = options(argv)
    names, per_node = told["--nodelist"].split(","), int(told["--ntasks-per-node"])
    assert int(told["--nodes"]) == len(names)
    assert int(told["--ntasks"]) == len(names) * per_node
    assert told["--distribution"] == "block" and "--overlap" in told
    # Each of these would have Slurm choose the cores.
    assert told["--cpu-bind"] == "none" and not {"--exact", "--cpus-per-task"} & told.keys()
    # Slurm has an order of its own, which is not promised to be that of the line.
    names.sort()
    return in_blocks(names, per_node, "SLURM_PROCID", "SLURM_LOCALID")


def by_hydra(argv: list[str], erf: str) -> list[Started]:
    told = options(argv)
    # On this machine alone no hosts are named.
    names = told.get("--hosts", "node9").split(",")
    started = in_blocks(names, int(told.get("-ppn", told["-n"])), "PMI_RANK", "MPI_LOCALRANKID")
    assert len(started) == int(told["-n"])
    return started


def by_pals(argv: list[str], erf: str) -> list[Started]:
    told = options(argv)
    names, per_node = told["--hosts"].split(","), int(told["-ppn"])
    assert int(told["-n"]) == len(names) * per_node
    return in_blocks(names, per_node, "PALS_RANKID", "PALS_LOCAL_RANKID")


def by_openmpi(argv: list[str], erf: str) -> list[Started]:
    told = options(argv)
    assert told["--bind-to"] == "none"
    slots = [host.rpartition(":") for host in told["--host"].split(",")]
    per_node = int(told["--map-by"].split(":")[1])
    assert all(int(count) == per_node for _, _, count in slots)
    assert int(told["-n"]) == len(slots) * per_node
    names = [name for name, _, _ in slots]
    return in_blocks(names, per_node, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")


RANK = re.compile(
    r"rank: (\d+): \{ host: \{host:([^}]+)\}; cpu: \{([\d,-]+)\}(?:; gpu: \{([\d,-]+)\})? \}"
)


def by_jsrun(argv: list[str], erf: str) -> list[Started]:
    assert argv == ["jsrun", "--erf_input", "{erf}"]
    first, second, *lines = erf.splitlines()
    assert first == "cpu_index_using: logical" and second.startswith("overlapping_rs")
    started, on_node = [], Counter[str]()
    for number, line in enumerate(lines):
        match = RANK.fullmatch(line)
        assert match is not None and int(match[1]) == number, line
        environ = {"JSM_NAMESPACE_RANK": str(number),
                   "JSM_NAMESPACE_LOCAL_RANK": str(on_node[match[2]])}  # fmt: skip
        on_node[match[2]] += 1
        gpus = numbers(match[4]) if match[4] else []
        started.append(Started(match[2], environ, numbers(match[3]), gpus))
    return started


READERS = {
    "srun": [by_srun], "mpiexec": [by_hydra, by_pals], "openmpi": [by_openmpi],
    "jsrun": [by_jsrun], "none": [by_hydra],
}  # fmt: skip


def place_all(site: Any, shapes: list[Shape], kept: int) -> list[tuple[Shape, Place]]:
    """What the desk makes of slices that come together; some may have to wait."""
    # The sites to be extended leave their node's shape open.
    cores = max(site.node.cores, 32) - kept
    settings: Any = place_settings(SimpleNamespace(cores=cores, kept_cores=kept), site)
    desk = Desk(settings, lambda: 0.0)
    manager = {"block_id": "0", "tasks": [], "max_capacity": 64, "active": True,
               "draining": False, "drain_time": math.inf}  # fmt: skip
    count = 1 if site.launcher == "none" else 12
    managers = {
        f"m{n}".encode(): {**manager, "hostname": f"node{9 + n}", "tasks": []} for n in range(count)
    }
    managers[b"lead"] = {**manager, "block_id": f"0{LEAD}", "hostname": "batch", "tasks": []}
    desk.look(managers, set(managers))
    tasks = [
        {"task_id": n, "context": {"resource_spec": {"priority": 1, "shape": shape.spec()}}}
        for n, shape in enumerate(shapes)
    ]
    return [(shapes[n], place) for n, _, place in desk.assign(tasks, managers, 0.0)]


def shares(site: Any, shape: Shape, place: Place, started: list[Started]) -> list[tuple]:
    """(node, cores, GPUs) that each process takes, as its keeper finds them."""
    found, launcher = [], os.path.basename(place["launch"][0])
    for process in started:
        rank, local = find_rank(launcher, process.environ)
        number, on = find_share(place, shape, rank, local, process.node)
        assert place["nodes"][number][0] == process.node, "a rank is where its share is"
        cores, gpus = rank_share(shape, place["nodes"][number], on)
        variables = share_variables(place, gpus, shape, {})
        assert variables["OMP_NUM_THREADS"] == str(shape.threads)
        if site.node.gpus:
            assert variables[place["mask"]] == ",".join(map(str, gpus))
        if process.threads is not None:
            smt = site.node.smt
            wanted = sorted(core * smt + thread for core in cores for thread in range(smt))
            assert (process.threads, process.gpus) == (wanted, sorted(gpus))
        found.append((process.node, cores, gpus))
    return found


@st.composite
def shapes_for(draw: st.DrawFn, site: Any) -> Shape:
    """A trial of several ranks whose part an empty node of the site holds."""
    gpus = draw(st.sampled_from([0, 0.25, 0.3, 0.5, 1, 2] if site.node.gpus else [0]))
    most = 8 if gpus < 1 else min(8, site.node.gpus // int(gpus))
    nodes = draw(st.integers(1, 1 if site.launcher == "none" else 4))
    per_node = draw(st.integers(1 if nodes > 1 else 2, most))
    cores = draw(st.integers(1, 31 // per_node))
    return Shape(per_node * nodes, per_node, cores, gpus, threads=3)


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
@given(data=st.data())
def test_that_every_line_places_exactly_what_was_asked(site, data) -> None:
    shapes = data.draw(st.lists(shapes_for(site), min_size=1, max_size=3))
    kept = int(site.launcher == "jsrun")
    placed = place_all(site, shapes, kept)
    assert placed, "the first one has the block for itself"
    for read in READERS[site.launcher]:
        cores_taken, gpus_taken = Counter[tuple](), Counter[tuple]()
        for number, (shape, place) in enumerate(placed):
            taken = shares(site, shape, place, read(place["launch"], place["erf"]))
            assert len(taken) == shape.ranks
            nodes = Counter(node for node, _, _ in taken)
            assert len(nodes) == shape.nodes and set(nodes.values()) == {shape.per_node}
            for node, cores, gpus in taken:
                assert len(cores) == shape.cores
                assert len(gpus) == math.ceil(shape.gpus)
                cores_taken.update((node, core) for core in cores)
                gpus_taken.update((node, gpu, number) for gpu in gpus)
            of_this = [n for (_, _, slice_), n in gpus_taken.items() if slice_ == number]
            assert all(count <= shape.sharers for count in of_this)
        assert set(cores_taken.values()) <= {1}, "a core has one rank"
        owners = Counter((node, gpu) for node, gpu, _ in gpus_taken)
        assert set(owners.values()) <= {1}, "a GPU has one slice"
        total = max(site.node.cores, 32)
        assert all(kept <= core < total for _, core in cores_taken)
        assert all(0 <= gpu < site.node.gpus for _, gpu in owners)


@pytest.mark.parametrize("site", [s for s in SITES if s.node.gpus], ids=lambda site: site.name)
def test_that_a_rank_on_each_gpu_has_cores_of_the_domain_that_its_gpu_is_attached_to(site) -> None:
    node, kept = site.node, int(site.launcher == "jsrun")
    shape = Shape(node.gpus, node.gpus, (node.cores - kept) // node.gpus, 1)
    ((_, place),) = place_all(site, [shape], kept)
    domains = node.gpu_domains or [gpu * node.domains // node.gpus for gpu in range(node.gpus)]
    for local in range(shape.ranks):
        cores, (gpu,) = rank_share(shape, place["nodes"][0], local)
        assert {core * node.domains // node.cores for core in cores} == {domains[gpu]}


@pytest.mark.parametrize(
    ("gpus", "of"), [(0.5, [4, 4, 5, 5]), (0.3, [4, 4, 4, 5]), (0.333, [4, 4, 4, 5]), (1, [4, 5])]
)
def test_that_ranks_share_a_gpu_in_order_and_never_more_than_there_is_of_it(gpus, of) -> None:
    shape = Shape(len(of), len(of), 1, gpus)
    assert shape.node_gpus == 2
    node = ("n1", tuple(range(len(of))), (4, 5))
    assert [rank_share(shape, node, local)[1] for local in range(len(of))] == [[n] for n in of]


def test_that_a_line_of_each_launcher_reads_as_people_write_it() -> None:
    nodes = [("a", (0, 1), (0, 1)), ("b", (0, 1), (2, 3))]
    shape = Shape(4, 2, 1, 1.0)

    def line(launcher: str, **rest: Any) -> str:
        return " ".join(rank_line(launcher, shape, nodes, node_gpus=4, **{"mpi": None, **rest})[0])

    assert line("mpiexec") == "mpiexec -n 4 -ppn 2 --hosts a,b"
    assert line("openmpi") == ("mpirun -n 4 --host a:2,b:2 --map-by ppr:2:node --bind-to none")
    assert line("srun", mpi="pmi2") == (
        "srun --nodes=2 --ntasks=4 --ntasks-per-node=2 --nodelist=a,b --distribution=block "
        "--overlap --kill-on-bad-exit=1 --cpu-bind=none --gpus-per-node=4 --gpu-bind=none "
        "--mpi=pmi2"
    )
    # Core 1 of a Summit node is its hardware threads 4 to 7.
    erf = rank_line("jsrun", shape, nodes, node_gpus=4, smt=4, mpi=None)[1]
    assert erf.splitlines()[2:] == [
        "rank: 0: { host: {host:a}; cpu: {0-3}; gpu: {0} }",
        "rank: 1: { host: {host:a}; cpu: {4-7}; gpu: {1} }",
        "rank: 2: { host: {host:b}; cpu: {0-3}; gpu: {2} }",
        "rank: 3: { host: {host:b}; cpu: {4-7}; gpu: {3} }",
    ]


def test_that_the_names_of_a_large_slice_s_nodes_are_in_their_natural_order() -> None:
    ((_, place),) = place_all(SITES[0], [Shape(4, 1, 1)], 0)
    names = [node[0] for node in place["nodes"]]
    assert all(int(a[4:]) < int(b[4:]) for a, b in itertools.pairwise(names))
