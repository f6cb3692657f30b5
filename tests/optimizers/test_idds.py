"""The client of iDDS: paths, retries, and what is taken and told once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc_hpo.errors import InputError
from hpc_hpo.optimizers import idds_service
from hpc_hpo.optimizers.idds import IddsSearch
from hpc_hpo.optimizers.idds_service import ALL, NEW, Address, Client, Service, ServiceError
from hpc_hpo.optimizers.registry import create
from hpc_hpo.space import Space
from tests.fakes.idds import FakeIdds, idds

LINE = Space.parse({"x": {"float": [0, 1]}})


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idds_service, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(idds_service, "LAST_RETRY_S", 0.05)
    monkeypatch.setattr(idds_service, "_services", {})


@pytest.fixture
def server() -> Iterator[FakeIdds]:
    """Six points, and no more."""
    with idds(lambda known: [] if known else [{"x": i / 8} for i in range(6)]) as service:
        yield service


def client(server: FakeIdds, **facts: Any) -> Client:
    return Client(Address(server.host, server.workload, **facts), timeout_s=5)


def until(condition: Callable[[], Any], seconds: float = 15) -> Any:
    limit = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.01)
    return value


def test_that_paths_are_those_of_the_service(server: FakeIdds) -> None:
    ours = client(server)
    assert [r.id for r in ours.points(NEW)] == ["0", "1", "2", "3", "4", "5"]
    ours.tell("2", 1e-05)
    assert [r.id for r in ours.points(NEW)] == ["0", "1", "3", "4", "5"]
    assert ours.points(ALL)[2].loss == 1e-05
    assert server.requests == [
        ("GET", "/idds/hpo/77/null/null/New/null"),
        ("PUT", "/idds/hpo/77/null/2/1e-05"),
        ("GET", "/idds/hpo/77/null/null/New/null"),
        ("GET", "/idds/hpo/77/null/null/null/null"),
    ]


def test_that_a_token_is_read_anew_and_never_told(server: FakeIdds, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    ours = client(server, token_file=str(token), vo="atlas")
    ours.points(NEW)
    token.write_text("second\n")
    server.failures = [500]
    with pytest.raises(ServiceError) as caught:
        ours.points(NEW)
    assert [h["X-Idds-Auth-Token"] for h in server.headers] == ["first", "second"]
    assert (server.headers[0]["X-Idds-Auth-Type"], server.headers[0]["X-Idds-Auth-Vo"]) == (
        "oidc",
        "atlas",
    )
    assert "second" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "transient"), [(500, True), (503, True), (0, True), (404, False), (401, False)]
)
def test_that_failures_are_told_from_refusals(
    server: FakeIdds, status: int, transient: bool
) -> None:
    server.failures = [status]
    with pytest.raises(ServiceError) as caught:
        client(server).points(NEW)
    assert caught.value.transient is transient
    assert "/idds/hpo/77/null/null/New/null" in str(caught.value)


def test_that_nobody_there_may_pass() -> None:
    with pytest.raises(ServiceError) as caught:
        Client(Address("http://127.0.0.1:9/idds", "1"), timeout_s=2).points(NEW)
    assert caught.value.transient


def test_that_losses_arrive_once_however_often_the_network_fails(server: FakeIdds) -> None:
    service = Service(client(server), poll_s=0.05)
    assert service.wait_known(10)
    server.failures = [500, 0, 503, 500, 500]
    for number in ("4", "0", "4", "3"):
        service.tell(number, float(number))
    assert service.wait_delivered(20)
    assert [loss for _, loss in server.points] == [0.0, None, None, 3.0, 4.0, None]
    arrived = server.told()
    assert len(arrived) >= 5, "those that failed were sent again"
    assert service.trouble is None
    service.tell("4", 9.0)
    assert service.wait_delivered(5)
    assert server.points[4][1] == 4.0


def test_that_a_refusal_ends_it_with_its_words(server: FakeIdds) -> None:
    server.failures = [403]
    service = Service(client(server), poll_s=0.05)
    assert not service.wait_known(10)
    assert service.problem is not None
    assert "403 as the test wants it" in str(service.problem)


def search(server: FakeIdds, **options: Any) -> IddsSearch:
    spec = {"name": "idds", "host": server.host, "workload": 77, "poll": 0.05, **options}
    made = create(spec, LINE, 0, budget=9)
    assert isinstance(made, IddsSearch)
    return made


def test_that_asking_waits_for_nobody_and_repeats_nothing(server: FakeIdds) -> None:
    ours = search(server)
    assert server.requests == [], "making it asks for nothing"
    assert ours.ask([]) == []
    first = until(lambda: ours.ask([0, 1]))
    assert first == [{"x": 0.0}, {"x": 0.125}]
    rest = until(lambda: ours.ask(range(2, 9)))
    assert len(rest) == 4
    assert ours.ask([9]) == []
    assert not ours.exhausted


def test_that_what_was_adopted_is_not_taken_again(server: FakeIdds) -> None:
    ours = search(server)
    for number in range(3):
        ours.adopt(number, {"x": number / 8})
    points = until(lambda: ours.ask(range(10, 19)))
    assert points == [{"x": i / 8} for i in (3, 4, 5)]


def test_that_a_silent_service_ends_the_search_after_a_while(server: FakeIdds) -> None:
    ours = search(server, patience=0.2)
    points = until(lambda: ours.ask(range(6)))
    time.sleep(0.25)
    assert not ours.exhausted, "trials are open, and their losses may bring points"
    for number, _ in enumerate(points):
        ours.tell(number, 0.5)
    until(lambda: ours.exhausted, 5)


def test_that_a_point_of_another_space_ends_the_study(server: FakeIdds) -> None:
    server.points.append(({"x": 3}, None))
    ours = search(server)
    with pytest.raises(InputError, match="point 6 does not belong to the study's space: x: not"):
        until(lambda: ours.ask(range(9)))


def test_that_each_model_gets_its_own_points() -> None:
    points = [[i % 2, {"x": i / 8}] for i in range(6)]
    with idds(lambda known: [] if known else points) as server:
        one = search(server, model_id=1)
        zero = search(server, model_id="0")
        assert until(lambda: one.ask(range(9))) == [{"x": i / 8} for i in (1, 3, 5)]
        assert until(lambda: zero.ask(range(9))) == [{"x": i / 8} for i in (0, 2, 4)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "optimizer.host: no service"),
        ({"host": "iddsserver.cern.ch"}, "optimizer.host: no service"),
        ({"host": "https://h/idds"}, "optimizer.workload: no workload"),
        ({"host": "https://h/idds", "workload": True}, "optimizer.workload: no workload"),
        (
            {"host": "https://h/idds", "workload": 7, "token_file": "/none"},
            "optimizer.token_file: cannot be read",
        ),
        ({"host": "https://h/idds", "workload": 7, "token": "x"}, "optimizer.token: unknown key"),
        ({"host": "https://h/idds", "workload": 7, "poll": -1}, "optimizer.poll: too small"),
    ],
)
def test_that_options_are_checked_before_any_job(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        create({"name": "idds", **options}, LINE, 0)
    assert message in str(caught.value)
