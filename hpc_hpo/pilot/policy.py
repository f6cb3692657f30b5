"""How many blocks to have: a pure function of the blocks, the demand and the limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: For the release of another, a block counts as lasting only with this much more left, in seconds:
#: the lead is learned anew with each block, and a successor that is just up, without work yet,
#: must not look superfluous because the lead has become shorter than when it was requested.
RELEASE_SLACK_S = 30.0
#: A block lasts as long as another if it has at least this share of the other's time left.
AS_LONG = 0.8
#: A successor is requested at the earliest when this share of a block is left.
LEAD_SHARE = 0.9
#: Of the time from TERM to KILL, the part that slices get to checkpoint; the rest is for ending
#: their processes.
SLICES_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class LiveBlock:
    """A block that has not ended.

    Attributes:
        seconds_left: until its deadline; its whole walltime while it waits in the queue;
            infinity without one.
        idle: its workers are connected and none of them has a slice.
    """

    id: str
    running: bool
    seconds_left: float
    idle: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """What the study and the site allow.

    Attributes:
        max_blocks: blocks that may take slices at one time.
        workers_per_block: slices one block can run at one time.
        lead_s: a successor is requested this long before a block's end, the time that a block
            takes to come up.
        useful_s: a block with less time left than this cannot start any open slice.
    """

    max_blocks: int
    workers_per_block: int
    lead_s: float
    useful_s: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now."""

    request: int
    release: tuple[str, ...]


def decide(blocks: Sequence[LiveBlock], demand: int, limits: Limits) -> Decision:
    """Blocks to request and to release.

    Args:
        blocks: all that have not ended and were not released.
        demand: slices that are running or could run now.

    A block *lasts* while more than `lead_s` of it is left, so that its successor starts up
    while it runs out; those that last never exceed `max_blocks`. Released is an idle block
    that is too short for every open slice, or that the demand does not need: its hours are
    money. Not needed is one beyond the number of lasting blocks that the demand asks for, and one
    beside which others, that last as long, have room for the whole demand: where jobs wait
    for hours no block counts as lasting, and the study's last trial must not keep two.
    """
    lasting = [b for b in blocks if not b.running or b.seconds_left > limits.lead_s]
    needed = min(limits.max_blocks, math.ceil(demand / max(1, limits.workers_per_block)))
    idle = sorted((b for b in blocks if b.running and b.idle), key=lambda b: b.seconds_left)
    staying = [b for b in lasting if b.seconds_left > limits.lead_s + RELEASE_SLACK_S]
    surplus = len(staying) - needed
    release: list[str] = []
    for block in idle:
        if limits.lead_s < block.seconds_left < limits.useful_s:
            release.append(block.id)
        elif surplus > 0 and block.seconds_left > limits.lead_s:
            release.append(block.id)
            surplus -= 1
        elif demand <= limits.workers_per_block * sum(
            other.running
            and other.id not in (block.id, *release)
            and other.seconds_left >= AS_LONG * block.seconds_left
            for other in blocks
        ):
            release.append(block.id)
    return Decision(max(0, needed - len(lasting)), tuple(release))
