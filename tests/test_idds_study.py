"""Whole studies whose points come from iDDS: evaluated here, told there, once each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpc_hpo.contracts.steering import new_points, read_input
from hpc_hpo.errors import HpoError
from hpc_hpo.launch import SteeringRun, open_study
from hpc_hpo.model import SliceOutcome, SliceRequest
from hpc_hpo.optimizers import idds_service
from hpc_hpo.pilot.inline import InlinePilot
from hpc_hpo.site import load_site
from hpc_hpo.steering import reporting
from hpc_hpo.steering.outcome import Outcome
from tests.fakes.idds import FakeIdds, idds

SPACE = {"x": {"method": "uniform", "dimension": {"low": 0, "high": 1}}}
STUDY = """
name: s
command: [sh]
contract: evaluation
space: {space}
budget: {{trials: {trials}}}
trial: {{max_attempts: 1}}
optimizer: {{name: idds, host: "{host}", workload: 77, poll: 0.05, patience: 0.5}}
{more}
"""


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idds_service, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(idds_service, "LAST_RETRY_S", 0.05)
    fresh(monkeypatch)


def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process would find it."""
    monkeypatch.setattr(idds_service, "_services", {})


def steered(most: int, per_call: int = 3) -> Callable[[Any], list[Any]]:
    """A service that steers by `hpc-hpo steer`, as iDDS does: new points once all have a loss."""

    def generate(known: list[Any]) -> list[Any]:
        if any(loss is None for _, loss in known):
            return []
        text = json.dumps({"points": known, "opt_space": SPACE})
        return new_points(read_input(text, "in"), per_call, most, "tpe", 0)

    return generate


Execute = Callable[[SliceRequest], SliceOutcome]


def completed(request: SliceRequest, loss: float = 0.0) -> SliceOutcome:
    return SliceOutcome(
        run=request["run"], trial=request["trial"], slice=request["slice"], end="completed",
        loss=loss, started=1.0, ended=2.0,
    )  # fmt: skip


def bowl(request: SliceRequest) -> SliceOutcome:
    return completed(request, (request["point"]["x"] - 0.25) ** 2)


def run(
    folder: Path, server: FakeIdds, execute: Execute = bowl, trials: int = 12, more: str = "",
    stop: Callable[[], str] = lambda: "",
) -> Outcome:  # fmt: skip
    text = STUDY.format(space=json.dumps(SPACE), host=server.host, trials=trials, more=more)
    (folder / "study.yaml").write_text(text)
    study, place = open_study(folder / "study.yaml")
    steering = SteeringRun(study, load_site("local"), place)
    steering.open()
    try:
        return steering.steer(pilot=InlinePilot(execute, 2), stop=stop)
    finally:
        steering.close()


def test_that_the_service_steers_and_this_machine_evaluates(tmp_path: Path) -> None:
    with idds(steered(12)) as server:
        outcome = run(tmp_path, server)
        assert outcome.reason == "budget"
        assert outcome.state.trial_states["completed"] == 12
        losses = {t.point["x"]: t.loss for t in outcome.state.trials.values()}
        assert {point["x"]: loss for point, loss in server.points} == losses
        assert sorted(server.told(), key=int) == [str(i) for i in range(12)]


def test_that_failed_trials_are_told_as_very_bad(tmp_path: Path) -> None:
    def execute(request: SliceRequest) -> SliceOutcome:
        outcome = completed(request, 0.5)
        if request["trial"] == 1:
            outcome.update(end="failed", loss=None, error={"kind": "exit", "message": "no"})
        return outcome

    with idds(steered(3)) as server:
        run(tmp_path, server, execute, trials=3)
        assert [loss for _, loss in server.points] == [0.5, 1e5, 0.5]


def test_that_the_service_minimises_what_is_to_be_large(tmp_path: Path) -> None:
    with idds(steered(3)) as server:
        run(tmp_path, server, lambda r: completed(r, 0.75), trials=3, more="direction: maximize")
        assert [loss for _, loss in server.points] == [-0.75] * 3


def test_that_a_restart_neither_takes_nor_sends_anything_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[float] = []

    def execute(request: SliceRequest) -> SliceOutcome:
        done.append(request["point"]["x"])
        return bowl(request)

    with idds(steered(9)) as server:
        first = run(tmp_path, server, execute, 9, stop=lambda: "drain" if len(done) > 3 else "")
        assert first.reason == "stop"
        assert 3 < len(done) < 9
        fresh(monkeypatch)
        second = run(tmp_path, server, execute, 9)
        assert second.reason == "budget"
        assert len(done) == len(set(done)) == 9
        assert sorted(server.told(), key=int) == [str(i) for i in range(9)]
        before = len(server.requests)
        fresh(monkeypatch)
        run(tmp_path, server, execute, 9)
        assert [method for method, _ in server.requests[before:]] == ["GET"], "one look, no loss"


def test_that_losses_which_never_arrived_are_sent_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "LAST_WAIT_S", 0.3)
    with idds(lambda known: [] if known else [{"x": i / 4} for i in range(4)]) as server:

        def execute(request: SliceRequest) -> SliceOutcome:
            server.failures = [503] * 1000
            return bowl(request)

        with pytest.raises(HpoError, match=r"losses could not be told to .*: .*503"):
            run(tmp_path, server, execute, 4)
        assert [loss for _, loss in server.points] == [None] * 4
        server.failures = []
        fresh(monkeypatch)
        again = run(tmp_path, server, execute, 4)
        assert again.reason == "budget"
        assert [loss for _, loss in server.points] == [(i / 4 - 0.25) ** 2 for i in range(4)]


def test_that_a_point_with_two_ids_is_evaluated_once_and_told_twice(tmp_path: Path) -> None:
    twins = [{"x": 0.5}, {"x": 0.25}, {"x": 0.5}]
    with idds(lambda known: [] if known else twins) as server:
        outcome = run(tmp_path, server, trials=3)
        assert outcome.reason == "exhausted"
        assert len(outcome.state.trials) == 2
        assert [loss for _, loss in server.points] == [0.0625, 0.0, 0.0625]


def test_that_segments_share_one_workload(tmp_path: Path) -> None:
    points = [[i % 3, {"x": i / 8}] for i in range(6)]
    more = "segments: [{name: a}, {name: b}, {name: c, values: {model_id: 2}}]"
    with idds(lambda known: [] if known else points) as server:
        outcome = run(tmp_path, server, trials=2, more=more)
        assert outcome.reason == "budget"
        asked = {(t.segment, t.point["x"]) for t in outcome.state.trials.values()}
        assert asked == {("abc"[i % 3], i / 8) for i in range(6)}
        assert [loss for _, loss in server.points] == [(i / 8 - 0.25) ** 2 for i in range(6)]
        known = [path for _, path in server.requests if path.endswith("/null/null/null")]
        assert len(known) == 1, "one courier for all"


def test_that_a_service_that_refuses_ends_the_run_with_its_words(tmp_path: Path) -> None:
    with idds(steered(3)) as server:
        server.failures = [401] * 50
        with pytest.raises(HpoError, match="401 as the test wants it"):
            run(tmp_path, server, trials=3)
