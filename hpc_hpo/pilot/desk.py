"""Between Parsl's managers and the placer: which nodes there are, and who gets which slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpc_hpo.model import Place, Shape
from hpc_hpo.pilot.names import LEAD
from hpc_hpo.pilot.placement import NodeShape, Placement, Placer
from hpc_hpo.pilot.rank_lines import rank_line

Manager = Mapping[str, Any]


def room_of(manager: Manager) -> int:
    """Slices that a manager's workers could begin now."""
    return int(manager["max_capacity"]) - len(manager["tasks"])


class Desk:
    """Places slices.

    Args:
        site: see shapes.place_settings.
        now: time, seconds since the epoch.
    """

    def __init__(self, site: Mapping[str, Any], now: Callable[[], float]) -> None:
        self._site = dict(site)
        shape = NodeShape(
            site.get("cores", 1),
            site.get("gpus", 0),
            site.get("domains", 1),
            site.get("gpu_domains", ()),
            site.get("first_core", 0),
        )
        self._placer = Placer(shape, now)
        #: manager id -> (block, node); a lead's node is its mark
        self._names: dict[bytes, tuple[str, str]] = {}
        self._ids: dict[tuple[str, str], bytes] = {}
        #: manager id -> slices that it was sent and that hold a place
        self._holding: dict[bytes, set[int]] = {}

    def look(self, managers: Mapping[bytes, Manager], changed: set[bytes]) -> None:
        """Learn which managers there are and which slices have ended.

        Args:
            managers: by id, those that are registered.
            changed: ids of those that may have answered since the last look.
        """
        for gone in self._names.keys() - managers.keys():
            name = self._names.pop(gone)
            if self._ids.get(name) == gone:
                del self._ids[name]
                self._placer.remove_node(*name)
        for new in managers.keys() - self._names.keys():
            block, lead, _ = managers[new]["block_id"].partition(LEAD)
            node = LEAD if lead else managers[new]["hostname"]
            # Two nodes with one name would otherwise be taken for one.
            same = sum(1 for other in self._ids if other[0] == block and
                       other[1].partition("#")[0] == node)  # fmt: skip
            name = self._names[new] = (block, f"{node}#{same}" if same and not lead else node)
            self._ids[name] = new
            if not lead:
                self._placer.add_node(*name)
        for holder in self._holding.keys() & (changed | (self._holding.keys() - managers.keys())):
            tasks = managers[holder]["tasks"] if holder in managers else ()
            for ended in self._holding[holder].difference(tasks):
                self._placer.free(ended)
            self._holding[holder].intersection_update(tasks)

    def assign(
        self, tasks: Sequence[Mapping[str, Any]], managers: Mapping[bytes, Manager], now: float
    ) -> list[tuple[int, bytes, Place]]:
        """What is to start now: (task id, manager id, place).

        Args:
            tasks: Parsl's messages, the first in the queue first.
        """
        specs = {task["task_id"]: task["context"].get("resource_spec", {}) for task in tasks}
        shapes = {number: Shape(*spec["shape"]) for number, spec in specs.items()}
        room = {manager: room_of(m) for manager, m in managers.items()}

        def runner(number: int, block: str, node: str) -> bytes | None:
            """The manager that would run the slice, were it placed there."""
            return self._ids.get((block, LEAD if shapes[number].ranks > 1 else node))

        def usable(number: int, block: str, node: str) -> bool:
            """Whether the slice may go there once there is room."""
            there, manager = self._ids.get((block, node)), runner(number, block, node)
            if there is None or manager is None:
                return False
            if not all(managers[m]["active"] and not managers[m]["draining"] for m in
                       (there, manager)):  # fmt: skip
                return False
            needs: float = specs[number].get("needs_s", 0.0)
            left: float = managers[there]["drain_time"] - now
            return needs <= left

        def allowed(number: int, block: str, node: str) -> bool:
            manager = runner(number, block, node)
            return manager is not None and room[manager] > 0 and usable(number, block, node)

        def taken(number: int, placement: Placement) -> None:
            manager = runner(number, placement.block, placement.nodes[0][0])
            assert manager is not None
            room[manager] -= 1
            self._holding.setdefault(manager, set()).add(number)
            start.append((number, manager, self._place(shapes[number], placement)))

        start: list[tuple[int, bytes, Place]] = []
        waiting = [(n, shapes[n], specs[n].get("priority", 0.0)) for n in specs]
        self._placer.schedule(waiting, allowed, taken, usable)
        return start

    def _place(self, shape: Shape, placement: Placement) -> Place:
        site, nodes = self._site, placement.nodes
        launch: list[str] = []
        erf = ""
        if shape.ranks > 1:
            launch, erf = rank_line(
                site.get("launcher", "none"),
                shape,
                nodes,
                node_gpus=site.get("gpus", 0),
                smt=site.get("smt", 1),
                mpi=site.get("mpi"),
            )
        return Place(
            index=placement.index,
            nodes=[[name, list(cores), list(gpus)] for name, cores, gpus in nodes],
            bind=site.get("bind", False),
            mask=site.get("mask", ""),
            launch=launch,
            erf=erf,
        )
