"""Nodes without a network, for real: each in a namespace with no way but to this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm import netns
from tests.slurm.cluster import SlurmCluster
from tests.slurm.conftest import SITE, Shop, require

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(240)]

#: Of the networks kept for documentation (RFC 5737).
NOBODY = "192.0.2.1"
#: How soon each payload ends that asks for the network, in seconds.
SOON_S = 5.0

STUDY = """
name: chain
objective: objective.py:train
space: SPACE
optimizer: grid
budget: {trials: TRIALS}
site: ./site.yaml
blocks: {workers_per_node: 2, nodes: NODES, walltime: 1m}
"""

FROM_INPUTS = """
import os
from pathlib import Path

def train(config, trial):
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    assert routes and all(line.split()[1] != "00000000" for line in routes), "no default route"
    table = Path(trial.inputs["table"]).read_text().split()
    return float(table[config["row"]])
"""

FOUR = f"""
import ctypes, os, socket, struct, subprocess, sys, urllib.request

def urlopen():
    urllib.request.urlopen("http://{NOBODY}/data")

def child():
    code = "import urllib.request; urllib.request.urlopen('http://{NOBODY}/data')"
    subprocess.run([sys.executable, "-c", code], check=True)

def swallow():
    try:
        urlopen()
    except Exception:
        pass

def c_code():
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.socket(socket.AF_INET, int(socket.SOCK_STREAM), 0)
    name = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(80), socket.inet_aton("{NOBODY}"))
    if libc.connect(fd, name, len(name)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def train(config):
    globals()[config["how"]]()
    return 1.0
"""


def demand() -> None:
    """Skip where namespaces cannot be made, or fail where they are demanded (set by CI)."""
    require()
    absent = netns.missing()
    if absent and os.environ.get("HPC_HPO_NEEDS_NETNS"):
        pytest.fail(absent)
    if absent:
        pytest.skip(absent)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Two nodes without a network."""
    demand()
    with netns.Namespaces(2) as spaces:
        folder = tmp_path_factory.mktemp("apart") / "c"
        with SlurmCluster(folder, nodes=2, apart=spaces) as cluster:
            yield cluster


@pytest.fixture
def lonely(tmp_path: Path, apart: SlurmCluster) -> Iterator[Shop]:
    """A shop whose nodes have no network."""
    made = Shop(tmp_path, apart)
    yield made
    made.close()
    apart.call("scancel", "-f", "--state=PENDING,RUNNING,SUSPENDED")
    apart.wait(lambda: not apart.queue())


def write(shop: Shop, objective: str, space: str, trials: int, nodes: int, more: str = "") -> None:
    shop.write(objective=objective)
    assert shop.cluster.apart is not None
    site = SITE.replace("LIMIT", "2").replace("127.0.0.1", shop.cluster.apart.controller)
    (shop.folder / "site.yaml").write_text(site + "network: false\n")
    study = STUDY.replace("SPACE", space).replace("TRIALS", str(trials))
    (shop.folder / "study.yaml").write_text(study.replace("NODES", str(nodes)) + more)


def test_that_the_nodes_reach_this_machine_and_nothing_else(apart: SlurmCluster) -> None:
    assert apart.apart is not None
    code = (
        "import socket, sys\n"
        f"socket.create_connection(('{apart.apart.controller}', int(sys.argv[1])), 5)\n"
        "try:\n"
        f"    socket.create_connection(('{NOBODY}', 80), 5)\n"
        "except OSError as error: print(error)\n"
    )
    port = apart.config.read_text().split("SlurmctldPort=")[1].split()[0]
    done = subprocess.run(
        [*apart.apart.inside(1), "python3", "-c", code, port], env=apart.env,
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert "Network is unreachable" in done.stdout, done.stderr


def test_that_a_study_finishes_from_staged_inputs_over_two_nodes_without_a_network(
    lonely: Shop,
) -> None:
    (lonely.folder / "table.txt").write_text(" ".join(f"{n}.5" for n in range(8)))
    inputs = "inputs:\n  - {name: table, source: table.txt, mode: copy}\n"
    write(lonely, FROM_INPUTS, "{row: {int: [0, 7]}}", trials=8, nodes=2, more=inputs)
    lonely.start()
    state = lonely.finish(150)
    assert state.trial_states["completed"] == 8
    assert {t.loss for t in state.trials.values()} == {n + 0.5 for n in range(8)}
    assert state.network_refused == 0
    assert all(t.failures == 0 for t in state.trials.values())


def test_that_each_way_to_ask_for_the_network_ends_soon_with_a_message(lonely: Shop) -> None:
    ways = ["urlopen", "child", "swallow", "c_code"]
    write(lonely, FOUR, f"{{how: {{choice: {ways}}}}}", trials=4, nodes=1)
    lonely.start()
    state = lonely.finish(150)
    by_way = {trial.point["how"]: trial for trial in state.trials.values()}
    assert sorted(by_way) == sorted(ways)
    for way, trial in by_way.items():
        (record,) = trial.slices
        assert record.started is not None and record.ended is not None
        assert record.ended - record.started < SOON_S, way
        assert record.network is not None and f"{NOBODY}:80" in record.network[0], (way, record)
    objective = lonely.folder / "objective.py"
    assert f"(http://{NOBODY}/data) at {objective}:5" in by_way["urlopen"].error["message"]
    assert "at <string>:1 in " in by_way["child"].error["message"]
    assert by_way["swallow"].loss == 1.0, "it can do without"
    assert f"{objective}:5" in by_way["swallow"].slices[0].network[0]
    assert "by code that is not Python" in by_way["c_code"].error["message"]
    for way in ("urlopen", "child", "c_code"):
        assert by_way[way].error["kind"] == "network", way
    assert "asked for a network that it has not" in lonely.output()
