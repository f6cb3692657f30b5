"""What is kept in memory of the workers' spools."""

from pathlib import Path

from hpc_hpo.fsio import seal
from hpc_hpo.model import SliceRequest
from hpc_hpo.pilot.flights import Flights
from hpc_hpo.pilot.spool import SliceLog


def spool(folder: Path, trials: int) -> Path:
    """The spool of a worker that began and ended so many slices, and began one more."""
    lines = []
    for trial in range(trials + 1):
        facts = {"trial": trial, "slice": 1, "block": "0", "worker": "w", "host": "n"}
        lines.append(seal({"e": "start", "run": 1, "at": 1.0, **facts}))
        if trial < trials:
            lines.append(seal({"e": "end", "run": 1, "end": "completed", "loss": 0.5, **facts}))
    folder.joinpath("r1-b0-w").write_bytes(b"".join(lines))
    return folder


def test_that_only_the_outcomes_that_somebody_waits_for_are_kept(tmp_path: Path) -> None:
    log = SliceLog(spool(tmp_path, 5))
    log.update("r1-*", {(2, 1), (5, 1)}.__contains__)
    assert log.ended.keys() == {(2, 1)}
    assert log.started.keys() == {(5, 1)}


def test_that_a_pilot_forgets_the_spooled_outcomes_it_has_landed(tmp_path: Path) -> None:
    flights = Flights(spool(tmp_path, 5), 1, lambda: 2.0)
    future = flights.add(SliceRequest(run=1, trial=3, slice=1))
    lost = flights.add(SliceRequest(run=1, trial=5, slice=1))
    flights.settle_block("0", "walltime", 2.0)
    assert future.result(timeout=0)["loss"] == 0.5
    assert lost.result(timeout=0)["end"] == "lost"
    assert not flights._log.ended, "a million of them would take more than a gigabyte"
    assert not flights._log.started
