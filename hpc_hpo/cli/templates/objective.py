"""An objective: a line fitted to noisy points by stochastic gradient descent.

Put your own training in place of it. What makes a trial survive the end of its batch job is
the three calls: trial.restore(), trial.checkpoint() and trial.should_stop().
"""

import random
from typing import Any

EPOCHS = 50


def make_points(seed: int, count: int) -> list[tuple[float, float]]:
    """Points (x, y) near y = 3 x - 1."""
    draw = random.Random(seed)
    xs = [draw.uniform(-1, 1) for _ in range(count)]
    return [(x, 3 * x - 1 + draw.gauss(0, 0.1)) for x in xs]


def mean_squared_error(line: list[float], points: list[tuple[float, float]]) -> float:
    """Of the line [slope, intercept] over the points."""
    return sum((line[0] * x + line[1] - y) ** 2 for x, y in points) / len(points)


def train(config: dict[str, Any], trial: Any) -> float | None:
    """The validation loss after the last epoch; None when the trial has to go on later."""
    training, validation = make_points(1, 200), make_points(2, 50)
    state = trial.restore() or {"epoch": 0, "line": [0.0, 0.0]}
    line = state["line"]
    for epoch in range(state["epoch"], EPOCHS):
        rate = config["lr"] * config.get("rate", 1.0) ** epoch
        # The order depends on the epoch alone, so a trial that was interrupted gets the same loss.
        points = random.Random(trial.seed + epoch).sample(training, len(training))
        for begin in range(0, len(points), config["batch"]):
            batch = points[begin : begin + config["batch"]]
            errors = [line[0] * x + line[1] - y for x, y in batch]
            slopes = [error * x for error, (x, _) in zip(errors, batch, strict=True)]
            line[0] -= rate * sum(slopes) / len(batch)
            line[1] -= rate * sum(errors) / len(batch)
        trial.report(epoch, loss=mean_squared_error(line, validation))
        stop = trial.should_stop()
        if stop or trial.should_checkpoint():
            trial.checkpoint({"epoch": epoch + 1, "line": line})
        if stop:
            return None
    return mean_squared_error(line, validation)
