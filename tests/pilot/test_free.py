"""What is free now, by the schedulers' own words."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hpc_hpo.pilot.free import NotTold, Window, free_windows
from hpc_hpo.pilot.scheduler import Reply
from hpc_hpo.site import load_site
from tests.fakes.lsf import FakeLsf

SUMMIT = load_site("summit")


def answering(out: str, status: int = 0, err: str = ""):
    calls = []

    def caller(argv, stdin):
        calls.append(list(argv))
        return Reply(" ".join(argv), status, out, err)

    caller.calls = calls
    return caller


def test_that_bslots_windows_are_counted_in_whole_nodes_of_42_slots() -> None:
    # The form of LSF's command reference, with the 42 slots a node of the Summit guide.
    text = (
        "SLOTS          RUNTIME\n"
        "41             UNLIMITED\n"
        "420            1 hours 30 minutes 0 seconds\n"
        "85             40 minutes 5 seconds\n"
        "126            UNLIMITED\n"
    )
    caller = answering(text)
    assert free_windows(SUMMIT, None, caller) == [
        Window(10, 5400.0), Window(3, math.inf), Window(2, 2405.0),
    ]  # fmt: skip
    assert caller.calls == [["bslots", "-Rselect[CN]"]]


def test_that_no_window_is_an_answer_and_nonsense_is_none() -> None:
    assert free_windows(SUMMIT, None, answering("No backfill window exists at this time\n")) == []
    for reply in (answering(""), answering("SLOTS RUNTIME\nfour  many\n"), answering("", 255)):
        with pytest.raises(NotTold, match="bslots"):
            free_windows(SUMMIT, None, reply)


def test_that_idle_nodes_of_slurm_count_once_whatever_the_partitions() -> None:
    caller = answering("n1\nn2\nn1\nn4\n")
    assert free_windows(load_site("slurm"), "debug", caller) == [Window(3, math.inf)]
    assert caller.calls[0][-1] == "--partition=debug"
    assert free_windows(load_site("slurm"), None, answering("")) == []


def test_that_a_scheduler_without_such_a_command_says_so() -> None:
    with pytest.raises(NotTold, match=r"polaris \(pbs\)"):
        free_windows(load_site("polaris"), None, answering("never called"))


def test_that_the_windows_of_an_lsf_with_running_jobs_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeLsf(tmp_path / "lsf", nodes=5) as lsf:
        lsf.occupy(2, 30)
        monkeypatch.setenv("PATH", lsf.env()["PATH"])
        for key, value in lsf.env().items():
            monkeypatch.setenv(key, value)
        lsf.wait_for(
            lambda: free_windows(SUMMIT, None)[:1] == [Window(3, math.inf)], "three nodes left"
        )
