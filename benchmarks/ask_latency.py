"""How long a free worker waits for its next point, beside peers.

    python benchmarks/ask_latency.py [--quick] [--told 100,800,1000,10000,100000] [--dims 6,30]
        [--only queue,inline,...] [--seconds 10] [--rate 50] [--limit 120] [--json FILE]

Rows `queue` are what a study does: the ready queue over its helper process, with 1,000 trials in
flight. Every wait is one tell and one ask, at 50 pairs a second (27,648 workers with trials of 10
minutes are 46 a second), for p50 and p99; then as many a second as it can, for asks/s, and for each
second of CPU that it got. `fitted` is the share of points that came from a fit, at that pace and at
that rate; the rest are neighbours of the best. Measuring begins with the helper's first points, or
60 s after its start at the latest (`first_fit_s` in the JSON). `core` is the share of one core that
the helper took, at that pace.
Rows `inline` fit in place. `ask(64)` is a batch at once, right after a loss; in brackets the CPU it
took, which other work on the machine changes less than the wall clock.

Peers (extra `peers`) are asked in the same way, each in a process of its own that is ended after
--limit seconds: what it has not answered by then took longer, and larger cases are left out. Goals:
p99 under 20 ms at 10,000 told; over 500 a second at 100,000; ask(64) at 800 told under 0.5 s, and
over 100 times faster than scikit-optimize's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # matrices are small: threads only spin

import numpy as np  # noqa: E402
import psutil  # noqa: E402
from common import machine, write_result  # noqa: E402
from quality_peers import ASKERS, Asker  # noqa: E402

from hpc_hpo.optimizers.helper import shared, stop_shared  # noqa: E402
from hpc_hpo.optimizers.ready import ReadyOptimizer, with_queue  # noqa: E402
from hpc_hpo.optimizers.registry import create  # noqa: E402
from hpc_hpo.space import Space  # noqa: E402

IN_FLIGHT = 1000
BATCH = 64
#: How long the helper may take for its first points, in seconds.
MOST_START_S = 60.0
#: Waits of one asker, at most.
MOST_WAITS = 2000
PEERS = ("skopt GP", "skopt ET", "Optuna TPE", "DeepHyper")
PACKAGES = ("numpy", "scipy", "scikit-learn", "scikit-optimize", "optuna", "deephyper")


def loss_of(x: np.ndarray) -> float:
    """A bent valley, cheap to compute."""
    return float(((x[:-1] - 0.3) ** 2).sum() + 10.0 * ((x[1:] - x[:-1] ** 2) ** 2).sum())


def points_told(dims: int, count: int) -> np.ndarray:
    """Random points, shape (count, dims)."""
    return np.random.default_rng(count).random((count, dims))


class Ours:
    """One of this package's optimisers, with trials in flight."""

    def __init__(self, spec: Any, dims: int, *, queue: bool) -> None:
        self.space = Space.parse({f"x{i}": {"float": [0.0, 1.0]} for i in range(dims)})
        made = create(spec, self.space, 0)
        self.optimizer = with_queue(made, spec) if queue else made
        self._next = 0
        self._flying: list[tuple[int, dict[str, float]]] = []

    def load(self, x: np.ndarray) -> None:
        """Replay all these points with their losses."""
        for row in x:
            self.optimizer.adopt(self._next, self.space.from_unit(row))
            self.optimizer.tell(self._next, loss_of(row))
            self._next += 1

    def fly(self, count: int) -> None:
        """Have so many trials more in flight."""
        ids = range(self._next, self._next + count)
        self._next += count
        self._flying += zip(ids, self.optimizer.ask(ids), strict=True)

    def step(self) -> None:
        """One trial ends, and its worker is given another."""
        if self._flying:
            trial, point = self._flying.pop(0)
            self.optimizer.tell(trial, loss_of(np.array(list(point.values()))))
        self.fly(1)

    def batch(self) -> None:
        """One trial ends, and a batch of workers is given points."""
        self.step()
        self.fly(BATCH)


class Peer:
    """A peer as search_quality.py asks it."""

    def __init__(self, name: str, dims: int) -> None:
        self._asker: Asker = ASKERS[name]((0,) * dims, 0, 10**6)
        self._optuna = getattr(self._asker, "_study", None)
        self._names = [f"x{i}" for i in range(dims)]

    def load(self, x: np.ndarray) -> None:
        """Tell it all these points with their losses."""
        if self._optuna is not None:
            import optuna

            axes = {n: optuna.distributions.FloatDistribution(0.0, 1.0) for n in self._names}
            self._optuna.add_trials([
                optuna.trial.create_trial(
                    params=dict(zip(self._names, row.tolist(), strict=True)),
                    distributions=axes, value=loss_of(row),
                )
                for row in x
            ])  # fmt: skip
            return
        named = hasattr(self._asker, "_names")  # DeepHyper's points are dicts
        points = [dict(zip(self._names, r, strict=True)) if named else r for r in x.tolist()]
        self._asker.tell([(point, loss_of(row)) for point, row in zip(points, x, strict=True)])

    def step(self) -> None:
        """One point, and its loss."""
        [(ticket, values)] = self._asker.ask(1)
        self._asker.tell([(ticket, loss_of(np.array(values)))])

    def batch(self) -> None:
        """A batch of points."""
        self._asker.ask(BATCH)


def quantiles(waits: list[float]) -> dict[str, float]:
    """Milliseconds."""
    return {
        "p50_ms": 1000.0 * float(np.quantile(waits, 0.5)),
        "p99_ms": 1000.0 * float(np.quantile(waits, 0.99)),
        "waits": len(waits),
    }


def timed(call: Callable[[], None]) -> float:
    """Seconds of wall clock."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def steps(step: Callable[[], None], seconds: float) -> list[float]:
    """Waits of single asks, for so long or three of them."""
    waits: list[float] = []
    end = time.perf_counter() + seconds
    while (time.perf_counter() < end or len(waits) < 3) and len(waits) < MOST_WAITS:
        waits.append(timed(step))
    return waits


def measure_inline(dims: int, told: int, seconds: float) -> dict[str, Any]:
    """Fitting in place."""
    asker = Ours("auto", dims, queue=False)
    row: dict[str, Any] = {"load_s": timed(lambda: asker.load(points_told(dims, told)))}
    asker.step()  # imports, and the first learning
    cpu = time.process_time()
    row["batch_s"] = timed(asker.batch)
    row["batch_cpu_s"] = time.process_time() - cpu
    return row | quantiles(steps(asker.step, seconds))


def measure_queue(dims: int, told: int, seconds: float, rate: float) -> dict[str, Any]:
    """Waits at a steady pace, then the rate without one."""
    asker = Ours({"name": "auto"}, dims, queue=True)
    row: dict[str, Any] = {"load_s": timed(lambda: asker.load(points_told(dims, told)))}
    optimizer = asker.optimizer
    assert isinstance(optimizer, ReadyOptimizer)
    asker.fly(IN_FLIGHT)
    row["first_fit_s"] = timed(lambda: wait_for_fit(optimizer))
    for _ in range(2):  # the first time to let the helper find its pace
        waits: list[float] = []
        begun, cpu = time.perf_counter(), helper_cpu()
        share_fitted(optimizer)
        while (now := time.perf_counter()) < begun + seconds:
            time.sleep(max(0.0, begun + len(waits) / rate - now))
            waits.append(timed(asker.step))
        core = (helper_cpu() - cpu) / (time.perf_counter() - begun)
    row |= {**quantiles(waits), "core": core, "paced_fitted": share_fitted(optimizer)}
    count, begun, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() < begun + seconds:
        asker.step()
        count += 1
    row["asks_per_s"] = count / (time.perf_counter() - begun)
    row["asks_per_cpu_s"] = count / (time.process_time() - cpu)
    row["fitted"] = share_fitted(optimizer)
    row["batch_s"] = timed(asker.batch)
    return row


def wait_for_fit(optimizer: ReadyOptimizer) -> None:
    """Until the helper, just started, has taken the history in and made its first points."""
    end = time.monotonic() + MOST_START_S
    while not optimizer._queue and time.monotonic() < end:
        time.sleep(0.01)


def helper_cpu() -> float:
    """Seconds of CPU that the helper has taken so far."""
    times = psutil.Process(shared().pid).cpu_times()
    return float(times.user + times.system)


def share_fitted(optimizer: ReadyOptimizer) -> float:
    """Of the points since the last call, those that came from the queue."""
    served = dict(optimizer.served)
    optimizer.served.update(dict.fromkeys(served, 0))
    return served["queue"] / max(1, sum(served.values()))


def _in_child(name: str, dims: int, told: int, seconds: float, answers: Connection) -> None:
    try:
        peer = Peer(name, dims)
        answers.send({"load_s": timed(lambda: peer.load(points_told(dims, told)))})
        answers.send(quantiles(steps(peer.step, seconds)))
        answers.send({"batch_s": timed(peer.batch)})
    except ImportError as error:
        answers.send({"missing": str(error)})


def measure_peer(name: str, dims: int, told: int, seconds: float, limit: float) -> dict[str, Any]:
    """What a peer answers in time; `over_s` tells that it was ended, so long after its last answer,
    while it was at `busy_with`."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=_in_child, args=(name, dims, told, seconds, theirs)
    )
    process.start()
    theirs.close()
    row: dict[str, Any] = {}
    begun = time.monotonic()
    end = begun + limit
    while "batch_s" not in row and "missing" not in row:
        if not ours.poll(max(0.0, end - time.monotonic())):
            row["over_s"] = time.monotonic() - begun
            stages = {"load_s": "the points told", "p50_ms": "single asks", "batch_s": "a batch"}
            row["busy_with"] = next(what for key, what in stages.items() if key not in row)
            break
        try:
            row |= ours.recv()
            begun = time.monotonic()
        except EOFError:
            row["missing"] = f"it ended by itself, exit code {process.exitcode}"
    process.kill()
    process.join()
    return row


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--told", default="100,800,1000,10000,100000")
    parser.add_argument("--dims", default="6,30")
    names = ("queue", "inline", *PEERS)
    parser.add_argument("--only", default=",".join(names))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=50.0, help="paced asks a second")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for a peer's answers")
    parser.add_argument("--quick", action="store_true", help="3 s each, at most 10,000 told, 6-d")
    parser.add_argument("--json")
    options = parser.parse_args()
    options.only = options.only.split(",")
    for name in options.only:
        if name not in names:
            parser.error(f"--only: {name!r} is none of {', '.join(names)}")
    for key in ("told", "dims"):
        try:
            setattr(options, key, [int(n) for n in getattr(options, key).split(",")])
        except ValueError:
            parser.error(f"--{key}: {getattr(options, key)!r} is no list of whole numbers")
    if options.quick:
        options.seconds, options.limit, options.dims = 3.0, 20.0, [6]
        options.told = [n for n in options.told if n <= 10_000]
    return options


def main() -> None:
    """Measure, print a table, save the JSON."""
    options = _parse()
    facts = machine(PACKAGES)
    rows: list[dict[str, Any]] = []
    print(
        " dims   told asker         p50 ms     p99 ms   asks/s  per CPU fitted      core  ask(64) s"
    )
    slow: dict[str, int] = {}
    for dims in options.dims:
        for told in options.told:
            for name in options.only:
                if told >= slow.get(name, told + 1):
                    continue
                if name == "queue":
                    row = measure_queue(dims, told, options.seconds, options.rate)
                elif name == "inline":
                    row = measure_inline(dims, told, options.seconds)
                else:
                    row = measure_peer(name, dims, told, options.seconds, options.limit)
                if "over_s" in row or "missing" in row:
                    slow[name] = told
                row |= {"asker": name, "dims": dims, "told": told}
                rows.append(row)
                print_row(row)
                write_result(options.json, {"machine": facts, "rows": rows})
    stop_shared()
    compare(rows)


def compare(rows: list[dict[str, Any]]) -> None:
    """Say how many times faster a batch at 800 told is than scikit-optimize's."""
    at = {(row["asker"], row["dims"]): row for row in rows if row["told"] == 800}
    for (name, dims), row in at.items():
        ours = at.get(("inline", dims))
        if name.startswith("skopt") and ours and ("batch_s" in row or "over_s" in row):
            # A batch takes it at least one fit to so many points, which is in all of its stages.
            more = "" if "batch_s" in row else "more than "
            times = row.get("batch_s", row.get("over_s")) / ours["batch_s"]
            at_what = f", busy with {row['busy_with']}" if "busy_with" in row else ""
            print(
                f"ask({BATCH}) at 800 told, {dims} dimensions: {name} takes {more}{times:.0f} "
                f"times as long{at_what}"
            )


def print_row(row: dict[str, Any]) -> None:
    """One line of the table."""

    def cell(key: str, form: str) -> str:
        width = len(f"{0:{form}}")
        return f"{row[key]:{form}}" if key in row else " " * width

    batch = cell("batch_s", "10.3f")
    if "batch_cpu_s" in row:
        batch += f" ({row['batch_cpu_s']:.3f})"
    if "over_s" in row:
        batch = f"  over {row['over_s']:.0f} ({row['busy_with']})"
    print(
        f"{row['dims']:5d} {row['told']:6d} {row['asker']:10s} {cell('p50_ms', '9.2f')} "
        f"{cell('p99_ms', '10.2f')} {cell('asks_per_s', '8.0f')} "
        f"{cell('asks_per_cpu_s', '8.0f')} {cell('paced_fitted', '5.2f')}"
        f"{cell('fitted', '5.2f')} {cell('core', '5.2f')} {batch} {row.get('missing', '')}",
        flush=True,
    )


if __name__ == "__main__":
    main()
