"""What is asked of Slurm, and how its replies are read."""

from __future__ import annotations

import pytest
from parsl.jobs.states import JobState

from hpc_hpo.pilot.scheduler import SubmissionRefused, call
from hpc_hpo.pilot.slurm import SlurmJobs
from tests.pilot.schedulers import Replies, ready

SUBMITTED = (0, "Submitted batch job 17\n", "")


def jobs_asking(tmp_path, replies, **options):
    return ready(SlurmJobs(**options), tmp_path / "a 'b' %j", replies)


def test_that_a_block_is_submitted_with_the_asked_limit_partition_and_warning(tmp_path):
    replies = Replies(sbatch=[SUBMITTED])
    jobs = jobs_asking(tmp_path, replies, partition="batch", account="ABC", nodes_per_block=3)
    jobs.walltime_text, jobs.warning = "02:00:00", ("USR1", 60.0)
    assert jobs.submit("true", 1, "parsl.pool.block-4") == "17"
    script = tmp_path / "a 'b' %j" / "block-4.sh"
    text = script.read_text()
    for line in ("--time=02:00:00", "--nodes=3", "--partition=batch", "--account=ABC",
                 "--signal=B:USR1@60", "--requeue", "--no-kill"):  # fmt: skip
        assert f"#SBATCH {line}\n" in text
    (argv,) = replies.calls
    assert argv[-1] == str(script), "the path is one argument, whatever it holds"
    assert "%%j/block-4.sh.out" in argv[1], "Slurm would take %j for the job's number"


def test_that_a_job_is_gone_only_when_it_is_missed_twice_in_a_row(tmp_path):
    replies = Replies(
        sbatch=[SUBMITTED],
        squeue=[(0, "", ""), (0, "17 PD\n", ""), (0, "", ""), (0, "", "")],
    )
    jobs = jobs_asking(tmp_path, replies)
    job = jobs.submit("true", 1, "block-0")
    seen = [jobs.poll([job]).states.get(job) for _ in range(4)]
    assert seen == [None, JobState.PENDING, None, JobState.COMPLETED]


@pytest.mark.parametrize(
    ("status", "err"),
    [
        (1, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"),
        (None, ""),
        (127, "squeue: not found on PATH"),
    ],
)
def test_that_a_failed_poll_says_nothing_of_any_job(tmp_path, status, err):
    jobs = jobs_asking(tmp_path, Replies(sbatch=[SUBMITTED], squeue=[(status, "", err)]))
    job = jobs.submit("true", 1, "block-0")
    assert [jobs.poll([job])[::2] for _ in range(3)] == [({}, True)] * 3


def test_that_a_garbled_reply_says_nothing_of_any_job(tmp_path):
    jobs = jobs_asking(tmp_path, Replies(sbatch=[SUBMITTED], squeue=[(0, "@@ ##\n%%\n", "")]))
    job = jobs.submit("true", 1, "block-0")
    assert [jobs.poll([job])[::2] for _ in range(3)] == [({}, True)] * 3


def test_that_a_forgotten_single_job_counts_as_missed_and_not_as_an_outage(tmp_path):
    err = "slurm_load_jobs error: Invalid job id specified\n"
    jobs = jobs_asking(tmp_path, Replies(sbatch=[SUBMITTED], squeue=[(1, "", err)]))
    job = jobs.submit("true", 1, "block-0")
    assert [jobs.poll([job]).states.get(job) for _ in range(2)] == [None, JobState.COMPLETED]


@pytest.mark.parametrize(
    ("code", "state"),
    [("PD", JobState.PENDING), ("CF", JobState.PENDING), ("S", JobState.PENDING),
     ("R", JobState.RUNNING), ("CG", JobState.RUNNING), ("TO", JobState.COMPLETED),
     ("NF", JobState.COMPLETED), ("CA", JobState.COMPLETED), ("F", JobState.COMPLETED)],
)  # fmt: skip
def test_that_each_state_is_read(tmp_path, code, state):
    jobs = jobs_asking(tmp_path, Replies(sbatch=[SUBMITTED], squeue=[(0, f"17 {code}\n", "")]))
    assert jobs.poll([jobs.submit("true", 1, "block-0")]).states == {"17": state}


@pytest.mark.parametrize(
    ("err", "transient"),
    [
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller", True),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv", True),
        ("sbatch: error: Job violates accounting/QOS policy (job submit limit, ...)", True),
        ("sbatch: error: Batch job submission failed: Invalid account specified", False),
        ("sbatch: error: Requested time limit is invalid (missing or exceeds some limit)", False),
    ],
)
def test_that_a_refusal_shows_the_command_and_says_whether_waiting_helps(tmp_path, err, transient):
    jobs = jobs_asking(tmp_path, Replies(sbatch=[(1, "", err)]))
    with pytest.raises(SubmissionRefused) as caught:
        jobs.submit("true", 1, "block-0")
    assert caught.value.transient is transient
    for word in ("sbatch", "exit status: 1", err):
        assert word in str(caught.value)


def test_that_a_reply_without_a_job_id_is_a_refusal(tmp_path):
    jobs = jobs_asking(tmp_path, Replies(sbatch=[(0, "hello\n", "")]))
    with pytest.raises(SubmissionRefused, match="hello"):
        jobs.submit("true", 1, "block-0")


def test_that_a_missing_command_is_an_answer_and_not_an_exception():
    reply = call(["no-such-scheduler-command", "x"])
    assert (reply.status, "not found on PATH" in reply.err) == (127, True)


def test_that_a_command_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr("hpc_hpo.pilot.scheduler.CALL_S", 0.2)
    reply = call(["sh", "-c", "sleep 60 & wait"])
    assert reply.status is None
    assert "no answer" in str(reply)
