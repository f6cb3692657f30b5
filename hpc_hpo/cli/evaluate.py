"""``hpc-hpo evaluate``: one point of an evaluation payload, here and now."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import click

from hpc_hpo.cli.common import path_argument, site_option
from hpc_hpo.contracts.events import segment_of
from hpc_hpo.contracts.given import with_points
from hpc_hpo.contracts.steering import parse_json
from hpc_hpo.errors import ExitCode, InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import write_atomic
from hpc_hpo.launch import SteeringRun, open_study, site_of
from hpc_hpo.model import Trial
from hpc_hpo.pilot.inline import InlinePilot
from hpc_hpo.study import Study
from hpc_hpo.study.load import parse_study
from hpc_hpo.worker.entry import Worker
from hpc_hpo.worker.node import Node
from hpc_hpo.worker.payload_evaluation import PRODUCTS
from hpc_hpo.yamlio import Document

#: A payload that is asked to end gets this long to checkpoint, in seconds.
GRACE_S = 30.0


@click.command()
@path_argument
@click.option(
    "--point",
    "given",
    required=True,
    metavar="JSON|FILE",
    help="The point, or the file it is in; [model_id, {...}] of a segment.",
)
@click.option(
    "--exec", "line", metavar="STRING", help="The payload's command, in place of a study's."
)
@click.option("--data", multiple=True, metavar="FILE", help="With --exec: a file of training data.")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    metavar="GLOB",
    help="With --exec: files or folders to save and restore.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="With --exec: minutes between looks at them.",
)
@click.option("--image", metavar="FILE", help="With --exec: the container's image.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    help="The folder it works in. Default: evaluate/ here, by the point.",
)
@site_option
@click.option("--out", type=click.Path(path_type=Path), help="A file that gets the result, too.")
def evaluate(
    path: Path,
    given: str,
    line: str | None,
    data: tuple[str, ...],
    checkpoints: tuple[str, ...],
    interval: float,
    image: str | None,
    directory: Path | None,
    site_name: str | None,
    out: Path | None,
) -> int:
    """Evaluate one point as a trial would, in this process.

    PATH is a study.yaml with `contract: evaluation`, or a submission of phpo (default: here).
    With --exec there need be neither. Prints one JSON object with status and loss. The same
    command again goes on from the last checkpoint, or says what came out.
    """
    point = _read_point(given)
    if line is None:
        for option, value in {"data": data, "checkpoint": checkpoints, "image": image}.items():
            if value:
                raise InputError("goes with --exec", key=f"--{option}")
        study, _ = open_study(path)
    else:
        study = _of_command(line, point, data, checkpoints, interval, image)
    if study.kind != "evaluation":
        raise InputError(
            "the study runs no evaluation payload", file=str(study.path),
            valid="contract: evaluation",
        )  # fmt: skip
    if not isinstance(study.trial.ranks, int) or study.trial.ranks > 1:
        raise InputError("trials of several ranks need a block", file=str(study.path))
    name, plain = segment_of(study, point)
    single = with_points(study, {name: [plain]})
    identity = json.dumps([name, plain, line], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()
    place = directory or Path.cwd() / "evaluate" / f"{study.name}-{digest[:12]}"
    folder = StudyFolder(place.resolve())
    trial, reason = _run(single, site_name, folder)
    result = _result(single, folder, trial, reason)
    text = json.dumps(result) + "\n"
    if out is not None:
        write_atomic(out, text)
    click.echo(text, nl=False)
    if reason in ("stop", "now"):
        return ExitCode.WORK_LEFT
    return ExitCode.DONE if result["status"] == 0 else ExitCode.NO_RESULT


def _read_point(given: str) -> Any:
    if given.lstrip().startswith(("{", "[")):
        return parse_json(given, "--point")
    try:
        return parse_json(Path(given).read_bytes(), given)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=given, key="--point") from None


def _of_command(
    line: str,
    point: Any,
    data: tuple[str, ...],
    checkpoints: tuple[str, ...],
    interval: float,
    image: str | None,
) -> Study:
    """A study for one command that has none; its space is the one point."""
    if not isinstance(point, dict) or not point:
        raise InputError("not a point", key="--point", found=point, valid='as in {"lr": 0.1}')
    plain = line.replace("{", "{{").replace("}", "}}")
    content: dict[str, Any] = {
        "name": "payload",
        "command": ["/bin/sh", "-c", plain],
        "contract": "evaluation",
        "space": {k: {"method": "fixed", "dimension": {"value": v}} for k, v in point.items()},
        "budget": {"trials": 1},
        "inputs": [{"name": f"data_{i}", "source": file} for i, file in enumerate(data, 1)],
        "checkpoint": {"files": list(checkpoints), "every": f"{round(60 * interval, 3)}s"},
    }
    if image is not None:
        content["container"] = {"image": image}
    doc = Document(content, "--exec", json.dumps(content))
    return parse_study(doc, path=Path.cwd() / "payload")


def _run(study: Study, site_name: str | None, folder: StudyFolder) -> tuple[Trial | None, str]:
    """Run the study's one trial in this process: (the trial, why the run ended)."""
    run = SteeringRun(study, site_of(study, site_name), folder)
    run.open()
    notice = folder.control / f"notice-{os.getpid()}.json"
    worker = Worker(Node("0", "0", socket.gethostname(), os.getpid(), notice=notice))
    wishes: list[int] = []

    def on_signal(number: int, frame: object) -> None:
        wishes.append(number)
        content = {"deadline": time.time() + GRACE_S, "reason": "stop"}
        write_atomic(notice, json.dumps(content), durable=False)

    before = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        outcome = run.steer(pilot=InlinePilot(worker.run), stop=lambda: "drain" if wishes else "")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        worker.close()
        run.close()
        notice.unlink(missing_ok=True)
    return next(iter(outcome.state.trials.values()), None), outcome.reason


def _result(study: Study, folder: StudyFolder, trial: Trial | None, reason: str) -> dict[str, Any]:
    """What the command prints of a trial."""
    result: dict[str, Any] = {
        "status": 1,
        "loss": None,
        "message": None,
        "folder": str(folder.path),
    }
    if trial is None:
        return {**result, "message": "nothing was run"}
    result["slices"] = len(trial.slices)
    result["checkpoint"] = trial.checkpoint and trial.checkpoint["name"]
    if trial.loss is not None:
        result |= {"status": 0, "loss": trial.loss}
    elif trial.error is not None:
        result["message"] = trial.error.get("message")
        result["log_tail"] = trial.error.get("log_tail", "")
    elif reason in ("stop", "now"):
        result["message"] = "stopped; the same command goes on with it"
    for kind in ("metrics", "meta"):
        name = getattr(study.evaluation, kind)
        kept = folder.path / PRODUCTS / f"{Path(name).name}_{trial.id}" if name else None
        if kept is not None and kept.exists():
            result[kind] = str(kept) if kind == "metrics" else json.loads(kept.read_bytes())
    return result
