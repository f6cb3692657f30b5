"""Blocks of a batch system: when the scheduler is asked, and from what they are made."""

from __future__ import annotations

import dataclasses
import logging
import socket
from itertools import pairwise

import psutil
import pytest

from hpc_hpo.errors import PilotError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.pilot.sources import address_of, batch_blocks
from hpc_hpo.site import load_site
from hpc_hpo.study import load_study
from tests.pilot.schedulers import Replies

STUDY = """
name: st.udy
objective: objective.py:train
space: {x: {float: [0.0, 1.0]}}
budget: {trials: 4}
account: ABC123
blocks: BLOCKS
"""


@pytest.fixture
def make(tmp_path):
    """A source for a study at a shipped site, with a scheduler of prepared replies."""

    def build(site, blocks="{nodes: 2, walltime: 1h, workers_per_node: 3}", **replies):
        (tmp_path / "objective.py").write_text("def train(config, trial): return 0.0\n")
        (tmp_path / "study.yaml").write_text(STUDY.replace("BLOCKS", blocks))
        extra = "directives: []\n" if site == "slurm" else ""
        (tmp_path / "site.yaml").write_text(
            f"name: here\nextends: {site}\naddress: 127.0.0.1\npoll: 30s\n{extra}"
        )
        study = load_study(tmp_path / "study.yaml")
        source = batch_blocks(study, load_site(str(tmp_path / "site.yaml")), Replies(**replies))
        source.clock = Clock()
        source.now = source.clock.now
        source.beside = lambda work: work()
        return source

    return build


class Clock:
    def __init__(self):
        self.time = 1000.0

    def now(self):
        return self.time


def asked_at(source, executor, seconds, *, hurry=False, step=1.0):
    """The times, from now on, at which the scheduler is asked about job 17."""
    times, begin = [], source.clock.time
    while source.clock.time < begin + seconds:
        before = len(source.caller.calls)
        source.states(executor, ["17"], hurry)
        if len(source.caller.calls) > before:
            times.append(source.clock.time - begin)
        source.clock.time += step
    return times


def started(source, tmp_path):
    """The source's executor, with job 17 submitted."""
    folder = StudyFolder(tmp_path / "out")
    folder.make()
    executor = source.executor(folder, 1)
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    executor.blocks_from.script_dir = str(scripts)
    assert executor.blocks_from.submit("work here", 1, "parsl.pool.block-0") == "17"
    source.caller.calls.clear()
    return executor


SUBMITTED = [(0, "Submitted batch job 17\n", "")]


def test_that_polls_are_as_rare_as_the_site_says_and_rarer_while_nothing_changes(make, tmp_path):
    source = make("slurm", sbatch=SUBMITTED, squeue=[(0, "17 PD\n", "")])
    times = asked_at(source, started(source, tmp_path), 1200)
    gaps = [b - a for a, b in pairwise(times)]
    assert min(gaps) >= 30
    assert gaps == sorted(gaps)
    assert 200 < max(gaps) <= 301


def test_that_hurry_asks_sooner_but_no_more_often_than_the_site_allows(make, tmp_path):
    source = make("slurm", sbatch=SUBMITTED, squeue=[(0, "17 R\n", "")])
    executor = started(source, tmp_path)
    asked_at(source, executor, 600)
    times = asked_at(source, executor, 300, hurry=True)
    gaps = [b - a for a, b in pairwise(times)]
    assert set(gaps) == {30.0}


def test_that_an_outage_is_said_once_asked_for_ever_rarer_and_ends_no_job(make, tmp_path, caplog):
    down = (1, "", "slurm_load_jobs error: Unable to contact slurm controller")
    source = make(
        "slurm", sbatch=SUBMITTED, squeue=[(0, "17 R\n", ""), *[down] * 8, (0, "17 R\n", "")]
    )
    executor = started(source, tmp_path)
    with caplog.at_level(logging.WARNING):
        times = asked_at(source, executor, 3000, step=5.0)
        assert source.states(executor, ["17"], False)["17"].state == "running"
    gaps = [b - a for a, b in pairwise(times[1:])]
    assert gaps[:6] == sorted(gaps[:6])
    assert min(gaps) >= 30
    assert 300 < max(gaps) <= 605
    assert [r.message.partition(";")[0] for r in caplog.records] == [
        "the scheduler does not answer",
        "the scheduler answers again",
    ]
    assert "Unable to contact" in caplog.text


def test_that_the_limit_of_the_queue_is_the_room_there_is(make):
    source = make("summit")
    assert source.room(wanted=9, waiting=1, running=0) == 3, "4 eligible jobs"
    assert source.room(wanted=9, waiting=0, running=98) == 2, "100 jobs in any state"


@pytest.mark.parametrize(
    ("site", "blocks", "expected"),
    [
        ("summit", "{nodes: 2, walltime: 1h}",
         ["#BSUB -W 1:00", "#BSUB -nnodes 2", "#BSUB -P ABC123", '#BSUB -alloc_flags "smt4 NVME"',
          "exec jsrun -n 2 -r 1 -a 1 -c 42 -g 6", "bjobs -noheader -o time_left"]),
        ("frontier", "{nodes: 4, walltime: 90m}",
         ["#SBATCH --time=01:30:00", "#SBATCH --account=ABC123", "#SBATCH -C nvme",
          "exec srun --nodes=4", "squeue -h -j"]),
        ("polaris", "{nodes: 10, walltime: 2h}",
         ["#PBS -l walltime=02:00:00", "#PBS -A ABC123", "#PBS -l select=10:ncpus=64",
          "exec mpiexec -n 10 -ppn 1"]),
        ("lsf", "{nodes: 1, walltime: 30m}", ["#BSUB -W 0:30", "span[ptile="]),
    ],
)  # fmt: skip
def test_that_the_script_of_a_shipped_site_says_what_its_scheduler_has_to_know(
    make, tmp_path, site, blocks, expected
):
    submitted = (0, "Job <17> is submitted to queue <batch>.\n", "")
    source = make(site, blocks, sbatch=SUBMITTED, bsub=[submitted], qsub=[(0, "17\n", "")])
    started(source, tmp_path)
    text = (tmp_path / "scripts" / "block-0.sh").read_text()
    for words in expected:
        assert words in text
    assert "hpo-st_udy" in text


def test_that_less_than_a_minute_is_never_no_limit(make, tmp_path):
    source = make("slurm", "{walltime: 30s}", sbatch=SUBMITTED)
    started(source, tmp_path)
    assert "--time=00:01:00" in (tmp_path / "scripts" / "block-0.sh").read_text()


def test_that_nodes_are_told_how_long_they_have_after_a_term(make, tmp_path):
    source = dataclasses.replace(make("slurm", sbatch=SUBMITTED), kill_grace_s=8.0)
    folder = StudyFolder(tmp_path / "out")
    words = source.executor(folder, 1)._supervise("0")
    told = dict(pairwise(words))
    assert float(told["--term-grace"]) + float(told["--kill-grace"]) == 8.0
    assert told["--walltime"] == "3600.0"


def test_that_the_address_is_that_of_the_site_s_interface(tmp_path):
    names = [
        name
        for name, entries in psutil.net_if_addrs().items()
        if any(e.family == socket.AF_INET and e.address == "127.0.0.1" for e in entries)
    ]
    (tmp_path / "site.yaml").write_text(f"name: h\nextends: slurm\ninterface: {names[0]}\n")
    assert address_of(load_site(str(tmp_path / "site.yaml"))) == "127.0.0.1"


def test_that_a_missing_interface_is_said_with_those_there_are(tmp_path):
    (tmp_path / "site.yaml").write_text("name: h\nextends: slurm\ninterface: ib77\n")
    with pytest.raises(PilotError, match=r"no interface ib77 .* it has .*lo"):
        address_of(load_site(str(tmp_path / "site.yaml")))
