"""Launch lines of several ranks, read back as the launchers document them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.model import Shape
from hpc_hpo.pilot.placement import NodeShape, Placer
from hpc_hpo.pilot.rank_lines import rank_line
from hpc_hpo.ranks import rank_share
from hpc_hpo.site import list_sites, load_site

SITES = [site for site in map(load_site, list_sites()) if site.launcher != "none"]


def options(argv: list[str]) -> dict[str, str]:
    """--name=value and --name value, -n value."""
    found: dict[str, str] = {}
    words = iter(argv[1:])
    for word in words:
        name, equals, value = word.partition("=")
        found[name] = value if equals else "" if name in FLAGS else next(words)
    return found


FLAGS = {"--overlap", "--exact"}


def numbers(text: str) -> list[int]:
    """0, 1, 2, 7 for 0-2,7."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def read_srun(argv: list[str], erf: str) -> list[str]:
    """The node of each rank: --distribution=block fills node by node."""
    told = options(argv)
    names, per_node = told["--nodelist"].split(","), int(told["--ntasks-per-node"])
    assert int(told["--nodes"]) == len(names)
    assert int(told["--ntasks"]) == len(names) * per_node
    assert told["--distribution"] == "block" and "--overlap" in told
    return [name for name in names for _ in range(per_node)]


def read_mpiexec(argv: list[str], erf: str) -> list[str]:
    told = options(argv)
    names, per_node = told["--hosts"].split(","), int(told["-ppn"])
    return [name for name in names for _ in range(per_node)][: int(told["-n"])]


def read_openmpi(argv: list[str], erf: str) -> list[str]:
    told = options(argv)
    assert told["--bind-to"] == "none"
    slots = [host.rpartition(":") for host in told["--host"].split(",")]
    per_node = int(told["--map-by"].split(":")[1])
    assert all(int(count) == per_node for _, _, count in slots)
    return [name for name, _, _ in slots for _ in range(per_node)][: int(told["-n"])]


RANK = re.compile(
    r"rank: (\d+): \{ host: \{host:([^}]+)\}; cpu: \{([\d,-]+)\}(?:; gpu: \{([\d,-]+)\})? \}"
)


def read_jsrun(argv: list[str], erf: str) -> list[tuple[str, list[int], list[int]]]:
    """(node, cores, GPUs) of each rank, of the explicit resource file."""
    assert argv == ["jsrun", "--erf_input", "{erf}"]
    first, second, *lines = erf.splitlines()
    assert first == "cpu_index_using: logical" and second.startswith("overlapping_rs")
    found = []
    for number, line in enumerate(lines):
        match = RANK.fullmatch(line)
        assert match is not None and int(match[1]) == number, line
        found.append((match[2], numbers(match[3]), numbers(match[4]) if match[4] else []))
    return found


READERS = {"srun": read_srun, "mpiexec": read_mpiexec, "openmpi": read_openmpi}


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
@given(
    per_node=st.integers(1, 8), nodes=st.integers(1, 4), cores=st.integers(1, 8),
    gpus=st.sampled_from([0, 0.25, 0.5, 1, 2]),
)  # fmt: skip
def test_that_every_line_places_exactly_what_was_asked(site, per_node, nodes, cores, gpus) -> None:
    # The sites to be extended leave their node's shape open.
    node_cores, node_gpus = max(site.node.cores, 32), site.node.gpus
    shape = Shape(per_node * nodes, per_node, min(cores, node_cores // per_node), gpus)
    if shape.ranks == 1 or shape.node_gpus > node_gpus:
        shape = Shape(2 * nodes, 2, cores)
    per_node, cores = shape.per_node, shape.cores
    placer = Placer(NodeShape(node_cores, node_gpus, site.node.domains), lambda: 0.0)
    for number in range(12):
        placer.add_node("0", f"node{number}")
    ((_, placement),) = placer.schedule([(1, shape, 0.0)])
    argv, erf = rank_line(site.launcher, shape, placement.nodes, site.node.gpus, site.mpi)
    wanted = [
        (node[0], *rank_share(shape, node, local))
        for node in placement.nodes
        for local in range(per_node)
    ]
    if site.launcher == "jsrun":
        assert read_jsrun(argv, erf) == wanted
    else:
        assert READERS[site.launcher](argv, erf) == [name for name, _, _ in wanted]
        if site.launcher == "srun" and shape.node_gpus:
            # A step that overlaps another sees a GPU only if it asks for it.
            assert int(options(argv)["--gpus-per-node"]) == site.node.gpus
    used = [core for _, mine, _ in wanted for core in mine]
    assert len(used) == shape.ranks * cores
    for name in {name for name, _, _ in wanted}:
        here = [core for node, mine, _ in wanted if node == name for core in mine]
        assert len(set(here)) == len(here) == per_node * cores


def test_that_ranks_share_a_gpu_in_order() -> None:
    shape = Shape(4, 4, 1, 0.5)
    node = ("n1", (0, 1, 2, 3), (4, 5))
    assert [rank_share(shape, node, local)[1] for local in range(4)] == [[4], [4], [5], [5]]


def test_that_a_line_of_each_launcher_reads_as_people_write_it() -> None:
    nodes = [("a", (0, 1), (0, 1)), ("b", (0, 1), (2, 3))]
    shape = Shape(4, 2, 1, 1.0)
    assert " ".join(rank_line("mpiexec", shape, nodes, 4, None)[0]) == (
        "mpiexec -n 4 -ppn 2 --hosts a,b"
    )
    assert " ".join(rank_line("openmpi", shape, nodes, 4, None)[0]) == (
        "mpirun -n 4 --host a:2,b:2 --map-by ppr:2:node --bind-to none"
    )
    assert rank_line("srun", shape, nodes, 4, "pmi2")[0][-1] == "--mpi=pmi2"
    assert rank_line("jsrun", shape, nodes, 4, None)[1].splitlines()[2:] == [
        "rank: 0: { host: {host:a}; cpu: {0}; gpu: {0} }",
        "rank: 1: { host: {host:a}; cpu: {1}; gpu: {1} }",
        "rank: 2: { host: {host:b}; cpu: {0}; gpu: {2} }",
        "rank: 3: { host: {host:b}; cpu: {1}; gpu: {3} }",
    ]
