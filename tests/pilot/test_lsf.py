"""What is asked of LSF, and how its replies are read."""

from __future__ import annotations

import pytest
from parsl.jobs.states import JobState

from hpc_hpo.pilot.lsf import LsfJobs
from tests.pilot.schedulers import Replies, ready

SUBMITTED = (0, "Job <26238> is submitted to default queue <batch>.\n", "")
COMPLETED = (0, "Tue Feb  2 00:46:09: Completed <exit>; TERM_RUNLIMIT: job killed;\n", "")
UNKNOWN_TO_BHIST = (255, "", "No matching job found\n")


def jobs_asking(tmp_path, replies, **options):
    return ready(LsfJobs(**options), tmp_path / "a b", replies)


def test_that_a_block_is_submitted_in_lsf_s_own_terms(tmp_path):
    replies = Replies(bsub=[SUBMITTED])
    jobs = jobs_asking(tmp_path, replies, project="ABC", queue="batch", nodes_per_block=45)
    jobs.walltime_text, jobs.warning = "2:00", ("USR2", 60.0)
    assert jobs.submit("true", 1, "block-0") == "26238"
    script = tmp_path / "a b" / "block-0.sh"
    text = script.read_text()
    for line in ("-W 2:00", "-nnodes 45", "-P ABC", "-q batch", "-wt '1'", "-wa 'USR2'"):
        assert f"#BSUB {line}\n" in text
    assert replies.calls == [["bsub", "-o", f"{script}.out", "-e", f"{script}.err", str(script)]]
    assert replies.stdins == [None]


def test_that_a_site_that_wants_it_gets_the_script_by_redirection(tmp_path):
    replies = Replies(bsub=[SUBMITTED])
    jobs = jobs_asking(tmp_path, replies, bsub_redirection=True)
    jobs.submit("true", 1, "block-0")
    assert replies.stdins == [tmp_path / "a b" / "block-0.sh"]
    assert str(replies.stdins[0]) not in replies.calls[0]


def test_that_plain_lsf_is_asked_for_slots(tmp_path):
    options = {"request_by_nodes": False, "cores_per_node": 16, "cores_per_block": 32}
    jobs = jobs_asking(tmp_path, Replies(bsub=[SUBMITTED]), **options)
    jobs.submit("true", 1, "block-0")
    text = (tmp_path / "a b" / "block-0.sh").read_text()
    assert '#BSUB -n 32\n#BSUB -R "span[ptile=16]"\n' in text


@pytest.mark.parametrize(
    ("stat", "state"),
    [("PEND", JobState.PENDING), ("PSUSP", JobState.PENDING), ("USUSP", JobState.PENDING),
     ("SSUSP", JobState.PENDING), ("RUN", JobState.RUNNING), ("UNKWN", JobState.RUNNING),
     ("DONE", JobState.COMPLETED), ("EXIT", JobState.COMPLETED)],
)  # fmt: skip
def test_that_each_state_is_read_and_a_suspended_job_is_waiting(tmp_path, stat, state):
    replies = Replies(bsub=[SUBMITTED], bjobs=[(0, f"26238 {stat}\n", "")])
    jobs = jobs_asking(tmp_path, replies)
    assert jobs.poll([jobs.submit("true", 1, "block-0")]).states == {"26238": state}


def test_that_one_forgotten_job_does_not_hide_the_others(tmp_path):
    replies = Replies(
        bjobs=[(255, "2 RUN\n", "Job <1> is not found\n")],
        bhist=[COMPLETED],
    )
    jobs = jobs_asking(tmp_path, replies)
    assert jobs.poll(["1", "2"]).states == {"1": JobState.COMPLETED, "2": JobState.RUNNING}
    assert replies.calls[-1] == ["bhist", "-l", "1"]


def test_that_a_job_that_bhist_does_not_know_either_is_gone_after_two_looks(tmp_path):
    replies = Replies(bjobs=[(255, "", "Job <1> is not found\n")], bhist=[UNKNOWN_TO_BHIST])
    jobs = jobs_asking(tmp_path, replies)
    assert [jobs.poll(["1"]).states.get("1") for _ in range(2)] == [None, JobState.COMPLETED]


@pytest.mark.parametrize(
    "reply",
    [(255, "", "LSF is down. Please wait ...\n"), (0, "", ""), (0, "\x00?? -\n", ""),
     (0, "26238 WHAT\n", ""), (None, "", "")],
)  # fmt: skip
def test_that_a_failed_empty_or_garbled_poll_says_nothing_of_any_job(tmp_path, reply):
    jobs = jobs_asking(tmp_path, Replies(bsub=[SUBMITTED], bjobs=[reply]))
    job = jobs.submit("true", 1, "block-0")
    assert [jobs.poll([job])[::2] for _ in range(3)] == [({}, True)] * 3
