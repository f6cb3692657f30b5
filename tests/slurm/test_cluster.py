"""The Slurm of the tests itself."""

from __future__ import annotations

import subprocess

import pytest

from tests.slurm import cluster as clusters

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_that_what_is_missing_is_named_with_its_packages(monkeypatch):
    monkeypatch.setattr(clusters, "_PATH", "/nowhere")
    assert "slurmctld" in clusters.missing()
    assert clusters.PACKAGES in clusters.missing()


def test_that_a_job_reaches_every_node(slurm):
    done = subprocess.run(
        ["srun", "-N4", "--mpi=none", "--cpu-bind=none", "-l", "sh", "-c", "echo $SLURMD_NODENAME"],
        env=slurm.env, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert sorted(line.split()[1] for line in done.stdout.splitlines()) == ["n1", "n2", "n3", "n4"]
    slurm.wait(lambda: not slurm.queue())
