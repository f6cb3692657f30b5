"""Steering inside jobs of a real Slurm, each of which submits the next."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.slurm.conftest import ROOT

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.batch, pytest.mark.timeout(400)]


def test_that_a_chain_on_slurm_finishes_the_study_and_ends_by_itself(shop):
    # 2 workers and 130 s of work each, in jobs of one minute, which no number of trials fills.
    shop.write(trials=20, steps=130)

    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "hpc_hpo.cli.main", *words], cwd=shop.folder, text=True,
            env={**shop.cluster.env, "PYTHONPATH": str(ROOT), "HOME": str(shop.folder)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    before = set(shop.cluster.ended())
    command("submit", "study.yaml", "--steer", "batch", "--max-jobs", "8")
    shop.wait_until(lambda: not shop.cluster.queue(), 360)
    found = json.loads(command("status", "study.yaml", "--json"))
    assert (found["state"], found["trials"]["completed"]) == ("done", 20)
    assert found["chain"]["closed"] == "the study is done"
    ran = [job for job in found["chain"]["jobs"] if shop.cluster.ended()[job] == "COMPLETED"]
    assert len(ran) >= 3, found["chain"]
    assert set(shop.cluster.ended()) - before == set(found["chain"]["jobs"])
    assert found["slices"]["lost"] == 0 and found["slices"]["paused"] > 0
    assert shop.most_queued <= 2, "one that runs and one that waits for it"
