"""A very large study: the time to replay its journal, and the memory of the process that steers it.

    python benchmarks/journal_scale.py [--trials 1000000] [--more 2000] [--json FILE]

Writes a study folder with the journal of trials of one slice each, as the loop writes it. One
process then replays the journal and nothing else. Another goes on with the study as
`hpc-hpo run` does: it opens the folder, brings the default optimiser to the journal's state and
steers so many trials more, with the log for pipes as its view. Trials end at once, in the same
process. Goals for a million trials: under 60 s and under 2 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from common import machine, write_result

from hpc_hpo.cli.progress import PlainLog
from hpc_hpo.cli.tally import Tally
from hpc_hpo.clock import SystemClock
from hpc_hpo.folder import StudyFolder
from hpc_hpo.journal import Journal, StudyState, read_events, replay
from hpc_hpo.launch import SteeringRun, freeze, open_study, site_of
from hpc_hpo.model import SliceOutcome, SliceRequest
from hpc_hpo.optimizers.helper import shared
from hpc_hpo.pilot.base import Capacity
from hpc_hpo.pilot.inline import InlinePilot

#: Parameters, and steps that no two trials' values have in common.
NAMES = ("learning_rate", "momentum", "dropout", "weight_decay", "label_smoothing", "warmup")
PRIMES = (0.2360679, 0.4142135, 0.7320508, 0.6457513, 0.3166247, 0.6055512)
#: Trials that run at the same time while the study goes on.
WORKERS = 64


def loss_of(point: dict[str, Any]) -> float:
    """Least in the middle."""
    return sum((value - 0.5) ** 2 for value in point.values())


def write(path: Path, trials: int) -> None:
    """The events of `trials` trials."""
    journal = Journal(path, sync_every=float("inf"))
    journal.append({"e": "run", "run": 1, "at": 1.6e9})
    for number in range(trials):
        at = 1.6e9 + number / 46
        point = {name: (number * step) % 1.0 for name, step in zip(NAMES, PRIMES, strict=True)}
        journal.append({"e": "asked", "trial": number, "point": point, "seed": number, "at": at})
        journal.append({"e": "submit", "trial": number, "slice": 1, "run": 1, "at": at})
        journal.append({
            "e": "end", "at": at + 600.0, "run": 1, "trial": number, "slice": 1,
            "end": "completed", "loss": loss_of(point), "started": at + 0.01, "ended": at + 599.99,
            "host": f"n{number % 4608}", "block": "1.0", "worker": f"n{number % 4608}-{number % 6}",
            "pace": {"step_s": 30.0, "checkpoint_s": 5.0}, "restored": None,
            "log": [f"logs/w-{number % 27648}.log", 1000 * number, 1000 * number + 900],
            "state": "completed",
        })  # fmt: skip
        if number % 10_000 == 0:
            journal.flush()
    journal.append({"e": "stop", "run": 1, "at": at + 700.0, "reason": "stop"})
    journal.close()


def prepare(home: Path, trials: int, more: int) -> None:
    """A study folder that has run so many trials and is to run some more."""
    spec = {
        "name": "large", "objective": "objective.py:run",
        "space": {name: {"float": [0.0, 1.0]} for name in NAMES},
        "budget": {"trials": trials + more}, "site": "local",
    }  # fmt: skip
    home.mkdir()
    (home / "objective.py").write_text("def run(trial):\n    return 0.0\n")
    (home / "study.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    study, folder = open_study(home / "study.yaml", home / "folder")
    folder.make()
    freeze(study, folder)
    write(folder.journal, trials)


def measure_replay(home: Path) -> dict[str, Any]:
    """Replay the journal, in this process."""
    path = StudyFolder(home / "folder").journal
    before = peak_kb()
    begun, cpu = time.perf_counter(), time.process_time()
    state = replay(read_events(path))
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    done = state.trial_states["completed"]
    return {"trials": done, "bytes": path.stat().st_size, "replay_s": took, "replay_cpu_s": cpu,
            "peak_kb": peak_kb(), "before_kb": before}  # fmt: skip


def measure_steering(home: Path) -> dict[str, Any]:
    """Go on with the study, in this process."""
    begun = time.perf_counter()
    study, folder = open_study(home / "folder")
    run = SteeringRun(study, site_of(study), folder)
    run.open()
    opened, opened_kb = time.perf_counter() - begun, peak_kb()
    first = turns = 0.0
    helper_kb = 0

    def execute(request: SliceRequest) -> SliceOutcome:
        nonlocal first
        first = first or time.perf_counter() - begun
        now = time.time()
        return SliceOutcome(
            run=request["run"], trial=request["trial"], slice=request["slice"], end="completed",
            loss=loss_of(request["point"]), started=now, ended=now, host="n1", block="2.0",
            worker="n1-0",
        )  # fmt: skip

    view = PlainLog(Tally(study.to_dict()))

    def observe(state: StudyState, capacity: Capacity) -> None:
        nonlocal turns, helper_kb
        turns += 1
        view.update(state, capacity)
        helper_kb = max(helper_kb, peak_kb(shared().pid))

    pilot = InlinePilot(execute, workers=WORKERS)
    try:
        outcome = run.steer(pilot=pilot, clock=SystemClock(), observe=observe)
        ended, cpu = time.perf_counter() - begun, time.process_time()
        helper_kb = max(helper_kb, peak_kb(shared().pid))
    finally:
        run.close()
    done = outcome.state.trial_states["completed"]
    return {"trials": done, "open_s": opened, "open_peak_kb": opened_kb, "first_slice_s": first,
            "end_s": ended, "cpu_s": cpu, "turns": turns, "peak_kb": peak_kb(),
            "helper_peak_kb": helper_kb, "reason": outcome.reason}  # fmt: skip


def peak_kb(pid: int | None = 0) -> int:
    """Most memory that a process has had; 0: this one, None: no process."""
    if pid == 0:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if "VmHWM" in line), 0)


def in_a_process(part: str, home: Path) -> dict[str, Any]:
    """What `measure_<part>` finds in a process of its own, whose peak is nobody else's."""
    command = [sys.executable, __file__, "--part", part, "--home", str(home)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, print, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1_000_000)
    parser.add_argument("--more", type=int, default=2000, help="trials that are steered besides")
    parser.add_argument("--json")
    parser.add_argument("--part", choices=("replay", "steering"), help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        measure = measure_replay if options.part == "replay" else measure_steering
        print(json.dumps(measure(options.home)))
        return
    facts = machine()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "study"
        prepare(home, options.trials, options.more)
        alone = in_a_process("replay", home)
        whole = in_a_process("steering", home)
    assert alone["trials"] == options.trials
    assert whole["trials"] == options.trials + options.more
    print(
        f"{options.trials} trials, {alone['bytes'] / 1e6:.0f} MB: replayed in "
        f"{alone['replay_s']:.1f} s ({alone['replay_cpu_s']:.1f} s of CPU time), at most "
        f"{alone['peak_kb'] / 1e6:.2f} GB of memory ({alone['before_kb'] / 1e6:.2f} GB before)\n"
        f"going on with it: opened after {whole['open_s']:.1f} s, first slice after "
        f"{whole['first_slice_s']:.1f} s, {options.more} trials more after {whole['end_s']:.1f} s; "
        f"the process that steers had at most {whole['peak_kb'] / 1e6:.2f} GB of memory, the one "
        f"that fits {whole['helper_peak_kb'] / 1e6:.2f} GB"
    )
    write_result(options.json, {"replay": alone, "steering": whole, "machine": facts})


if __name__ == "__main__":
    main()
