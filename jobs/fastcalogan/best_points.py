"""The best point of each GAN of a study, as a table, and what the study cut from another.

    python best_points.py STUDY_DIR [STUDY.YAML]

It asks ``hpc-hpo export STUDY_DIR``. With a study file, such as study.yaml, it also names what the
study in the folder has less of.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

#: Of a point; the others are in the exported table.
SHOWN = ("lr", "gdratio", "batch", "latent", "width", "activation")


def read_export(study: str) -> dict[str, Any]:
    """What ``hpc-hpo export --format json`` says of the study.

    Raises:
        SystemExit: the command is missing, or ends with an error, which it has then shown.
    """
    beside = Path(sys.executable).with_name("hpc-hpo")
    command = str(beside) if beside.exists() else shutil.which("hpc-hpo")
    if command is None:
        sys.exit("hpc-hpo is neither beside this Python nor on PATH; install the package first")
    answer = subprocess.run(
        [command, "export", study, "--format", "json", "-o", "-"], stdout=subprocess.PIPE
    )
    if answer.returncode:
        sys.exit(answer.returncode)
    return dict(json.loads(answer.stdout))


def rows_of(trials: list[dict[str, Any]]) -> list[list[str]]:
    """A row for each segment, in the order of their first trials: the table without its head."""
    rows = []
    for name in dict.fromkeys(trial["segment"] for trial in trials):
        own = [trial for trial in trials if trial["segment"] == name]
        done = [trial for trial in own if trial["loss"] is not None]
        if not done:
            failed = [trial for trial in own if trial["state"] == "failed"]
            error = (failed[0]["error"] or {}).get("message", "") if failed else "not ended"
            rows.append([str(name or "-"), "none", f"0 of {len(own)}", error])
            continue
        best = min(done, key=lambda trial: (trial["loss"], trial["trial"]))
        rows.append(
            [
                str(name or "-"),
                f"{best['loss']:.2f}",
                f"{len(done)} of {len(own)}",
                *(_short(best["point"].get(key, "")) for key in SHOWN),
            ]
        )
    return rows


def table(head: list[str], rows: list[list[str]]) -> str:
    """Lines with columns of equal widths; a row may be shorter than the head."""
    full = [row for row in rows if len(row) == len(head)]
    widths = [max(len(row[i]) for row in [head, *full]) for i in range(len(head))]
    for row in rows:  # of short rows the last cell may be any length
        for number, cell in enumerate(row[:-1]):
            widths[number] = max(widths[number], len(cell))
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in [head, *rows]
    ]
    return "\n".join(lines)


def cost(trials: list[dict[str, Any]]) -> str:
    """``60 trials in 84 slices: 60 completed, 20 paused, 4 lost; 24 went on from a checkpoint``"""
    slices = [one for trial in trials for one in trial["slices"]]
    ends = Counter(one["end"] or "not ended" for one in slices)
    resumed = sum(1 for one in slices if one["restored"])
    busy = sum(trial["busy_s"] for trial in trials)
    counts = ", ".join(f"{count} {end}" for end, count in ends.most_common())
    return (
        f"{len(trials)} trials in {len(slices)} slices: {counts}; "
        f"{resumed} went on from a checkpoint; {busy:.0f} worker-seconds"
    )


def cuts(study: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """What of the budget, the segments and the space differs: ``budget.trials: 4, not 20``."""
    found = []
    for section in ("segments", "budget", "space"):
        here, there = _flat(section, study.get(section)), _flat(section, whole.get(section))
        found += [
            f"{key}: {here.get(key, 'none')}, not {value}"
            for key, value in there.items()
            if here.get(key) != value
        ]
    return found


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {
            k: v for key, inner in value.items() for k, v in _flat(f"{name}.{key}", inner).items()
        }
    return {name: value}


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main(arguments: list[str]) -> None:
    """Run as a script; `arguments` are those after its name."""
    if len(arguments) not in (1, 2):
        sys.exit(__doc__)
    export = read_export(arguments[0])
    trials = export["trials"]
    if not trials:
        sys.exit(f"{arguments[0]}: has no trial yet")
    print(table(["GAN", "chi2/ndf", "points", *SHOWN], rows_of(trials)))
    print(f"\n{cost(trials)}")
    if len(arguments) == 2:
        file = Path(arguments[1])
        found = cuts(export["study"], yaml.safe_load(file.read_text()))
        print(f"cut from {file.name}: {'; '.join(found) or 'nothing'}")


if __name__ == "__main__":
    main(sys.argv[1:])
