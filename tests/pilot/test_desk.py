"""Who of Parsl's managers gets which slice."""

from __future__ import annotations

import math
from typing import Any

from hpc_hpo.model import Shape
from hpc_hpo.pilot.desk import Desk
from hpc_hpo.pilot.names import LEAD

ONE, PAIR = Shape(), Shape(2, 1, 1)
SITE = {"cores": 2, "gpus": 2, "mask": "CUDA_VISIBLE_DEVICES", "launcher": "srun", "mpi": "pmi2"}


def manager(block: str, host: str, **facts: Any) -> dict[str, Any]:
    """One as Parsl's interchange keeps it."""
    return {"block_id": block, "hostname": host, "tasks": [], "max_capacity": 2, "active": True,
            "draining": False, "drain_time": math.inf, **facts}  # fmt: skip


def task(number: int, shape: Shape = ONE, needs_s: float = 0.0) -> dict[str, Any]:
    """One of Parsl's messages."""
    spec = {"priority": 1, "needs_s": needs_s, "shape": shape.spec()}
    return {"task_id": number, "context": {"resource_spec": spec}}


class Office:
    """A desk and its managers."""

    def __init__(self, **managers: dict[str, Any]) -> None:
        self.now = 0.0
        self.desk = Desk(SITE, lambda: self.now)
        self.managers = {name.encode(): m for name, m in managers.items()}

    def give(self, *tasks: dict[str, Any]) -> dict[int, tuple[str, Any]]:
        """Manager and place of each slice that starts."""
        self.desk.look(self.managers, set(self.managers))
        given = {}
        for number, name, place in self.desk.assign(list(tasks), self.managers, self.now):
            self.managers[name]["tasks"].append(number)
            given[number] = (name.decode(), place)
        return given


def test_that_one_rank_goes_to_its_node_and_several_to_the_lead() -> None:
    office = Office(a=manager("0", "n1"), b=manager("0", "n2"), lead=manager(f"0{LEAD}", "n1"))
    given = office.give(task(1), task(2, PAIR))
    name, place = given[2]
    assert name == "lead" and [node[0] for node in place["nodes"]] == ["n1", "n2"]
    assert "--nodelist=n1,n2" in place["launch"] and place["launch"][-1] == "--mpi=pmi2"
    name, place = given[1]
    assert name in "ab" and place["launch"] == []


def test_that_several_ranks_wait_for_a_lead() -> None:
    office = Office(a=manager("0", "n1"), b=manager("0", "n2"))
    assert office.give(task(1, PAIR)) == {}
    office.managers[b"lead"] = manager(f"0{LEAD}", "n1")
    assert list(office.give(task(1, PAIR))) == [1]


def test_that_no_manager_gets_more_than_its_workers_and_what_ended_makes_room() -> None:
    office = Office(a=manager("0", "n1", max_capacity=1))
    assert list(office.give(task(1), task(2))) == [1]
    assert office.give(task(2)) == {}
    office.managers[b"a"]["tasks"].clear()
    assert list(office.give(task(2))) == [2]


def test_that_the_nodes_of_a_large_slice_must_all_last_long_enough() -> None:
    office = Office(
        a=manager("0", "n1"), b=manager("0", "n2", drain_time=50.0),
        lead=manager(f"0{LEAD}", "n1"),
    )  # fmt: skip
    assert office.give(task(1, PAIR, needs_s=60.0)) == {}
    assert list(office.give(task(1, PAIR, needs_s=40.0))) == [1]


def test_that_an_overdue_large_slice_keeps_no_node_of_a_block_too_short_for_it() -> None:
    office = Office(a=manager("0", "n1"), b=manager("0", "n2"), lead=manager(f"0{LEAD}", "n1"))
    office.give(task(0))
    for held in office.managers.values():
        held["tasks"].clear()  # of no length, so that whoever waits is overdue
    assert len(office.give(task(1), task(2), task(3))) == 3
    assert office.give(task(4, PAIR, needs_s=60.0)) == {}
    office.now = 50.0
    for held in office.managers.values():
        held["drain_time"] = 100.0
    assert list(office.give(task(4, PAIR, needs_s=60.0), task(5))) == [5]


def test_that_a_lost_node_is_used_no_more_and_is_empty_when_it_is_back() -> None:
    office = Office(a=manager("0", "n1"))
    assert len(office.give(task(1), task(2))) == 2
    del office.managers[b"a"]
    assert office.give(task(3)) == {}
    office.managers[b"again"] = manager("0", "n1")
    assert [name for name, _ in office.give(task(1), task(2)).values()] == ["again", "again"]


def test_that_two_nodes_of_one_name_are_two_nodes() -> None:
    office = Office(a=manager("0", "vm"), b=manager("0", "vm"))
    given = office.give(*(task(n) for n in range(4)))
    assert sorted(name for name, _ in given.values()) == ["a", "a", "b", "b"]
