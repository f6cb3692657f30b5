"""Which cores and GPUs each rank of a trial gets of its node's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpc_hpo.model import Shape


def rank_share(shape: Shape, node: Sequence[Any], local: int) -> tuple[list[int], list[int]]:
    """(cores, GPUs) of the rank with number `local` on a node.

    Args:
        node: (name, cores, GPUs) that the slice has there.
    """
    _, cores, gpus = node
    mine = list(cores[local * shape.cores : (local + 1) * shape.cores])
    if shape.gpus >= 1:
        each = int(shape.gpus)
        return mine, list(gpus[local * each : (local + 1) * each])
    return mine, [gpus[local // shape.sharers]] if shape.gpus > 0 else []
