"""What the trials of a study take of a site's nodes: from the keys of ``trial:`` to shapes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from hpc_hpo.errors import InputError
from hpc_hpo.model import Point, Shape
from hpc_hpo.site import Site
from hpc_hpo.space.expressions import Expression, ExpressionError
from hpc_hpo.study import Study

#: Sizes of trials that an expression may take, at most: each is checked before the job.
MAX_SIZES = 10_000
#: A batch node allows a user 4,096 processes and a jsrun step costs 3 (Summit user guide), which is
#: where its 1,350 steps come from. Here each has a worker of the lead, too.
MAX_STEPS = 1000


class Misfit(ValueError):
    """The site's nodes cannot hold such a trial."""

    def __init__(self, key: str, problem: str, found: Any, valid: str) -> None:
        super().__init__(problem)
        self.key, self.problem, self.found, self.valid = key, problem, found, valid


class Shapes:
    """The shapes of a study's trials on a site, all of them known before the job.

    Attributes:
        all: the different shapes, the smallest first.

    Raises:
        Misfit: a shape that the site cannot hold, or an expression that makes none.
    """

    def __init__(self, study: Study, site: Site) -> None:
        self._study, self._node = study, site.node
        self._expression = _expression(study)
        sizes = [self._ranks({})] if self._expression is None else sorted(self._sizes())
        # jsrun gives no step what another holds, so the pilot's own keeps the first core of each
        # node (launchers.launch_line), and trials are placed on the rest.
        self.kept_cores = int(site.launcher == "jsrun" and max(sizes) > 1)
        # One who says how many trials run on a node may ask for more than it has cores.
        self._cores = max(site.node.cores - self.kept_cores, self._asked_cores(study))
        self._by_ranks = {ranks: self._shape(ranks) for ranks in dict.fromkeys(sizes)}
        self.all = sorted(self._by_ranks.values(), key=lambda s: (s.nodes * s.node_cores, s.ranks))
        self.exclusive = study.trial.exclusive

    @staticmethod
    def _asked_cores(study: Study) -> int:
        """What `workers_per_node` says."""
        ranks = study.trial.ranks
        if study.blocks.workers_per_node is None or not isinstance(ranks, int):
            return 0
        per_node = study.trial.ranks_per_node or ranks
        return study.blocks.workers_per_node * per_node * study.trial.cores_per_rank

    @property
    def several_ranks(self) -> bool:
        """Whether there are trials that a launcher has to start."""
        return any(shape.ranks > 1 for shape in self.all)

    @property
    def mixed(self) -> bool:
        """Whether trials differ in size."""
        return len(self.all) > 1

    @property
    def cores(self) -> int:
        """Cores of a node that trials are placed on."""
        return self._cores

    @property
    def per_node(self) -> int:
        """Trials, or nodes' parts of trials, of the smallest shape on a node at one time."""
        asked = self._study.blocks.workers_per_node
        return asked if asked is not None else self.fit(self.all[0])

    @property
    def largest(self) -> Shape:
        """That which takes the most nodes."""
        return max(self.all, key=lambda shape: shape.nodes)

    @property
    def trials_per_node(self) -> float:
        """Trials at one time on a node, below 1 where they take several; all sizes are taken to be
        equally frequent."""
        return self.per_node * len(self.all) / sum(map(self.width, self.all))

    def fit(self, shape: Shape) -> int:
        """Trials of a shape, or their parts, that a node holds."""
        if shape.exclusive:
            return 1
        fit = [self._cores // shape.node_cores]
        if shape.node_gpus:
            fit.append(self._node.gpus // shape.node_gpus)
        memory = self._study.trial.memory
        if memory is not None and self._node.memory is not None:
            fit.append(self._node.memory * shape.nodes // memory)
        return max(1, min(fit))

    def width(self, shape: Shape) -> int:
        """How many workers' worth of nodes a trial takes."""
        return shape.nodes * max(1, round(self.per_node / self.fit(shape)))

    def steps(self, nodes: int) -> int:
        """Trials of several ranks that run at one time in a block of `nodes`, at most."""
        counts = [max(1, nodes * self.fit(s) // s.nodes) for s in self.all if s.ranks > 1]
        return max(counts, default=0)

    def of(self, point: Point) -> Shape:
        """The shape of the trial of a point.

        Raises:
            ValueError: the expression makes no number of this point.
        """
        ranks = self._ranks(point)
        if ranks not in self._by_ranks:
            self._by_ranks[ranks] = self._shape(ranks)
        return self._by_ranks[ranks]

    def _ranks(self, point: Point) -> int:
        if self._expression is not None:
            return self._expression.number(point)
        assert isinstance(self._study.trial.ranks, int)
        return self._study.trial.ranks

    def _sizes(self) -> Iterator[int]:
        """Every number of ranks that the expression can take."""
        assert self._expression is not None
        space, names = self._study.space, sorted(self._expression.used)
        values = []
        for name in names:
            try:
                values.append(space.domain(name).grid(None))
            except ValueError:
                raise Misfit(
                    "trial.ranks", f"parameter {name} takes any value of a range", name,
                    "parameters with a list or a range of whole numbers",
                ) from None  # fmt: skip
        count = 1
        for some in values:
            count *= len(some)
        if count > MAX_SIZES:
            raise Misfit("trial.ranks", f"{count} combinations of {', '.join(names)}",
                         self._expression.text, f"at most {MAX_SIZES}")  # fmt: skip
        for combination in itertools.product(*values):
            point = dict(zip(names, combination, strict=True))
            if not space.allows(point):
                continue
            try:
                ranks = self._expression.number(point)
            except ValueError as error:
                raise Misfit("trial.ranks", str(error), self._expression.text,
                             "a whole number for every point") from error  # fmt: skip
            if ranks < 1:
                raise Misfit("trial.ranks", f"{self._expression.text} is {ranks} at {point}",
                             self._expression.text, "at least 1")  # fmt: skip
            yield ranks

    def _shape(self, ranks: int) -> Shape:
        """The shape of a trial of `ranks` processes.

        Raises:
            Misfit: no node of the site holds its part.
        """
        trial, node = self._study.trial, self._node
        per_node = self._per_node(ranks)
        shape = Shape(
            ranks, per_node, trial.cores_per_rank, trial.gpus_per_rank, trial.exclusive,
            trial.threads or trial.cores_per_rank,
        )  # fmt: skip
        if shape.node_gpus > node.gpus:
            self._refuse("gpus_per_rank", "GPU", shape, node.gpus, shape.node_gpus)
        if shape.node_cores > self._cores:
            self._refuse("cores_per_rank", "core", shape, self._cores, shape.node_cores)
        if 0 < trial.gpus_per_rank != int(trial.gpus_per_rank) > 0:
            raise Misfit("trial.gpus_per_rank", "neither a part of a GPU nor whole GPUs",
                         trial.gpus_per_rank, "0.5, 0.25, 1, 2, ...")  # fmt: skip
        return shape

    def _per_node(self, ranks: int) -> int:
        trial = self._study.trial
        if trial.nodes is not None and trial.ranks_per_node is not None:
            if ranks != trial.nodes * trial.ranks_per_node:
                raise Misfit("trial.nodes", f"{trial.nodes} nodes of {trial.ranks_per_node} ranks "
                             f"are not the {ranks} ranks of a trial", trial.nodes,
                             "one of nodes and ranks_per_node")  # fmt: skip
            return trial.ranks_per_node
        if trial.nodes is not None:
            if ranks % trial.nodes:
                raise Misfit("trial.nodes", f"{ranks} ranks do not divide among {trial.nodes} "
                             "nodes", trial.nodes, f"a divisor of {ranks}")  # fmt: skip
            return ranks // trial.nodes
        if trial.ranks_per_node is not None:
            per_node = min(ranks, trial.ranks_per_node)
            if ranks % per_node:
                raise Misfit("trial.ranks_per_node", f"{ranks} ranks do not divide among nodes of "
                             f"{per_node}", per_node, f"a divisor of {ranks}")  # fmt: skip
            return per_node
        return next((n for n in _divisors(ranks) if self._holds(n)), 1)

    def _holds(self, ranks: int) -> bool:
        """Whether a node holds so many ranks of a trial."""
        trial = self._study.trial
        part = Shape(ranks, ranks, trial.cores_per_rank, trial.gpus_per_rank)
        return part.node_cores <= self._cores and part.node_gpus <= self._node.gpus

    def _refuse(self, key: str, what: str, shape: Shape, has: int, takes: int) -> None:
        """Say what does not fit, and what would."""
        ways = []
        better = next((n for n in _divisors(shape.ranks) if n and self._holds(n)), 0)
        if better:
            nodes = shape.ranks // better
            ways.append(f"{nodes} node{'s' if nodes > 1 else ''} of {better}")
        per_rank = self._study.trial.gpus_per_rank
        if what == "GPU" and per_rank == 1 and has:
            share = next((1 / n for n in (2, 4, 8) if -(-shape.per_node // n) <= has), None)
            ways += [f"gpus_per_rank: {share:g}"] if share else []
        each = f"{per_rank:g} GPU{'s' if per_rank != 1 else ''}" if what == "GPU" else (
            f"{shape.cores} core{'s' if shape.cores != 1 else ''}"
        )  # fmt: skip
        many = "ranks" if shape.per_node > 1 else "rank"
        raise Misfit(
            f"trial.{key}",
            f"{shape.per_node} {many} with {each} each do not fit a node of {has} {what}s",
            takes, " or ".join(ways) or f"at most {has} {what}s on a node",
        )  # fmt: skip


@lru_cache(maxsize=1024)
def _divisors(number: int) -> list[int]:
    """The divisors of a number, the largest first."""
    return [n for n in range(number, 0, -1) if number % n == 0]


def _expression(study: Study) -> Expression | None:
    """The expression that gives a trial's ranks; None when they are a number."""
    text = study.trial.ranks
    if isinstance(text, int):
        return None
    try:
        return Expression(text, study.space.names)
    except ExpressionError as error:
        raise Misfit(
            "trial.ranks", str(error), text, "a number, or an expression over parameters"
        ) from error


def check_shapes(study: Study, site: Site) -> list[InputError]:
    """What of the trials' resources the site cannot give."""
    try:
        shapes = Shapes(study, site)
    except Misfit as error:
        return [study.problem(error.key, error.problem, found=error.found, valid=error.valid)]
    return list(_check_blocks(study, site, shapes))


def _check_blocks(study: Study, site: Site, shapes: Shapes) -> Iterator[InputError]:
    blocks, node = study.blocks, site.node
    largest = shapes.largest.nodes
    if largest > 1 and not site.batch:
        yield study.problem(
            "trial.ranks", f"a trial takes {largest} nodes of {node.cores} cores and {node.gpus} "
            f"GPUs; site {site.name} is one machine", found=study.trial.ranks,
            valid="fewer ranks; or blocks.workers_per_node, by which trials may share cores",
        )  # fmt: skip
    elif largest > blocks.nodes and not blocks.auto:
        yield study.problem(
            "blocks.nodes", f"a trial takes {largest} nodes", found=blocks.nodes,
            valid=f"at least {largest}",
        )  # fmt: skip
    gpus = shapes.all[0].node_gpus
    if blocks.workers_per_node is not None and 0 < node.gpus < blocks.workers_per_node * gpus:
        yield study.problem(
            "blocks.workers_per_node",
            f"a node of site {site.name} has {node.gpus} GPUs and each trial takes {gpus}",
            found=blocks.workers_per_node, valid=f"at most {node.gpus // gpus}",
        )  # fmt: skip
    if shapes.several_ranks and site.batch and site.launcher == "none":
        yield study.problem(
            "trial.ranks", f"site {site.name} states no launcher that could start several",
            found=study.trial.ranks, valid="1, or a launcher in the site's file",
        )  # fmt: skip
    if shapes.steps(blocks.nodes) > MAX_STEPS:
        yield study.problem(
            "blocks.nodes", f"{shapes.steps(blocks.nodes)} trials of several ranks would run at "
            f"one time; a batch node starts about {MAX_STEPS} steps", found=blocks.nodes,
        )  # fmt: skip


def place_settings(shapes: Shapes, site: Site) -> Mapping[str, Any]:
    """What the placer, in a process of its own, has to know of the site; plain JSON."""
    return {
        "cores": shapes.cores,
        "first_core": shapes.kept_cores,
        "gpus": site.node.gpus,
        "domains": site.node.domains,
        "gpu_domains": list(site.node.gpu_domains),
        "smt": site.node.smt,
        "mask": MASKS[site.node.gpu_vendor] if site.node.gpus else "",
        # A node of a batch job is the job's own; here others work, too.
        "bind": site.batch and shapes.cores <= site.node.cores,
        "launcher": site.launcher,
        "mpi": site.mpi,
    }


#: The variable by which each vendor's GPUs are masked.
MASKS = {
    "nvidia": "CUDA_VISIBLE_DEVICES",
    "amd": "ROCR_VISIBLE_DEVICES",
    "intel": "ZE_AFFINITY_MASK",
}
