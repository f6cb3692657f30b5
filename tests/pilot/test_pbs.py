"""What is asked of PBS, and how its replies are read."""

from __future__ import annotations

import json

import pytest
from parsl.jobs.states import JobState

from hpc_hpo.pilot.pbs import PbsJobs
from tests.pilot.schedulers import Replies, ready

JOB = "12345.polaris-pbs-01.hsn.cm.polaris"


def listing(**letters):
    return json.dumps({"Jobs": {k.replace("_", "."): {"job_state": v} for k, v in letters.items()}})


def jobs_asking(tmp_path, replies, **options):
    return ready(PbsJobs(**options), tmp_path / "a b", replies)


def test_that_a_block_is_submitted_with_account_queue_and_shape(tmp_path):
    replies = Replies(qsub=[(0, f"{JOB}\n", "")])
    jobs = jobs_asking(
        tmp_path, replies, account="ABC", queue="prod", nodes_per_block=10, cpus_per_node=64,
        select_options=":ngpus=4", scheduler_options="#PBS -l filesystems=home",
    )  # fmt: skip
    jobs.walltime_text = "03:00:00"
    assert jobs.submit("true", 1, "block-0") == JOB
    text = (tmp_path / "a b" / "block-0.sh").read_text()
    for line in ("-l select=10:ncpus=64:ngpus=4", "-l walltime=03:00:00", "-q prod", "-A ABC",
                 "-l filesystems=home"):  # fmt: skip
        assert f"#PBS {line}\n" in text


def test_that_a_job_is_found_by_its_short_id_and_a_suspended_one_is_waiting(tmp_path):
    out = json.dumps({"Jobs": {"12345.polaris-pbs-01": {"job_state": "S"}}})
    jobs = jobs_asking(tmp_path, Replies(qstat=[(0, out, "")]))
    assert jobs.poll([JOB]).states == {JOB: JobState.PENDING}


@pytest.mark.parametrize(
    "reply", [(0, "not json", ""), (1, "", "cannot connect to server"), (0, '{"Jobs": 3}', "")]
)
def test_that_a_failed_or_garbled_poll_says_nothing_and_raises_nothing(tmp_path, reply):
    jobs = jobs_asking(tmp_path, Replies(qstat=[reply]))
    assert [jobs.poll([JOB])[::2] for _ in range(3)] == [({}, True)] * 3


def test_that_a_job_unknown_to_the_server_is_gone_after_two_looks(tmp_path):
    jobs = jobs_asking(tmp_path, Replies(qstat=[(153, "", f"qstat: Unknown Job Id {JOB}\n")]))
    assert [jobs.poll([JOB]).states.get(JOB) for _ in range(2)] == [None, JobState.COMPLETED]


def test_that_a_refused_submission_names_no_job(tmp_path):
    jobs = jobs_asking(tmp_path, Replies(qsub=[(0, "warning: something\n", "")]))
    assert jobs.job_of(jobs.call(["qsub"], None)) is None
