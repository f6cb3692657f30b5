"""What the doctor sees from the login node: scheduler, network, versions."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpc_hpo.doctor.login import network_rows, scheduler_rows, version_rows
from hpc_hpo.doctor.rows import Row
from hpc_hpo.preflight import versions_here
from tests.doctor.conftest import MakeSite

Commands = Callable[..., Path]
SLURM = {
    "sbatch": "exit 0",
    "squeue": "exit 0",
    "scancel": "exit 0",
    "sinfo": "echo debug; echo gpu",
    "srun": "exit 0",
}
LSF = {"bsub": "exit 0", "bkill": "exit 0", "jsrun": "exit 0",
       "bjobs": "echo 'No unfinished job found' >&2; exit 255",
       "bqueues": "echo QUEUE_NAME PRIO; echo batch 10; echo debug 9"}  # fmt: skip
PBS = {"qsub": "exit 0", "qdel": "exit 0", "mpiexec": "exit 0",
       "qstat": "echo Queue; echo -----; echo prod 0"}  # fmt: skip


def states(rows: list[Row]) -> dict[str, str]:
    return {row.check: row.state for row in rows}


@pytest.mark.parametrize(
    ("base", "scripts", "queue"),
    [("slurm", SLURM, "gpu"), ("summit", LSF, None), ("polaris", PBS, None)],
)
def test_that_a_scheduler_that_answers_and_knows_the_queue_is_right(
    site: MakeSite, commands: Commands, base: str, scripts: dict[str, str], queue: str | None
) -> None:
    commands(**scripts)
    rows = list(scheduler_rows(site(base), queue))
    assert states(rows) == {
        "scheduler commands": "ok", "scheduler answers": "ok", "queue": "ok", "launcher": "ok"
    }  # fmt: skip


def test_that_missing_commands_are_named(site: MakeSite, commands: Commands) -> None:
    commands(sbatch="exit 0")
    first, *rest = scheduler_rows(site("slurm"), None)
    assert first.state == "fail" and first.found == "not on PATH: squeue, scancel"
    assert [row.state for row in rest] == ["warn"]  # srun


def test_that_a_scheduler_that_is_down_is_told_with_its_words(
    site: MakeSite, commands: Commands
) -> None:
    commands(**{**SLURM, "squeue": "echo 'Unable to contact slurm controller' >&2; exit 1"})
    (row,) = [r for r in scheduler_rows(site("slurm"), None) if r.check == "scheduler answers"]
    assert row.state == "fail" and "Unable to contact slurm controller" in row.found


def test_that_a_queue_the_scheduler_does_not_have_is_told_with_those_it_has(
    site: MakeSite, commands: Commands
) -> None:
    commands(**SLURM)
    (row,) = [r for r in scheduler_rows(site("slurm"), "gpus") if r.check == "queue"]
    assert row.state == "fail" and row.found == "gpus is not among debug, gpu"


def test_that_an_interface_this_machine_lacks_is_told_with_those_it_has(site: MakeSite) -> None:
    (row,) = network_rows(site("slurm", "interface: ib77"))
    assert row.state == "fail" and "ib77" in row.found and "lo" in row.found


def test_that_an_address_of_another_machine_is_told(site: MakeSite) -> None:
    (row,) = network_rows(site("slurm", "address: 192.0.2.1"))
    assert row.state == "fail" and "192.0.2.1 is not this machine's" in row.found


def test_that_a_loopback_address_of_a_batch_site_is_warned_of(site: MakeSite) -> None:
    rows = network_rows(site("slurm", "address: 127.0.0.1"), dict)
    assert [row.state for row in rows] == ["warn"]
    assert [row.state for row in network_rows(site("local"), dict)] == ["ok"]


def test_that_free_ports_are_counted(site: MakeSite) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        rows = list(network_rows(site("local"), lambda: {"workers": (port, port + 1)}))
    assert rows[-1].state == "fail" and rows[-1].found.startswith("0 of 1 are free")
    rows = list(network_rows(site("local")))
    assert [row.check for row in rows] == ["address", "ports for workers", "ports for steering"]


def test_that_this_end_s_versions_are_held_against_the_requirements(site: MakeSite) -> None:
    rows = {row.check: row for row in version_rows(site("local"))}
    assert rows["parsl here"] == Row("ok", "parsl here", versions_here().packages["parsl"])
    assert rows["workers' environment"].state == "ok"


def test_that_another_version_than_required_is_told(
    site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2020.1.1")
    row = {row.check: row for row in version_rows(site("local"))}["parsl here"]
    assert row.state == "fail" and "2020.1.1, needed is ==" in row.found and "pip" in row.remedy


def test_that_nodes_of_another_architecture_cannot_run_this_python(site: MakeSite) -> None:
    (row,) = [r for r in version_rows(site("slurm", "arch: vax")) if r.check.startswith("workers")]
    assert row.state == "fail" and "vax" in row.found


def test_that_what_modules_make_is_not_claimed(site: MakeSite) -> None:
    rows = list(version_rows(site("slurm", "modules: [python]")))
    assert rows[-1].state == "not checked" and "--job" in rows[-1].remedy


@pytest.mark.parametrize("parsl", ["right", "1.0", None])
def test_that_the_workers_own_environment_is_read_from_its_files(
    site: MakeSite, tmp_path: Path, parsl: str | None
) -> None:
    here = versions_here().packages
    minor = f"python3.{sys.version_info[1]}"
    packages = tmp_path / f"env/lib/{minor}/site-packages"
    packages.mkdir(parents=True)
    (tmp_path / "env/bin").mkdir()
    (tmp_path / "env/bin/python").touch()
    if parsl is not None:
        version = here["parsl"] if parsl == "right" else parsl
        (packages / f"parsl-{version}.dist-info").mkdir()
        (packages / f"numpy-{here['numpy']}.dist-info").mkdir()
    row = list(version_rows(site("slurm", f"python: {tmp_path}/env/bin/python")))[-1]
    assert row.state == {"right": "ok", "1.0": "fail", None: "not checked"}[parsl]


def test_that_a_python_that_is_not_there_is_told(site: MakeSite) -> None:
    row = list(version_rows(site("slurm", "python: /no/such/python")))[-1]
    assert row.state == "fail" and "/no/such/python" in row.found
