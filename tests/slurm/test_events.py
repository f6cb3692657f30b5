"""Harvester's points evaluated on the nodes of a job of a real Slurm, over two jobs."""

from __future__ import annotations

import json
import sys
import tarfile

import pytest

from tests.slurm.conftest import ROOT

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.batch, pytest.mark.timeout(400)]

STUDY = """
name: batch
command: [/bin/bash, count.sh]
contract: evaluation
space: {x: {float: [0.0, 1.0]}}
budget: {trials: 1}
checkpoint: {files: [count], every: 1s}
site: ./site.yaml
blocks: {workers_per_node: 2, nodes: 2, walltime: 1m}
"""
#: 30 s of work, which a job of a minute does once over, but not twice.
PAYLOAD = """
n=$(cat count 2>/dev/null || echo 0)
while [ $n -lt 60 ]; do n=$((n + 1)); echo $n > new; mv new count; sleep 0.5; done
x=$(sed 's/.*"x": *\\([0-9.]*\\).*/\\1/' input.json)
echo "{\\"status\\": 0, \\"loss\\": $x}" > output.json
"""
JOB = """#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --time=00:01:00 --exclusive --partition=debug
#SBATCH --output=events.out --open-mode=append
export HPC_HPO_JOB_START=$(date +%s) PYTHONPATH={root}
exec {python} -m hpc_hpo.cli.main events study.yaml --in in.json --out event_status.dump --inside
"""


def test_that_a_batch_is_evaluated_on_a_job_s_own_nodes_and_goes_on_in_the_next(shop):
    shop.write(nodes=2)
    (shop.folder / "study.yaml").write_text(STUDY)
    (shop.folder / "count.sh").write_text(PAYLOAD)
    (shop.folder / "job.sh").write_text(JOB.format(root=ROOT, python=sys.executable))
    ids = [f"77-999-0-{i}-5" for i in range(8)]
    events = [
        {
            "eventRangeID": number,
            "hp_point": {"id": str(i), "parameters": {"x": i / 8}, "loss": None},
        }
        for i, number in enumerate(ids)
    ]
    (shop.folder / "in.json").write_text(json.dumps({"999": events}))
    dump = shop.folder / "event_status.dump"
    jobs = 0
    while jobs < 5 and not (dump.exists() and finished(dump) == len(ids)):
        jobs += 1
        shop.cluster.call("sbatch", "-D", str(shop.folder), str(shop.folder / "job.sh"))
        shop.cluster.wait(lambda: not shop.cluster.queue(), 120)
        if jobs == 1:
            entries = json.loads(dump.read_text())["999"]
            archives = [entry["path"] for entry in entries if entry.get("type") == "checkpoint"]
            assert archives, "no point was in the middle at the job's end"
            with tarfile.open(archives[0]) as tar:
                assert tar.getnames() == ["count"]
    output = (shop.folder / "events.out").read_text()
    entries = json.loads(dump.read_text())["999"]
    assert [(e["eventRangeID"], e["loss"]) for e in entries] == [
        (number, i / 8) for i, number in enumerate(ids)
    ], output
    assert jobs >= 2
    [folder] = shop.folder.glob("batch-*")
    journal = (folder / "journal.jsonl").read_text()
    assert '"restored":"ckpt-' in journal


def finished(dump) -> int:
    """How many events have their loss."""
    entries = json.loads(dump.read_text())["999"]
    return sum(entry.get("eventStatus") == "finished" for entry in entries)
