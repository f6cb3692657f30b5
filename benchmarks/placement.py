"""How much of a block the placer uses for a mixed stream of trials, and how long they wait.

A simulated block of 45 Summit nodes (42 cores, 6 GPUs, 2 domains) runs trials of which 70 % take
one GPU, 20 % three GPUs of a node, and 10 % two whole nodes (12 ranks). Their durations are
log-normal (sigma 0.5) with the same mean for all kinds. As the steering loop does, a queue of a
quarter of the workers' worth is kept waiting (steering/loop.py, MIXED_AHEAD). After a warm-up,
the share of node-GPU-seconds that trials use is measured, and the time from a trial's arrival in
the queue to its start, in units of the mean trial.

Beside the placer, in the same stream: *fifo*, where the first in the queue is placed or all wait;
and *first fit*, where any that fits is placed, in the queue's order, and nothing is kept.

    PYTHONPATH=. python benchmarks/placement.py [--json FILE]
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from hpc_hpo.model import Shape
from hpc_hpo.pilot.placement import NodeShape, Placer

NODES, GPUS, CORES = 45, 6, 42
KINDS = {
    "1 GPU": (0.7, Shape(1, 1, 7, 1.0)),
    "3 GPUs": (0.2, Shape(3, 3, 7, 1.0)),
    "2 nodes": (0.1, Shape(12, 6, 7, 1.0)),
}
WARM_UP, MEASURED, SIGMA = 10.0, 60.0, 0.5
AHEAD = 0.25


def gpus_of(shape: Shape) -> int:
    """GPUs of a whole trial."""
    return shape.nodes * shape.node_gpus


def stream(seed: int) -> Iterator[tuple[str, Shape, float]]:
    """Kinds, shapes and durations, without end."""
    rng = random.Random(seed)
    names, weights = list(KINDS), [weight for weight, _ in KINDS.values()]
    while True:
        kind = rng.choices(names, weights)[0]
        yield kind, KINDS[kind][1], rng.lognormvariate(-(SIGMA**2) / 2, SIGMA)


class Simulation:
    """One policy over one stream."""

    def __init__(self, policy: str, seed: int) -> None:
        self.policy, self.time, self.calls = policy, 0.0, 0
        self.placer = Placer(NodeShape(CORES, GPUS, 2), lambda: self.time)
        for number in range(NODES):
            self.placer.add_node("0", f"node{number}")
        self.stream = stream(seed)
        self.queue: dict[int, tuple[str, Shape, float, float]] = {}
        self.ends: list[tuple[float, int]] = []
        self.waits: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.used = 0.0
        self.busy: dict[int, tuple[float, float, int]] = {}
        self.number = 0
        self.spent = 0.0

    def fill(self) -> None:
        """Keep the queue as the steering loop does."""
        waiting = sum(gpus_of(shape) for _, shape, _, _ in self.queue.values())
        while waiting < AHEAD * NODES * GPUS:
            kind, shape, duration = next(self.stream)
            self.queue[self.number] = (kind, shape, duration, self.time)
            self.number += 1
            waiting += gpus_of(shape)

    def start(self) -> None:
        """Place what the policy places."""
        begun = time.perf_counter()
        if self.policy == "placer":
            waiting = [(n, shape, 1.0) for n, (_, shape, _, _) in self.queue.items()]
            started = [number for number, _ in self.placer.schedule(waiting)]
        else:
            started = []
            for number, (_, shape, _, _) in list(self.queue.items()):
                # One alone, so that the placer has no choice and keeps no node.
                self.placer._since.clear()
                if self.placer.schedule([(number, shape, 1.0)]):
                    started.append(number)
                elif self.policy == "fifo":
                    break
        self.spent += time.perf_counter() - begun
        self.calls += 1
        for number in started:
            kind, shape, duration, arrived = self.queue.pop(number)
            heapq.heappush(self.ends, (self.time + duration, number))
            self.busy[number] = (self.time, self.time + duration, gpus_of(shape))
            if self.time >= WARM_UP:
                self.waits[kind].append(self.time - arrived)

    def run(self) -> dict[str, object]:
        """What came out."""
        end = WARM_UP + MEASURED
        while self.time < end:
            before = -1
            while before != len(self.queue) + self.number:
                self.fill()
                before = len(self.queue) + self.number
                self.start()
                self.fill()
            self.time, number = heapq.heappop(self.ends)
            self.placer.free(number)
        used = sum(
            gpus * max(0.0, min(b, end) - max(a, WARM_UP)) for a, b, gpus in self.busy.values()
        )
        # Those that still wait count with what they have waited.
        for kind, _, _, arrived in self.queue.values():
            self.waits[kind].append(end - arrived)
        return {
            "used": round(used / (NODES * GPUS * MEASURED), 4),
            "longest_wait": round(max(max(w) for w in self.waits.values()), 2),
            "waits": {
                kind: {"mean": round(statistics.mean(w), 2), "longest": round(max(w), 2)}
                for kind, w in self.waits.items()
            },
            "calls_per_s": round(self.calls / self.spent),
        }


def main() -> None:
    """Run all policies over the same streams."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {
        policy: [Simulation(policy, seed).run() for seed in range(options.seeds)]
        for policy in ("placer", "first fit", "fifo")
    }
    for policy, runs in found.items():
        used = [run["used"] for run in runs]
        longest = [run["longest_wait"] for run in runs]
        print(f"{policy:10} used {min(used):.3f}-{max(used):.3f}, longest wait "
              f"{min(longest):.1f}-{max(longest):.1f} mean trials")  # fmt: skip
        for run in runs:
            print("  ", run)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
