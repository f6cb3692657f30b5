"""One short evaluation on this machine without a network: what `check --offline` does.

The slice runs by the very code that a node runs, from the staged inputs, under the guard of
`network: deny`, and in a network namespace where one can be had. The study folder is not written
to.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hpc_hpo.errors import InputError
from hpc_hpo.folder import StudyFolder
from hpc_hpo.fsio import from_json, to_json
from hpc_hpo.model import TASK_FILE, Place, SegmentInfo, Shape, SliceOutcome, SliceRequest
from hpc_hpo.pilot.shapes import Shapes
from hpc_hpo.prestage.manifest import Manifest, load_manifest
from hpc_hpo.site import Site
from hpc_hpo.steering.opening import make_optimizer
from hpc_hpo.steering.task import task_of
from hpc_hpo.study import Study

#: Ways into a network namespace, best first: as root, as anybody, by bubblewrap.
NAMESPACES: tuple[tuple[str, ...], ...] = (
    ("unshare", "-n", "--"),
    ("unshare", "-rn", "--"),
    ("bwrap", "--unshare-net", "--dev-bind", "/", "/", "--"),
)
#: Over the evaluation's own time: to start, to pause, to be ended, in seconds.
_SLACK_S = 30.0


@dataclass(frozen=True)
class Rehearsal:
    """What the evaluation showed.

    Attributes:
        outcome: of its one slice.
        namespace: how the network was taken away; "" where it could not be.
        point: what was evaluated.
    """

    outcome: SliceOutcome
    namespace: str
    point: dict[str, Any]

    @property
    def attempts(self) -> list[str]:
        """What it asked for on the network, in words."""
        return list(self.outcome.get("network", ()))

    @property
    def ran_out(self) -> bool:
        """Whether it was ended for its time and not by itself."""
        return self.outcome["end"] in ("paused", "lost")


def find_namespace(ways: Sequence[Sequence[str]] = NAMESPACES) -> list[str]:
    """What to put before a command so that it has a network namespace; [] where none is had."""
    for way in ways:
        if shutil.which(way[0]) is None:
            continue
        tried = subprocess.run([*way, "true"], capture_output=True, timeout=20)
        if tried.returncode == 0:
            return list(way)
    return []


def rehearse(
    study: Study, site: Site, folder: StudyFolder, seconds: float,
    ways: Sequence[Sequence[str]] = NAMESPACES,
) -> Rehearsal:  # fmt: skip
    """Evaluate the optimiser's first point for at most so long.

    Raises:
        InputError: inputs are not staged, or its ranks cannot be started here.
    """
    manifest = load_manifest(folder) or Manifest()
    name = _ready_segment(study, manifest)
    (point,) = make_optimizer(study, study.segments[name]).ask([0])
    task = task_of(study, manifest, folder, site)
    task["network"]["deny"] = True
    # Time for itself, and no part of a trial's.
    task["max_time_s"] = None
    way = find_namespace(ways)
    with tempfile.TemporaryDirectory(prefix="hpc-hpo-check-") as scratch:
        home = Path(scratch)
        (home / TASK_FILE).write_text(to_json(task))
        request = SliceRequest(
            dir=scratch, task=TASK_FILE, run=1, trial=0, slice=1, point=point, seed=study.seed,
            attempt=1, known_step=-1, spent_s=0.0, margin_s=min(5.0, seconds / 4), needs_s=0.0,
            stop_step=None,
        )  # fmt: skip
        if name is not None:
            own = manifest.paths_of(name)
            request["segment"] = SegmentInfo(
                name=name, values=dict(study.segments[name].values),
                inputs={key: str(folder.path / path) for key, path in own.items()},
                number=study.segments.number(name),
            )  # fmt: skip
        request.update(_place(study, Shapes(study, site).of(point)))
        job = home / "job.json"
        job.write_text(to_json({"request": request, "seconds": seconds}))
        done = _call(
            [*way, sys.executable, "-m", "hpc_hpo.worker.alone", str(job)],
            seconds + _SLACK_S,
        )  # fmt: skip
        answer = job.with_suffix(".out")
        if not answer.exists():
            raise InputError(f"the evaluation could not be started:\n{done[-2000:]}")
        outcome = cast(SliceOutcome, from_json(answer.read_bytes()))
    return Rehearsal(outcome, " ".join(way[:2]), point)


def _ready_segment(study: Study, manifest: Manifest) -> str | None:
    """The first segment whose inputs are all staged; None is that of a study without any.

    Raises:
        InputError: there is none.
    """
    for name in study.segments:
        if manifest.ready(study, name):
            return name
    missing = [i.name for i in study.all_inputs() if not manifest.holds(i.name, i.segment)]
    more = f" and {len(missing) - 5} others" if len(missing) > 5 else ""
    raise InputError(
        "inputs are not staged, and the check stages nothing; run hpc-hpo prestage",
        file=str(study.path), key="inputs", found=", ".join(missing[:5]) + more,
    )  # fmt: skip


def _call(argv: Sequence[str], seconds: float) -> str:
    """Run a command in a session of its own, for at most so long; what it printed."""
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment(),
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            return process.communicate(timeout=seconds)[0]
        except BaseException as error:
            # Its payload is in another session, and ends with it.
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return f"it did not end within {seconds:g} s and was killed"
            raise


def _environment() -> dict[str, str]:
    """This process's, and where it found the package."""
    home = str(Path(__file__).resolve().parents[1])
    path = [home, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def _place(study: Study, shape: Shape) -> SliceRequest:
    """The request's shape and place, for ranks that all run here.

    Raises:
        InputError: nothing here could start them.
    """
    if shape.ranks == 1:
        return {}
    beside = Path(sys.executable).with_name("mpiexec")
    launcher = str(beside) if beside.exists() else shutil.which("mpiexec")
    if launcher is None:
        raise study.problem(
            "trial.ranks", "the ranks cannot be started here to check them: no mpiexec",
            found=shape.ranks, valid="an MPI on this machine, as in pip install mpi4py mpich",
        )  # fmt: skip
    here = Shape(shape.ranks, shape.ranks, 1, 0.0, False, 1)
    place = Place(
        index=0, nodes=[["here", list(range(shape.ranks)), []]], bind=False, mask="",
        launch=[launcher, "-n", str(shape.ranks)], erf="",
    )  # fmt: skip
    return SliceRequest(shape=here.spec(), place=place)
