"""A training program: a line fitted to noisy points by stochastic gradient descent.

Put your own program in place of it: it reads its parameters and writes output.json. The
checkpoint and the signal are what lets it survive the end of its batch job; without them it
begins again.
"""

import argparse
import json
import os
import random
import signal
import sys
from pathlib import Path

EPOCHS = 50
CHECKPOINT = Path("checkpoint.json")


def make_points(seed: int, count: int) -> list[tuple[float, float]]:
    """Points (x, y) near y = 3 x - 1."""
    draw = random.Random(seed)
    xs = [draw.uniform(-1, 1) for _ in range(count)]
    return [(x, 3 * x - 1 + draw.gauss(0, 0.1)) for x in xs]


def train_epoch(line: list[float], rate: float, batch: int, seed: int) -> None:
    """Move the line [slope, intercept] by one pass over the training points."""
    points = make_points(1, 200)
    # The order depends on the epoch alone, so a run that was interrupted gets the same loss.
    random.Random(seed).shuffle(points)
    for begin in range(0, len(points), batch):
        part = points[begin : begin + batch]
        errors = [line[0] * x + line[1] - y for x, y in part]
        slopes = [error * x for error, (x, _) in zip(errors, part, strict=True)]
        line[0] -= rate * sum(slopes) / len(part)
        line[1] -= rate * sum(errors) / len(part)


def save(epoch: int, line: list[float]) -> None:
    """Replace the checkpoint; a reader never sees half of it."""
    temporary = CHECKPOINT.with_suffix(".new")
    temporary.write_text(json.dumps([epoch, line]))
    temporary.replace(CHECKPOINT)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--schedule", required=True)
    parser.add_argument("--rate", default="")
    options = parser.parse_args()

    stop: list[int] = []
    name = os.environ.get("HPC_HPO_CHECKPOINT_SIGNAL", "SIGUSR1")
    signal.signal(signal.Signals[name], lambda number, frame: stop.append(number))

    seed = int(os.environ.get("HPC_HPO_SEED", "0"))
    decay = float(options.rate) if options.schedule == "decay" else 1.0
    done, line = 0, [0.0, 0.0]
    if CHECKPOINT.exists():
        done, line = json.loads(CHECKPOINT.read_text())
    for epoch in range(done, EPOCHS):
        train_epoch(line, options.lr * decay**epoch, options.batch, seed + epoch)
        if stop or epoch % 10 == 9:
            save(epoch + 1, line)
        if stop:
            sys.exit("stopped at a checkpoint")

    errors = [(line[0] * x + line[1] - y) ** 2 for x, y in make_points(2, 50)]
    Path("output.json").write_text(json.dumps({"loss": sum(errors) / len(errors)}))


if __name__ == "__main__":
    main()
