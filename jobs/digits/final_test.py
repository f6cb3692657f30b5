"""Train the study's best point once more and test it on digits the study never saw.

    python final_test.py STUDY_DIR

It asks ``hpc-hpo status --json STUDY_DIR``, trains on the training and validation splits
together, and prints the test accuracy and what the study cost.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from objective import EPOCHS, SIDE, Network, load_data

SEED = 0


def read_status(study: str) -> dict[str, Any]:
    """What ``hpc-hpo status --json`` says of the study.

    Raises:
        SystemExit: the command is missing, or ends with an error, which it has then shown.
    """
    beside = Path(sys.executable).with_name("hpc-hpo")
    command = str(beside) if beside.exists() else shutil.which("hpc-hpo")
    if command is None:
        sys.exit("hpc-hpo is neither beside this Python nor on PATH; install the package first")
    answer = subprocess.run([command, "status", "--json", study], stdout=subprocess.PIPE)
    if answer.returncode:
        sys.exit(answer.returncode)
    return dict(json.loads(answer.stdout))


def accuracy_on_test(point: dict[str, Any], seen: Path, unseen: Path) -> float:
    """The share of right answers on the test split after training on all other images.

    Args:
        point: a point of the study's space.
        seen: digits.npz; unseen: digits_test.npz.
    """
    data, test = load_data(str(seen)), load_data(str(unseen))
    images = np.concatenate([data["x_train"], data["x_validation"]])
    labels = np.concatenate([data["y_train"], data["y_validation"]])
    network = Network(point, inputs=SIDE * SIDE, seed=SEED)
    for epoch in range(EPOCHS):
        network.train_epoch(images, labels, epoch)
    return float(network.evaluate(test["x_test"], test["y_test"])[1])


def in_words(counts: dict[str, Any]) -> str:
    """``39 completed, 1 failed`` of the counts by state that are not zero."""
    sums = ("total", "budget")
    shown = {k: n for k, n in counts.items() if isinstance(n, int) and n and k not in sums}
    return ", ".join(f"{count} {name}" for name, count in shown.items()) or "none"


def summarise(status: dict[str, Any], accuracy: float, study: str) -> str:
    """The lines to print, from status --json and the test accuracy."""
    best, busy = status["best"], status["utilisation"]
    point = ", ".join(f"{k} = {_short(v)}" for k, v in best["point"].items() if v is not None)
    rows = {
        "best point": point,
        "validation loss": f"{best['loss']:.4f} (trial {best['trial']})",
        "test accuracy": f"{accuracy:.2%} on images the study never saw",
        "trials": in_words(status["trials"]),
        "blocks": in_words(status["blocks"]),
        "slices": in_words(status["slices"]),
        "lost": f"{status['lost_worker_seconds']:.1f} worker-seconds",
        "busy": "unknown" if busy is None else f"{busy:.1%} of the allocated worker-seconds",
        "results": f"{study} (as a table: hpc-hpo export {study} --format csv)",
    }
    return "\n".join(f"{name + ':':<17}{text}" for name, text in rows.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(arguments: list[str]) -> None:
    """Run as a script; `arguments` are those after its name."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    study = arguments[0]
    data = Path(__file__).resolve().parent / "data"
    seen, unseen = data / "digits.npz", data / "digits_test.npz"
    status = read_status(study)
    if not status.get("best"):
        sys.exit(f"{study}: no trial has a loss yet, so there is no point to test")
    for file in (seen, unseen):
        if not file.exists():
            sys.exit(f"{file} is missing; make it with: python {data.parent / 'make_data.py'}")
    accuracy = accuracy_on_test(status["best"]["point"], seen, unseen)
    print(summarise(status, accuracy, study))


if __name__ == "__main__":
    main(sys.argv[1:])
