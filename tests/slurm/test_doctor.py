"""The doctor on a real Slurm, its probe in a job."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.slurm.conftest import ROOT, Shop

pytestmark = pytest.mark.slow


def doctor(shop: Shop, *options: str) -> subprocess.CompletedProcess[str]:
    env = {**shop.cluster.env, "PYTHONPATH": str(ROOT), "HOME": str(shop.folder)}
    return subprocess.run(
        [sys.executable, "-m", "hpc_hpo.cli.main", "doctor", "--site", "./site.yaml", *options],
        cwd=shop.folder, env=env, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def states(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """check -> state of each row."""
    head, *lines = done.stdout.splitlines()
    begin, end = head.index("check"), head.index("found")
    return {line[begin:end].strip(): line[:begin].strip() for line in lines}


def test_that_a_job_on_a_node_answers_every_question(shop):
    shop.write()
    done = doctor(shop, "--job", "--wait", "60s")
    rows = states(done)
    assert done.returncode == 0, done.stdout + done.stderr
    for check in (
        "scheduler commands", "scheduler answers", "queue", "launcher", "locks",
        "folder on the node", "locks on the node", "node reaches steering", "Python on the node",
        "clock of the node", "launcher in a job",
    ):  # fmt: skip
        assert rows[check] == "ok", done.stdout
    # The cluster's nodes are this machine, so two hosts were not seen.
    assert rows["node"] == "warn" and "proves less" in done.stdout
    shop.cluster.wait(lambda: not shop.cluster.queue())
    assert not list(shop.folder.glob(".hpc-hpo-doctor-*"))


def test_that_without_a_job_less_is_claimed(shop):
    shop.write()
    done = doctor(shop)
    rows = states(done)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows["compute nodes"] == "not checked"
    assert not any("node reaches" in check for check in rows)


def test_that_a_partition_that_is_not_there_is_told(shop):
    shop.write()
    site = shop.folder / "site.yaml"
    site.write_text(site.read_text().replace("  debug:", "  longest:"))
    done = doctor(shop)
    assert done.returncode == 1
    assert states(done)["queue"] == "fail" and "longest is not among debug" in done.stdout


def test_that_a_job_that_waits_too_long_is_cancelled(shop):
    shop.write()
    for node in range(1, 5):
        shop.cluster.call("scontrol", "update", f"NodeName=n{node}", "State=DRAIN", "Reason=test")
    try:
        done = doctor(shop, "--job", "--wait", "3s")
        assert states(done)["probe"] == "not checked", done.stdout
        shop.cluster.wait(lambda: not shop.cluster.queue())
    finally:
        for node in range(1, 5):
            shop.cluster.call("scontrol", "update", f"NodeName=n{node}", "State=RESUME")
