"""A guest of another architecture, and studies whose workers run in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from hpc_hpo import journal
from hpc_hpo.journal import StudyState
from tests.ppc64le import guest

ROOT = Path(__file__).resolve().parents[2]

SITE = """
name: emulated
extends: local
arch: ppc64le
node: {cores: 2}
python: PYTHON
# A Python's imports take seconds under emulation.
heartbeat: {period: 2s, threshold: 60s}
poll: 0.5s
kill_grace: 2s
checkpoint_floor: 2s
"""


@dataclass(frozen=True)
class Guest:
    """The emulated machine, and the folder that it and this one see at the same place."""

    root: Path
    shared: Path
    python: Path

    def run(self, *command: str) -> str:
        """Run a command in it; what it printed."""
        return guest.run(self.root, list(command), [self.shared])


def _refuse(why: str) -> None:
    """Skip, or fail where the guest is demanded (HPC_HPO_NEEDS_PPC64LE, set by CI)."""
    if os.environ.get("HPC_HPO_NEEDS_PPC64LE"):
        pytest.fail(why)
    pytest.skip(why)


def _cache(folder: Path) -> Path:
    """Where the root is kept between runs, when somebody says where."""
    named = os.environ.get("HPC_HPO_PPC64LE_CACHE")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    return Path(home) / "hpc_hpo" if home else folder


@pytest.fixture(scope="session")
def ppc64le(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The guest, with this package in it."""
    if absent := guest.missing():
        _refuse(absent)
    folder = tmp_path_factory.mktemp("ppc64le")
    shared = folder / "shared"
    shared.mkdir()
    try:
        root = guest.cached_root(folder, _cache(folder))
        guest.add_package(root, ROOT)
        yield Guest(root, shared, guest.write_python(root, shared, []))
    except guest.NoMirror as error:
        _refuse(str(error))
    finally:
        # 300 MB, which pytest would keep for three runs.
        shutil.rmtree(folder, ignore_errors=True)


class Shop:
    """A folder with a study in it, run here with workers here or in the guest."""

    def __init__(self, made: Guest, folder: Path) -> None:
        self.folder, self.guest = folder, made
        folder.mkdir()
        (folder / "emulated.yaml").write_text(SITE.replace("PYTHON", str(made.python)))
        self._process: subprocess.Popen[str] | None = None

    def write(self, study: str, objective: str) -> None:
        """The study's files; its name is `study`."""
        (self.folder / "study.yaml").write_text(study)
        (self.folder / "objective.py").write_text(objective)

    def start(self, site: str) -> subprocess.Popen[str]:
        """Run the study on a site: local, or ./emulated.yaml."""
        with open(self.folder / "out.txt", "a") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hpc_hpo.cli.main", "run", "study.yaml", "--plain",
                 "--site", site],
                cwd=self.folder, stdout=out, stderr=subprocess.STDOUT, text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(self.folder)},
                start_new_session=True,
            )  # fmt: skip
        return self._process

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Poll for a condition; the run's output explains a failure."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited in vain; printed so far:\n{self.output()}"
            time.sleep(0.1)

    def output(self) -> str:
        """What the command has printed, and what its last block did."""
        logs = sorted((self.folder / "study" / "logs").rglob("*.sh.err"))
        tails = [path.read_text()[-2000:] for path in logs[-1:]]
        return "\n".join([(self.folder / "out.txt").read_text(), *tails])

    def finish(self, code: int, seconds: float) -> StudyState:
        """Wait for the command's end with an exit code; the study by its journal."""
        process = self._process
        assert process is not None
        self.wait_until(lambda: process.poll() is not None, seconds)
        assert process.returncode == code, self.output()
        return journal.replay(journal.read_events(self.folder / "study" / "journal.jsonl"))

    def stop(self) -> None:
        """Ask the running study to checkpoint and end."""
        subprocess.run(
            [sys.executable, "-m", "hpc_hpo.cli.main", "stop", "study.yaml"],
            cwd=self.folder, check=True, capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(self.folder)},
        )  # fmt: skip

    def close(self) -> None:
        """Leave no process behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        # Supervisors clean up after their block, which takes its time under emulation; what one
        # that is killed has started goes with it.
        own = [
            process for process in psutil.process_iter(["cmdline"])
            if str(self.folder) in " ".join(process.info["cmdline"] or [])
        ]  # fmt: skip
        _, stubborn = psutil.wait_procs(own, timeout=20)
        for process in stubborn:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in process.children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()
                process.kill()


@pytest.fixture
def shop(ppc64le: Guest, request: pytest.FixtureRequest) -> Iterator[Shop]:
    made = Shop(ppc64le, ppc64le.shared / request.node.name[-60:])
    yield made
    made.close()
