"""The placer: which cores and GPUs of which nodes each slice gets. Pure; it starts nothing.

Two slices never share a core or a GPU. Slices differ in size, and the policy is this:

- A slice goes where it leaves the least over, so that whole nodes stay whole.
- Larger slices choose first: a node that has become free as a whole goes to a slice that needs
  whole nodes, and what is left of partly used nodes to the small ones. So the nodes of a mixed
  study divide by themselves into those that large trials hand on to one another, and the rest.
- A slice that has waited longer than `PATIENCE` mean slices is *overdue*: it chooses before all
  others, and if nothing fits it, the nodes that are nearest to being free for it are kept for it.
  The emptiest are, which they remain as nothing new starts there, so the choice stands. At most
  `KEPT_SHARE` of the nodes are kept at one time, for what waits there is not used.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from hpc_hpo.model import Shape
from hpc_hpo.ranks import rank_share

#: A slice is overdue after waiting this many mean slices.
PATIENCE = 1.0
#: Share of the nodes that may be kept for overdue slices (one slice's nodes in any case).
KEPT_SHARE = 0.1

Key = Hashable
Name = tuple[str, str]  # block, node


@dataclass(frozen=True)
class NodeShape:
    """What each node has.

    Attributes:
        cores: that slices are placed on, numbered from `first_core`, domain by domain.
        gpus: numbered from 0.
        domains: NUMA domains, among which the cores are divided evenly.
        gpu_domains: the domain of each GPU; by their numbers where it is empty.
        first_core: the cores below it are nobody's to place.
    """

    cores: int
    gpus: int
    domains: int = 1
    gpu_domains: Sequence[int] = ()
    first_core: int = 0

    def core_domain(self, core: int) -> int:
        """The domain of a core."""
        return core * self.domains // (self.first_core + self.cores)

    def gpu_domain(self, gpu: int) -> int:
        """The domain that a GPU is attached to."""
        return self.gpu_domains[gpu] if self.gpu_domains else gpu * self.domains // self.gpus


@dataclass(frozen=True)
class Placement:
    """Where a slice runs.

    Attributes:
        index: the smallest number that no other slice running in the block has.
        block: the block's id.
        nodes: (name, cores, GPUs) of each node, in the natural order of names; cores and GPUs in
            the order of the ranks there (ranks.rank_share).
    """

    index: int
    block: str
    nodes: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


@dataclass
class _Node:
    """What is free on a node."""

    cores: set[int]
    gpus: set[int]
    holders: set[Key] = field(default_factory=set)
    exclusive: bool = False
    gone: bool = False


@dataclass
class _Block:
    """The nodes of a block by what is free on them: (GPUs, cores) -> names."""

    free: dict[tuple[int, int], dict[str, None]] = field(default_factory=dict)
    indexes: int = 0  #: how many were ever given
    returned: list[int] = field(default_factory=list)  #: a heap of those that are free again

    def next_index(self) -> int:
        """The smallest index that nobody has."""
        if self.returned:
            return heapq.heappop(self.returned)
        self.indexes += 1
        return self.indexes - 1


@lru_cache(maxsize=65536)
def _natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A sorting key by which n2 comes before n10."""
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(part)) if part.isdigit() else (0, part) for part in parts)


class Placer:
    """Places slices on the nodes of blocks.

    Args:
        shape: of each node.
        now: time, in seconds.
    """

    def __init__(self, shape: NodeShape, now: Callable[[], float]) -> None:
        self._shape, self._now = shape, now
        self._nodes: dict[Name, _Node] = {}
        self._blocks: dict[str, _Block] = {}
        self._running: dict[Key, tuple[Placement, float]] = {}
        self._since: dict[Key, float] = {}
        self._ended, self._total_s = 0, 0.0

    # -- what there is -----------------------------------------------------------

    def add_node(self, block: str, node: str) -> None:
        """A node has come up."""
        name = (block, node)
        if name in self._nodes and not self._nodes[name].gone:
            return
        first, cores = self._shape.first_core, self._shape.cores
        self._nodes[name] = _Node(set(range(first, first + cores)), set(range(self._shape.gpus)))
        self._file(name)

    def remove_node(self, block: str, node: str) -> None:
        """A node is gone; slices keep their places on others until they are freed."""
        found = self._nodes.pop((block, node), None)
        if found is not None:
            self._unfile((block, node), found)
            found.gone = True

    def _file(self, name: Name) -> None:
        node = self._nodes[name]
        free = (0, 0) if node.exclusive else (len(node.gpus), len(node.cores))
        block = self._blocks.setdefault(name[0], _Block())
        block.free.setdefault(free, {})[name[1]] = None

    def _unfile(self, name: Name, node: _Node) -> None:
        free = (0, 0) if node.exclusive else (len(node.gpus), len(node.cores))
        names = self._blocks[name[0]].free[free]
        del names[name[1]]
        if not names:
            del self._blocks[name[0]].free[free]

    @property
    def running(self) -> Mapping[Key, Placement]:
        """The places that are taken, by slice."""
        return {key: placement for key, (placement, _) in self._running.items()}

    @property
    def mean_s(self) -> float | None:
        """Mean time from a slice's start to its end, in seconds; None before the first end."""
        return self._total_s / self._ended if self._ended else None

    def free(self, key: Key) -> None:
        """A slice has ended."""
        if key not in self._running:
            return
        placement, since = self._running.pop(key)
        self._ended, self._total_s = self._ended + 1, self._total_s + self._now() - since
        heapq.heappush(self._blocks[placement.block].returned, placement.index)
        for name, cores, gpus in placement.nodes:
            node = self._nodes.get((placement.block, name))
            if node is None or key not in node.holders:
                continue  # it has gone, and perhaps come back empty
            self._unfile((placement.block, name), node)
            node.cores.update(cores)
            node.gpus.update(gpus)
            node.holders.discard(key)
            node.exclusive = False
            self._file((placement.block, name))

    # -- who gets it -------------------------------------------------------------

    def schedule(
        self,
        waiting: Iterable[tuple[Key, Shape, float]],
        allowed: Callable[[Any, str, str], bool] = lambda key, block, node: True,
        taken: Callable[[Any, Placement], None] = lambda key, placement: None,
        usable: Callable[[Any, str, str], bool] = lambda key, block, node: True,
    ) -> list[tuple[Key, Placement]]:
        """What is to start now; it counts as running from here on.

        Args:
            waiting: (key, shape, priority) of all slices in the queue, the first first; smaller
                priorities are more urgent. Their waiting is counted from the first call that
                shows them.
            allowed: (key, block, node) -> whether the slice may go there now.
            taken: called for each slice that is placed, before the next is looked at.
            usable: (key, block, node) -> whether the slice may go there once there is room; a
                node where it never may is not kept for it.
        """
        now = self._now()
        queue = list(waiting)
        for key, _, _ in queue:
            self._since.setdefault(key, now)
        patience = None if self.mean_s is None else PATIENCE * self.mean_s

        def rank(entry: tuple[Key, Shape, float]) -> tuple[Any, ...]:
            key, shape, priority = entry
            since = self._since[key]
            if patience is not None and now - since > patience:
                return (0, since)
            return (1, *(-part for part in self._size(shape)), priority)

        started: list[tuple[Key, Placement]] = []
        kept: set[Name] = set()
        most_kept = KEPT_SHARE * len(self._nodes)
        hopeless: set[tuple[Shape, bool]] = set()
        for entry in sorted(queue, key=rank):
            key, shape, _ = entry
            overdue = rank(entry)[0] == 0
            if (shape, overdue) in hopeless and not overdue:
                continue
            found, refused = self._find(key, shape, allowed, kept)
            if found is not None:
                placement = self._take(key, shape, found, now)
                started.append((key, placement))
                taken(key, placement)
            elif overdue:
                if not kept or len(kept) + shape.nodes <= most_kept:
                    kept.update(self._nearest(key, shape, usable, kept))
            elif not refused:
                hopeless.add((shape, overdue))
        return started

    def _size(self, shape: Shape) -> tuple[int, int, int]:
        return (shape.nodes, shape.node_gpus, shape.node_cores)

    def _needs(self, shape: Shape) -> tuple[int, int]:
        if shape.exclusive:
            return (self._shape.gpus, self._shape.cores)
        return (shape.node_gpus, shape.node_cores)

    def _find(
        self, key: Key, shape: Shape, allowed: Callable[[Any, str, str], bool], kept: set[Name]
    ) -> tuple[list[Name] | None, bool]:
        """Nodes for a slice, and whether any that it would fit was refused to it."""
        gpus, cores = self._needs(shape)
        refused = False
        best: tuple[tuple[int, int], list[Name]] | None = None
        for name, block in self._blocks.items():
            chosen: list[Name] = []
            over = (0, 0)
            fitting = [free for free in block.free if free[0] >= gpus and free[1] >= cores]
            for free in sorted(fitting):
                for node in block.free[free]:
                    if (name, node) in kept:
                        continue
                    if not allowed(key, name, node):
                        refused = True
                        continue
                    chosen.append((name, node))
                    over = (free[0] - gpus, free[1] - cores)
                    if len(chosen) == shape.nodes:
                        break
                if len(chosen) == shape.nodes:
                    break
            if len(chosen) == shape.nodes and (best is None or over < best[0]):
                best = (over, chosen)
        return (best[1] if best else None), refused

    def _nearest(
        self, key: Key, shape: Shape, usable: Callable[[Any, str, str], bool], kept: set[Name]
    ) -> Iterator[Name]:
        """The nodes of one block that are the nearest to being free for an overdue slice."""
        gpus, cores = self._needs(shape)
        best: list[tuple[tuple[int, int], Name]] = []
        for name, block in self._blocks.items():
            ranked = sorted(
                (
                    ((max(0, gpus - free[0]), max(0, cores - free[1])), (name, node))
                    for free, nodes in block.free.items()
                    for node in nodes
                    if (name, node) not in kept and usable(key, name, node)
                ),
                key=lambda pair: (pair[0], _natural(pair[1][1])),
            )[: shape.nodes]
            if len(ranked) == shape.nodes and (not best or ranked[-1][0] < best[-1][0]):
                best = ranked
        return (name for _, name in best)

    # -- taking it -----------------------------------------------------------------

    def _take(self, key: Key, shape: Shape, names: list[Name], now: float) -> Placement:
        block = self._blocks[names[0][0]]
        nodes = []
        for name in sorted(names, key=lambda n: _natural(n[1])):
            node = self._nodes[name]
            self._unfile(name, node)
            gpus = self._pick(node.gpus, shape.node_gpus, self._shape.gpu_domain, ())
            cores = self._pick_cores(node.cores, shape, name[1], gpus)
            node.gpus.difference_update(gpus)
            node.cores.difference_update(cores)
            node.holders.add(key)
            node.exclusive = shape.exclusive
            self._file(name)
            nodes.append((name[1], cores, gpus))
        placement = Placement(block.next_index(), names[0][0], tuple(nodes))
        self._running[key] = (placement, now)
        self._since.pop(key, None)
        return placement

    def _pick_cores(
        self, free: set[int], shape: Shape, node: str, gpus: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Cores for the ranks on a node, rank by rank, each near its own GPUs."""
        left, picked = set(free), list[int]()
        for local in range(shape.per_node):
            _, mine = rank_share(shape, (node, (), gpus), local)
            near = {self._shape.gpu_domain(gpu) for gpu in mine}
            cores = self._pick(left, shape.cores, self._shape.core_domain, near)
            left.difference_update(cores)
            picked += cores
        return tuple(picked)

    @staticmethod
    def _pick(
        free: set[int], count: int, domain_of: Callable[[int], int], near: Iterable[int]
    ) -> tuple[int, ...]:
        """`count` of the free ones: in the domains `near`, else where the least is left over."""
        if count == 0:
            return ()
        by_domain: dict[int, list[int]] = {}
        for number in sorted(free):
            by_domain.setdefault(domain_of(number), []).append(number)
        wanted = set(near)

        def order(domain: int) -> tuple[bool, bool, int, int]:
            size = len(by_domain[domain])
            # One that holds all of it before several; of those the fullest.
            return (domain not in wanted, size < count, size if size >= count else -size, domain)

        picked = [number for domain in sorted(by_domain, key=order) for number in by_domain[domain]]
        return tuple(sorted(picked[:count]))
