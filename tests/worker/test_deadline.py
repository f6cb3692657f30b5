"""When a block ends, from what the scheduler and the study say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.worker.deadline import block_name, find_end, find_start, parse_time_left


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1-02:03:04", 93784),
        ("2:00:00", 7200),
        ("1:00", 60),
        ("0:05", 5),
        ("1:30 L", 5459),
        ("0:0 L", 59),
        ("0:5 E", None),
        ("0:5 X", None),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("NOT_SET", None),
        ("-", None),
        ("", None),
    ],
)
def test_that_each_answer_of_a_scheduler_is_read(text, seconds):
    assert parse_time_left(text) == seconds


@given(st.text())
def test_that_no_answer_raises(text):
    assert parse_time_left(text) is None or parse_time_left(text) >= 0


def test_that_the_earliest_end_counts():
    told = {"SLURM_JOB_END_TIME": "1500", "HPC_HPO_TIME_LEFT": "1000 10:00"}
    assert find_end(told, 7200.0, 900.0) == 1500
    assert find_end(told, 300.0, 900.0) == 1200
    assert find_end({"HPC_HPO_TIME_LEFT": "1000 1:00"}, 7200.0, 900.0) == 1060
    assert find_end({"HPC_HPO_TIME_LEFT": "1000 INVALID"}, 7200.0, 900.0) == 8100
    assert find_end({"HPC_HPO_TIME_LEFT": "1000 "}, 0.0, 900.0) is None


def test_that_the_job_began_when_its_script_did():
    assert find_start({"HPC_HPO_JOB_START": "900"}, 950.0) == 900
    assert find_start({}, 950.0) == 950


def test_that_a_requeued_job_is_a_block_of_its_own():
    assert block_name("3", {"HPC_HPO_RESTART": "0"}) == "3"
    assert block_name("3", {"HPC_HPO_RESTART": "2"}) == "3.2"
    assert block_name("3", {}) == "3"
