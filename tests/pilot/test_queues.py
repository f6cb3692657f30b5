"""Queue policy: bins, limits, and walltimes as the schedulers write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_hpo.errors import InputError
from hpc_hpo.pilot.queues import (
    bins,
    check_queue,
    check_request,
    jobs_to_submit,
    longest_walltime,
    lsf_walltime,
    most_at_once,
    pbs_walltime,
    slurm_queue,
    slurm_walltime,
)
from hpc_hpo.site import Queue, Site, load_site
from hpc_hpo.study import Study, parse_study
from hpc_hpo.yamlio import load_yaml

H = 3600.0
SUMMIT = load_site("summit")


def study_of(more: str) -> Study:
    text = (
        f"name: s\nobjective: a.py:f\nspace: {{x: {{int: [1, 2]}}}}\nbudget: {{trials: 3}}\n{more}"
    )
    return parse_study(load_yaml(text, "study.yaml"), path=Path("study.yaml"))


def own_site(folder: Path, text: str) -> Site:
    (folder / "s.yaml").write_text(text)
    return load_site("s.yaml", folder)


@pytest.mark.parametrize(
    ("seconds", "lsf", "slurm"),
    [
        (7200, "2:00", "02:00:00"),
        (7200.0000001, "2:00", "02:00:00"),
        (7201, "2:01", "02:01:00"),
        (30, "0:01", "00:01:00"),
        (0, "0:01", "00:01:00"),
        (5400, "1:30", "01:30:00"),
        (48 * H, "48:00", "48:00:00"),
    ],
)
def test_that_a_walltime_is_in_whole_minutes_and_never_zero(
    seconds: float, lsf: str, slurm: str
) -> None:
    assert lsf_walltime(seconds) == lsf
    assert slurm_walltime(seconds) == slurm
    assert pbs_walltime(seconds) == slurm


def test_that_rounding_up_never_passes_the_queue_s_limit() -> None:
    assert lsf_walltime(7150, 7170) == "1:59"
    assert slurm_walltime(7150, 7170) == "01:59:00"


@given(st.floats(0, 1e6), st.none() | st.floats(60, 1e6))
def test_that_a_written_walltime_reads_back_as_asked_within_a_minute(
    seconds: float, longest: float | None
) -> None:
    hours, minutes = map(int, lsf_walltime(seconds, longest).split(":"))
    written = hours * 3600 + minutes * 60
    assert minutes < 60 and written >= 60
    if longest is not None:
        assert written <= longest
    if longest is None or longest >= seconds + 60:
        assert seconds - 1e-3 <= written <= max(60, seconds + 60)


@pytest.mark.parametrize(
    ("nodes", "hours"),
    [(1, 2), (45, 2), (46, 6), (91, 6), (92, 12), (921, 12), (922, 24), (4608, 24)],
)
def test_that_summit_s_bins_hold_at_their_edges(nodes: int, hours: float) -> None:
    assert longest_walltime(SUMMIT, None, nodes) == hours * H
    assert check_request(SUMMIT, None, nodes, hours * H) is None
    assert check_request(SUMMIT, None, nodes, hours * H + 60) is not None


def test_that_a_request_past_its_bin_is_told_what_more_nodes_may_ask_for() -> None:
    error = check_request(SUMMIT, "batch", 45, 3 * H)
    assert error is not None and error.key == "blocks.walltime"
    assert error.problem == (
        "46 nodes at summit may ask for 6:00, 45 nodes for 2:00; you asked for 45 nodes and 3:00"
    )


def test_that_a_request_past_all_bins_is_told_its_own_limit_only() -> None:
    error = check_request(SUMMIT, None, 45, 25 * H)
    assert error is not None
    assert error.problem == "45 nodes at summit may ask for 2:00; you asked for 45 nodes and 25:00"


def test_that_more_nodes_are_not_offered_past_the_site_s_own_cap(tmp_path: Path) -> None:
    site = own_site(tmp_path, "extends: summit\nname: s\nmax_walltime: 1h\n")
    error = check_request(site, None, 45, 3 * H)
    assert error is not None
    assert error.problem == "45 nodes at s may ask for 1:00; you asked for 45 nodes and 3:00"


def test_that_a_size_that_no_bin_takes_is_refused_with_the_sizes() -> None:
    error = check_request(SUMMIT, None, 5000, H)
    assert error is not None and error.key == "blocks.nodes"
    assert "takes jobs of 1 to 4608 nodes" in str(error)
    polaris = check_request(load_site("polaris"), None, 4, H)
    assert polaris is not None and "10 to 496 nodes" in str(polaris)


def test_that_gaps_between_bins_are_told(tmp_path: Path) -> None:
    text = (
        "extends: slurm\nname: s\nqueues: {a: {bins: "
        "[{nodes: [1, 2], walltime: 1h}, {nodes: [8, 9], walltime: 1h}]}}\n"
    )
    error = check_request(own_site(tmp_path, text), None, 4, H)
    assert error is not None and "1 to 2 and 8 to 9 nodes" in str(error)


def test_that_a_batch_job_needs_a_walltime_and_a_local_block_does_not() -> None:
    error = check_request(SUMMIT, None, 1, None)
    assert error is not None and "needs a walltime" in str(error) and "2:00" in str(error)
    assert check_request(load_site("local"), None, 1, None) is None


def test_that_a_site_without_queues_takes_any_name_and_size() -> None:
    site = load_site("slurm")
    assert bins(site, "whatever") == ()
    assert check_request(site, "whatever", 10_000, 1000 * H) is None
    assert slurm_queue(site, "whatever") == ("whatever", None)
    assert slurm_queue(site, None) == (None, None)


def test_that_slurm_s_partition_and_qos_are_told_apart() -> None:
    assert slurm_queue(load_site("frontier"), None) == ("batch", None)
    assert slurm_queue(load_site("frontier"), "debug") == ("batch", "debug")
    assert slurm_queue(load_site("perlmutter"), None) == (None, "regular")


FINE = "account: A\nblocks: {walltime: 1h}\n"


def test_that_a_study_that_fits_is_not_complained_of() -> None:
    assert check_queue(study_of(FINE), SUMMIT) == []
    assert check_queue(study_of("account: A\nblocks: auto\n"), SUMMIT) == []
    assert check_queue(study_of(""), load_site("local")) == []


@pytest.mark.parametrize(
    ("more", "key", "line", "words"),
    [
        ("blocks: {walltime: 1h}\n", "account", None, "requires"),
        (FINE + "queue: debgu\n", "queue", 7, "did you mean 'debug'"),
        ("account: A\nblocks: {walltime: 3h, nodes: 45}\n", "blocks.walltime", 6, "46 nodes"),
        ("account: A\nblocks: {walltime: 1h, nodes: 5000}\n", "blocks.nodes", 6, "4608"),
        ("account: A\nblocks: {nodes: 2}\n", "blocks.walltime", 6, "needs a walltime"),
        (
            "account: A\nqueue: debug\nblocks: {walltime: 1h, max: 2}\n",
            "blocks.max",
            7,
            "at most 1",
        ),
    ],
)
def test_that_what_the_queue_refuses_is_named_in_the_study(
    more: str, key: str, line: int | None, words: str
) -> None:
    (error,) = check_queue(study_of(more), SUMMIT)
    assert (error.key, error.file) == (key, "study.yaml")
    assert line is None or error.line == line
    assert words in str(error)


def test_that_a_queue_at_site_local_is_a_mistake() -> None:
    (error,) = check_queue(study_of("queue: batch\n"), load_site("local"))
    assert error.key == "queue"


def test_that_of_several_queues_without_a_default_one_must_be_named(tmp_path: Path) -> None:
    site = own_site(tmp_path, "extends: slurm\nname: s\nqueues: {a: {}, b: {}}\n")
    (error,) = check_queue(study_of("blocks: {walltime: 1h}\n"), site)
    assert error.key == "queue" and "a, b" in str(error)


def test_that_an_unknown_queue_raises_where_nothing_was_checked() -> None:
    with pytest.raises(InputError, match="did you mean 'batch'"):
        longest_walltime(SUMMIT, "bacth", 1)


def test_that_no_more_jobs_are_submitted_than_may_wait_or_exist() -> None:
    batch = SUMMIT.queues["batch"]
    assert jobs_to_submit(batch, wanted=10, waiting=0, running=0) == 4
    assert jobs_to_submit(batch, wanted=10, waiting=3, running=8) == 1
    assert jobs_to_submit(batch, wanted=10, waiting=5, running=0) == 0
    assert jobs_to_submit(batch, wanted=10, waiting=2, running=97) == 1
    assert jobs_to_submit(SUMMIT.queues["debug"], wanted=1, waiting=0, running=1) == 0
    assert jobs_to_submit(None, wanted=7, waiting=50, running=50) == 7


@given(
    st.builds(
        Queue,
        max_eligible=st.none() | st.integers(1, 9),
        max_queued=st.none() | st.integers(1, 9),
        max_running=st.none() | st.integers(1, 9),
    ),
    st.integers(0, 12), st.integers(0, 12), st.integers(0, 12),
)  # fmt: skip
def test_that_the_limits_hold_whatever_is_there(
    queue: Queue, wanted: int, waiting: int, running: int
) -> None:
    more = jobs_to_submit(queue, wanted, waiting, running)
    assert 0 <= more <= wanted
    if more and queue.max_eligible is not None:
        assert waiting + more <= queue.max_eligible
    if more and queue.max_queued is not None:
        assert waiting + running + more <= queue.max_queued
    limit = most_at_once(queue)
    assert limit is None or limit in (queue.max_running, queue.max_queued)
