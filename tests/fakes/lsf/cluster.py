"""What differs between clusters, as data: nodes, queues with their bins, style of submission."""

from __future__ import annotations

from dataclasses import dataclass, field

HOUR = 60  # minutes


@dataclass(frozen=True)
class Bin:
    """A range of job sizes (nodes, both ends included) and its longest walltime in minutes."""

    smallest: int
    largest: int
    minutes: int


@dataclass(frozen=True)
class Queue:
    """A queue's limits.

    Attributes:
        bins: sizes accepted; empty when neither size nor walltime is bounded.
        eligible: pending jobs that are considered for a start at one time; None is unbounded.
        queued: jobs in any unfinished state; one more is refused.
        preemptable: jobs may be stopped for others, and are requeued under their own id.
    """

    name: str
    bins: tuple[Bin, ...] = ()
    eligible: int | None = None
    queued: int | None = None
    preemptable: bool = False

    def bin_of(self, nodes: int) -> Bin | None:
        """The bin that `nodes` falls into; None when no bin holds it."""
        return next((b for b in self.bins if b.smallest <= nodes <= b.largest), None)


@dataclass(frozen=True)
class Cluster:
    """A machine.

    Attributes:
        flavour: ``summit`` (whole nodes by ``-nnodes``, jsrun, a batch node apart from the
            compute nodes) or ``plain`` (slots by ``-n``, shared nodes, redirection).
        nodes, cpus, gpus: compute nodes, and the slots and GPUs of each.
        smt: hardware threads of each core, by which explicit resource files count.
        speed: cluster seconds that pass in one real second.
        grace: real seconds between the signals of a kill. Not scaled: the handlers that must
            run between them are real.
        clean_period: cluster seconds for which a finished job is still known to ``bjobs``
            (LSF's CLEAN_PERIOD, an hour by default).
        real_times: durations and time stamps are told in real seconds, so that a program that
            knows nothing of the scaled clock computes true deadlines.
        queues: the first one is the default.
    """

    flavour: str = "summit"
    nodes: int = 4
    cpus: int = 42
    gpus: int = 6
    smt: int = 4
    speed: float = 60.0
    grace: float = 0.5
    clean_period: float = 3600.0
    real_times: bool = False
    queues: tuple[Queue, ...] = field(default=())

    @property
    def by_nodes(self) -> bool:
        """Whole nodes are requested, by their number."""
        return self.flavour == "summit"

    @property
    def hosts(self) -> list[str]:
        """The compute nodes' names, in the order in which they are handed out."""
        return [f"h{i:02d}n{j:02d}" for i, j in _rack(self.nodes)]

    def queue(self, name: str) -> Queue | None:
        """The queue of that name."""
        return next((q for q in self.queues if q.name == name), None)


def _rack(nodes: int) -> list[tuple[int, int]]:
    return [(1 + i // 18, 1 + i % 18) for i in range(nodes)]


def summit_queues(eligible: int = 4, queued: int = 100) -> tuple[Queue, ...]:
    """The queues of the Summit user guide.

    ``killable`` is bounded to the two bins for which the guide promises its 24 hours.
    """
    batch = (
        Bin(1, 45, 2 * HOUR),
        Bin(46, 91, 6 * HOUR),
        Bin(92, 921, 12 * HOUR),
        Bin(922, 2764, 24 * HOUR),
        Bin(2765, 4608, 24 * HOUR),
    )
    return (
        Queue("batch", batch, eligible, queued),
        Queue("killable", (Bin(1, 91, 24 * HOUR),), eligible, queued, preemptable=True),
        Queue("debug", (Bin(1, 4608, 2 * HOUR),), 1, 1),
    )


def plain_queues(eligible: int | None = None, queued: int | None = None) -> tuple[Queue, ...]:
    """Two queues as small LSF sites have them, unbounded unless told otherwise."""
    return (
        Queue("normal", (), eligible, queued),
        Queue("short", (Bin(1, 1 << 20, HOUR),), eligible, queued),
    )
