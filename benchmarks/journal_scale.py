"""The journal of a very large study: the time to replay it and the memory that its state takes.

    python benchmarks/journal_scale.py [--trials 1000000] [--json FILE]

Writes a journal of trials of one slice each, as the loop writes them, and replays it. Goals for a
million trials: under 60 s and under 2 GB.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from common import machine, write_result

from hpc_hpo.journal import Journal, read_events, replay


def write(path: Path, trials: int) -> None:
    """The events of `trials` trials."""
    journal = Journal(path, sync_every=float("inf"))
    journal.append({"e": "run", "run": 1, "at": 1.6e9})
    for number in range(trials):
        at = 1.6e9 + number / 46
        point = {name: (number * step) % 1.0 for name, step in zip("abcdef", PRIMES, strict=True)}
        journal.append({"e": "asked", "trial": number, "point": point, "seed": number, "at": at})
        journal.append({"e": "submit", "trial": number, "slice": 1, "run": 1, "at": at})
        journal.append({
            "e": "end", "at": at + 600.0, "run": 1, "trial": number, "slice": 1,
            "end": "completed", "loss": point["a"], "started": at + 0.01, "ended": at + 599.99,
            "host": f"n{number % 4608}", "block": "1.0", "worker": f"n{number % 4608}-{number % 6}",
            "pace": {"step_s": 30.0, "checkpoint_s": 5.0}, "restored": None,
            "log": [f"logs/w-{number % 27648}.log", 0, 100], "state": "completed",
        })  # fmt: skip
        if number % 10_000 == 0:
            journal.flush()
    journal.close()


PRIMES = (0.2360679, 0.4142135, 0.7320508, 0.6457513, 0.3166247, 0.6055512)


def main() -> None:
    """Measure, print, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--json")
    options = parser.parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "journal.jsonl"
        write(path, options.trials)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        size, begun, cpu = path.stat().st_size, time.perf_counter(), time.process_time()
        state = replay(read_events(path))
        took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    assert state.trial_states["completed"] == options.trials
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{options.trials} trials, {size / 1e6:.0f} MB: replayed in {took:.1f} s ({cpu:.1f} s of "
        f"CPU time), at most {peak / 1e6:.2f} GB of memory ({before / 1e6:.2f} GB before)"
    )
    result = {"trials": options.trials, "bytes": size, "replay_s": took, "replay_cpu_s": cpu,
              "peak_kb": peak, "before_kb": before, "machine": facts}  # fmt: skip
    write_result(options.json, result)


if __name__ == "__main__":
    main()
