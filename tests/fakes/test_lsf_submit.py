"""``bsub`` of the fake LSF: what it takes, what it refuses, and in which order jobs start."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.conftest import MakeLsf
from tests.fakes.jobs import bsub, output, stat, submit
from tests.fakes.lsf import FakeLsf
from tests.fakes.lsf.depend import BadDependency, Dependency
from tests.fakes.lsf.submit import Refused, read_minutes


def test_that_a_job_is_accepted_with_lsfs_words_and_runs(lsf: FakeLsf) -> None:
    done = bsub(
        lsf, "echo $LSB_JOBID $LSB_QUEUE $FAKE_HOST $LSB_MCPU_HOSTS; wc -l < $LSB_DJOB_HOSTFILE"
    )
    assert done.stdout == "Job <1001> is submitted to default queue <batch>.\n"
    assert lsf.wait_state(1001, "DONE")["exit_code"] == 0
    assert output(lsf, 1001) == ["1001 batch batch1 batch1 1 h01n01 42", "43"]


def test_that_a_queue_given_by_name_is_not_called_the_default(lsf: FakeLsf) -> None:
    assert (
        bsub(lsf, "true", "-q", "killable").stdout
        == "Job <1001> is submitted to queue <killable>.\n"
    )


def test_that_the_command_line_wins_over_the_script(lsf: FakeLsf) -> None:
    job = submit(lsf, "echo $LSB_JOBNAME", "-J", "outer", "-nnodes", "2", lines="#BSUB -J inner")
    assert lsf.wait_state(job, "DONE")["name"] == "outer"
    assert any(len(event["hosts"]) == 2 for event in lsf.events())
    assert output(lsf, job) == ["outer"]


def test_that_values_may_be_attached_to_short_options(lsf: FakeLsf) -> None:
    assert bsub(lsf, "true", "-W02:00", "-Pabc123", "-nnodes", "1", needed=False).returncode == 0


@pytest.mark.parametrize("walltime", ["1:30:00", "00:10:00", "90s", "1.5", "0", "", "two"])
def test_that_a_walltime_is_in_hours_and_minutes_only(idle_lsf: FakeLsf, walltime: str) -> None:
    done = bsub(idle_lsf, "true", "-W", walltime)
    assert done.returncode == 255
    assert done.stderr == f"{walltime}: Bad RUNLIMIT specification. Job not submitted.\n"
    assert not idle_lsf.jobs()


@given(hours=st.integers(0, 99), minutes=st.integers(1, 999))
def test_that_hours_and_minutes_add_up(hours: int, minutes: int) -> None:
    assert read_minutes(f"{hours}:{minutes:02d}") == 60 * hours + minutes
    assert read_minutes(str(minutes)) == minutes


@given(text=st.from_regex(r"\d{1,3}:\d{1,2}:\d{1,2}", fullmatch=True))
def test_that_seconds_are_always_refused(text: str) -> None:
    with pytest.raises(Refused, match="Bad RUNLIMIT"):
        read_minutes(text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-q", "fast"], "fast: No such queue. Job not submitted."),
        (["--nnodes", "1"], "Illegal option: --nnodes"),
        (["-n", "4"], "Illegal option: -n"),
        (["-R", "span[ptile=4]"], "Illegal option: -R"),
        (["-nnodes", "5"], "Too many processors requested. Job not submitted."),
        (["-nnodes", "0"], "Bad argument for option -nnodes"),
        (["-wt", "5"], "need each other"),
        (["-w", "ended(77)"], "Dependency condition invalid or never satisfied"),
        (["-w", "ended 77"], "Dependency condition invalid or never satisfied"),
    ],
)
def test_that_bad_options_are_refused_at_summit(
    idle_lsf: FakeLsf, options: list[str], said: str
) -> None:
    done = bsub(idle_lsf, "true", *options)
    assert (done.returncode, done.stdout) == (255, "")
    assert said in done.stderr and not idle_lsf.jobs()


@pytest.mark.parametrize("left_out", ["-P", "-W", "-nnodes"])
def test_that_summit_demands_a_project_a_walltime_and_nodes(
    idle_lsf: FakeLsf, left_out: str
) -> None:
    given_all = {"-P": "abc123", "-W": "10", "-nnodes": "1"}
    words = [w for name, value in given_all.items() if name != left_out for w in (name, value)]
    done = bsub(idle_lsf, "true", *words, needed=False)
    assert done.returncode == 255 and left_out in done.stderr


def test_that_walltimes_past_the_bins_are_refused(make_lsf: MakeLsf) -> None:
    lsf = make_lsf(nodes=100)
    accepted = {(1, "2:00"), (45, "2:00"), (46, "6:00"), (91, "360"), (92, "12:00")}
    refused = {(45, "2:01"), (91, "6:01"), (92, "12:01"), (1, "24:00")}
    for nodes, walltime in accepted | refused:
        done = bsub(lsf, "true", "-nnodes", str(nodes), "-W", walltime)
        assert (done.returncode == 0) is ((nodes, walltime) in accepted), done.stderr
    assert bsub(lsf, "true", "-q", "killable", "-W", "24:00").returncode == 0


def test_that_summit_does_not_read_a_redirected_script(lsf: FakeLsf) -> None:
    text = "#!/bin/bash\n#BSUB -P a\n#BSUB -W 1\n#BSUB -nnodes 1\ntrue\n"
    done = lsf.run("bsub", stdin=text)
    assert done.returncode == 255 and "redirected" in done.stderr and not lsf.jobs()


def test_that_a_plain_site_reads_a_redirected_script(make_lsf: MakeLsf) -> None:
    lsf = make_lsf(flavour="plain", cpus=4, gpus=2)
    text = (
        "#BSUB -n 6 -R 'span[ptile=3]'\n#BSUB -gpu num=1\n#BSUB -o out.%J\n"
        "echo $LSB_MCPU_HOSTS $FAKE_HOST $CUDA_VISIBLE_DEVICES; command -v jsrun\n"
    )
    done = lsf.run("bsub", "-W", "5", stdin=text)
    assert done.stdout == "Job <1001> is submitted to default queue <normal>.\n"
    lsf.wait_state(1001, "EXIT")
    assert output(lsf, 1001) == ["h01n01 3 h01n02 3 h01n01 0"]


def test_that_a_plain_site_ignores_bsub_lines_of_a_script_given_by_name(make_lsf: MakeLsf) -> None:
    lsf = make_lsf(flavour="plain", cpus=4)
    path = lsf.folder / "job.sh"
    path.write_text("#!/bin/bash\n#BSUB -q nowhere\n#BSUB -n 400\necho ran $1\n")
    path.chmod(0o755)
    assert lsf.run("bsub", "-o", "out.%J", "./job.sh", "twice over").returncode == 0
    lsf.wait_state(1001, "DONE")
    assert output(lsf, 1001) == ["ran twice over"]


def test_that_plain_jobs_share_nodes_without_sharing_gpus(make_lsf: MakeLsf) -> None:
    lsf = make_lsf(flavour="plain", nodes=1, cpus=4, gpus=2)
    body = "echo $CUDA_VISIBLE_DEVICES; while [ ! -e stop ]; do sleep 0.05; done"
    words = ["bsub", "-n", "2", "-gpu", "num=1", "-o", "out.%J"]
    for _ in range(3):
        lsf.run(*words, stdin=body)
    lsf.wait_for(lambda: output(lsf, 1001) and output(lsf, 1002), "two jobs on one node")
    assert {*output(lsf, 1001), *output(lsf, 1002)} == {"0", "1"}
    assert stat(lsf, 1003) == "PEND"
    (lsf.folder / "stop").touch()
    lsf.wait_state(1003, "DONE")


def test_that_only_so_many_jobs_may_be_queued(make_lsf: MakeLsf) -> None:
    lsf = make_lsf(queued=2)
    first = submit(lsf, "sleep 60")
    submit(lsf, "sleep 60")
    refused = bsub(lsf)
    assert refused.returncode == 255 and "At most 2 jobs" in refused.stderr
    lsf.run("bkill", str(first))
    lsf.wait_state(first, "EXIT")
    assert bsub(lsf).returncode == 0


def test_that_debug_takes_one_job_in_any_state(lsf: FakeLsf) -> None:
    assert bsub(lsf, "sleep 60", "-q", "debug").returncode == 0
    assert bsub(lsf, "sleep 60", "-q", "debug").returncode == 255


def test_that_pending_jobs_past_the_eligible_limit_are_not_looked_at(make_lsf: MakeLsf) -> None:
    lsf = make_lsf(nodes=2, eligible=2)
    lsf.occupy(1, 60)
    waiting = [submit(lsf, "true", "-nnodes", "2") for _ in range(2)]
    # It would fit on the free node, and be done before the others could start.
    small = submit(lsf, "true", "-nnodes", "1", "-W", "1")
    assert "eligible" in lsf.job(small)["pend_reason"]
    reason = lsf.run("bjobs", "-noheader", "-o", "pend_reason", str(small)).stdout
    assert "eligible" in reason
    lsf.run("bkill", str(waiting[1]))
    lsf.wait_state(small, "DONE")
    assert stat(lsf, waiting[0]) == "PEND"


def test_that_short_jobs_are_backfilled_and_long_ones_are_not(lsf: FakeLsf) -> None:
    lsf.occupy(3, 30)
    big = submit(lsf, "true", "-nnodes", "4", "-W", "30")
    long = submit(lsf, "true", "-nnodes", "1", "-W", "2:00")
    short = submit(lsf, "true", "-nnodes", "1", "-W", "10")
    lsf.wait_state(short, "DONE")
    assert (stat(lsf, big), stat(lsf, long)) == ("PEND", "PEND")


def test_that_bslots_shows_the_backfill_windows(lsf: FakeLsf) -> None:
    def windows(*more: str) -> list[str]:
        return lsf.run("bslots", "-Rselect[CN]", *more).stdout.splitlines()[1:]

    assert [line.split() for line in windows()] == [["168", "UNLIMITED"]]
    lsf.occupy(3, 120)
    submit(lsf, "true", "-nnodes", "4")
    (line,) = windows()
    slots, *length = line.split()
    assert slots == "42" and length[1::2] == ["hours", "minutes", "seconds"]
    assert windows("-n", "42", "-W10")[0].startswith("42 ")
    assert not windows("-n", "43") and not windows("-W", "121")
    everything = lsf.run("bslots").stdout.splitlines()[1:]
    assert sum(int(line.split()[0]) for line in everything) > 42


def test_that_a_dependent_job_starts_when_the_other_has_ended(lsf: FakeLsf) -> None:
    first = submit(lsf, "while [ ! -e stop ]; do sleep 0.05; done; exit 3")
    after_end = submit(lsf, "true", "-w", f"ended({first})")
    after_success = submit(lsf, "true", "-w", str(first))
    assert "dependency" in lsf.job(after_end)["pend_reason"]
    (lsf.folder / "stop").touch()
    lsf.wait_state(after_end, "DONE")
    assert lsf.job(first)["exit_code"] == 3
    assert stat(lsf, after_success) == "PEND"
    assert "never satisfied" in lsf.job(after_success)["pend_reason"]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("1", True),
        ("done(1)", True),
        ("done(2)", False),
        ("exit(2)", True),
        ("ended(1) && ended(2)", True),
        ("ended(3)", False),
        ("started( 3 )", True),
        ("ended(3) || exit(2)", True),
        ("done(1) && (exit(1) || !done(3))", True),
        ("!ended(3) && done(2)", False),
    ],
)
def test_that_conditions_combine(text: str, holds: bool) -> None:
    states = {1: "DONE", 2: "EXIT", 3: "RUN"}
    assert Dependency(text).holds(lambda i: states[i]) is holds


@given(st.text("()&|! 1done", max_size=12))
def test_that_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        parsed = Dependency(text)
    except BadDependency:
        return
    assert parsed.holds(lambda i: "DONE") in (True, False) and parsed.ids


def test_that_editing_the_script_does_not_change_the_job(lsf: FakeLsf) -> None:
    job = submit(lsf, "while [ ! -e stop ]; do sleep 0.05; done; echo old")
    (lsf.folder / "job.lsf").write_text("echo new\n")
    (lsf.folder / "stop").touch()
    lsf.wait_state(job, "DONE")
    assert output(lsf, job) == ["old"]
