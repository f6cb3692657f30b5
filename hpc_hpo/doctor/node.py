"""What a compute node says, through a job of a few seconds' work."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hpc_hpo.doctor import probe
from hpc_hpo.doctor.login import LAUNCHERS
from hpc_hpo.doctor.rows import Row, State
from hpc_hpo.doctor.storage import LITTLE_ROOM, NO_ROOM, clock_row
from hpc_hpo.errors import HpoError, InputErrors
from hpc_hpo.fsio import storage_error
from hpc_hpo.pilot.executor import port_ranges
from hpc_hpo.pilot.one_job import OneJob
from hpc_hpo.pilot.queues import bins, check_queue
from hpc_hpo.pilot.scheduler import Caller, call
from hpc_hpo.pilot.sources import address_of
from hpc_hpo.preflight import Versions, compare, versions_here
from hpc_hpo.site import Site
from hpc_hpo.site.target import parse_glibc, target_of
from hpc_hpo.study import Study, parse_study
from hpc_hpo.units import format_size
from hpc_hpo.yamlio import load_yaml

#: The walltime that is asked for: the probe itself takes seconds.
WALLTIME = "5m"
#: A job that has ended may leave its answer a little later on a shared file system, in seconds.
LATE_S = 5.0
#: How often the folder is looked at, in seconds.
LOOK_S = 0.5


def node_rows(
    site: Site,
    folder: Path,
    *,
    account: str | None = None,
    queue: str | None = None,
    wait_s: float = 600.0,
    tell: Callable[[str], None] = lambda text: None,
    caller: Caller = call,
) -> list[Row]:
    """Run the probe on a node and say what it found; the job is cancelled when it does not start.

    On a site without a batch system it is a process of this machine.

    Args:
        folder: where studies will be; a folder in it is made, and removed again.
        wait_s: seconds that the job may wait and run.
        tell: told what is being waited for.

    Raises:
        InputError: the site requires what was not given, or the queue refuses such a job.
    """
    study = _study(site, account, queue) if site.batch else None
    try:
        with contextlib.ExitStack() as stack:
            place = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(
                        dir=folder, prefix=".hpc-hpo-doctor-", ignore_cleanup_errors=True
                    )
                )
            )
            held = stack.enter_context(open(place / "lock", "a"))
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            listener = stack.enter_context(Listener(address_of(site)))
            task = {
                "address": listener.address, "port": listener.port, "token": listener.token,
                "node_local": site.node_local,
            }  # fmt: skip
            (place / "task.json").write_text(json.dumps(task))
            shutil.copyfile(probe.__file__, place / "probe.py")
            if study is None:
                return _here(site, place, listener)
            return _by_job(site, study, place, listener, wait_s, tell, caller)
    except OSError as error:
        return [Row("fail", "probe", str(storage_error(folder, error)), "--dir names another")]
    except InputErrors:
        raise
    except HpoError as error:
        return [Row("fail", "probe", str(error), "see the message")]


def _study(site: Site, account: str | None, queue: str | None) -> Study:
    """The smallest study that the queue takes: one job of its fewest nodes.

    Raises:
        InputError: the site refuses it.
    """
    entries = bins(site, queue)
    nodes = entries[0].nodes[0] if entries else 1
    lines = [
        "name: doctor", 'command: ["true"]', 'loss: {stdout: "(x)"}', "space: {x: {float: [0, 1]}}",
        "budget: {trials: 1}", f"blocks: {{nodes: {nodes}, walltime: {WALLTIME}}}",
    ]  # fmt: skip
    if account is not None:
        lines.append(f"account: {json.dumps(account)}")
    if queue is not None:
        lines.append(f"queue: {json.dumps(queue)}")
    study = parse_study(load_yaml("\n".join(lines), "doctor --job"), path=Path("doctor"))
    problems = check_queue(study, site)
    if problems:
        raise problems[0] if len(problems) == 1 else InputErrors(problems)
    return study


class Listener:
    """Waits on the address that workers are told, for a node to call back.

    Attributes:
        address, port: where.
        token: what the node has to say.
        delays: for each call, seconds from when the node sent it, by its clock, to now by ours.
    """

    def __init__(self, address: str) -> None:
        self.address, self.token = address, secrets.token_hex(16)
        self.delays: list[float] = []

    def __enter__(self) -> Listener:
        first, last = port_ranges()["workers"]
        for port in range(first, last):
            try:
                self._socket = socket.create_server((self.address, port))
                break
            except OSError:
                continue
        else:
            raise HpoError(f"no port of {first} to {last} is free at {self.address}")
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # Closing alone would leave accept() waiting.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            # A port scanner, or a node that dies, must not end the listening.
            with link, contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                link.settimeout(probe.CONNECT_S)
                said = json.loads(link.makefile().readline())
                if said["token"] == self.token:
                    self.delays.append(time.time() - float(said["time"]))
                    link.sendall(b"ok")


def _here(site: Site, place: Path, listener: Listener) -> list[Row]:
    python = os.path.expanduser(site.python or sys.executable)
    done = subprocess.run(
        [python, str(place / "probe.py"), str(place / "task.json")], capture_output=True, text=True
    )
    answers = _answers(place)
    if not answers:
        said = " ".join((done.stderr or done.stdout).split())[-200:]
        return [Row("fail", "probe", f"{python} says nothing: {said}", "python in the site's file")]
    return list(judge(site, answers[0], listener))


def _by_job(
    site: Site, study: Study, place: Path, listener: Listener, wait_s: float,
    tell: Callable[[str], None], caller: Caller,
) -> list[Row]:  # fmt: skip
    python = site.python or sys.executable
    job = OneJob(
        study, site, place, [python, str(place / "probe.py"), str(place / "task.json")], caller
    )
    number = job.submit()
    tell(f"job {number} is to ask a node; waiting for it (Ctrl-C cancels it)")
    ended = False
    try:
        answers, state = _wait(job, place, site.poll, wait_s)
        ended = state == "gone"
        if answers:
            return list(judge(site, answers[0], listener))
        if not ended:
            return [
                Row("not checked", "probe", f"job {number} was {state} for {wait_s:.0f} s",
                    "give it longer with --wait, or another queue with --queue")
            ]  # fmt: skip
        said = " ".join(job.output().split())[-300:]
        return [
            Row("fail", "probe", f"job {number} ended without an answer: {said}",
                f"{python} has to run on the nodes, and {place.parent} has to be there")
        ]  # fmt: skip
    finally:
        if not ended:
            job.cancel()


def _wait(job: OneJob, place: Path, poll_s: float, wait_s: float) -> tuple[list[Any], str]:
    """The answers, once the job has ended or there are some; and the job's last state."""
    end = time.monotonic() + wait_s
    next_poll, state, gone_at = 0.0, "waiting", None
    while time.monotonic() < end:
        answers = _answers(place)
        if answers:
            return answers, state
        if state == "gone":
            gone_at = gone_at or time.monotonic()
            if time.monotonic() > gone_at + LATE_S:
                break
        elif time.monotonic() >= next_poll:
            seen = job.state()
            state = state if seen == "unknown" else seen
            next_poll = time.monotonic() + poll_s
        time.sleep(LOOK_S)
    return _answers(place), state


def _answers(place: Path) -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted(place.glob("answer-*.json"))]


def judge(site: Site, answer: dict[str, Any], listener: Listener) -> Iterator[Row]:
    """What a node's answer means."""
    name = answer["node"] or answer["host"]
    same = answer["host"] == socket.gethostname()
    two = site.batch and not same
    yield Row(
        "ok" if two or not site.batch else "warn", "node",
        f"{name}, {answer['arch']}" + (", which is this machine" if same else ""),
        "" if two or not site.batch else "one host proves less than two: ask on a real node",
    )  # fmt: skip
    yield Row("ok", "folder on the node", "the node read what was written here, and we its answer")
    yield _lock_row(answer, same)
    if answer["connected"]:
        yield Row(
            "fail", "node reaches steering",
            f"{listener.address}:{listener.port}: {answer['connected']}",
            "another interface in the site's file, or ask for ports from "
            f"{port_ranges()['workers'][0]} on to be open inside the site",
        )  # fmt: skip
    else:
        yield Row("ok", "node reaches steering", f"at {listener.address}:{listener.port}")
    yield from _facts(site, answer)
    yield from _packages(site, answer, name)
    if listener.delays:
        # What travels takes no second; a larger difference is the clocks'.
        delay = listener.delays[0]
        yield clock_row("clock of the node", 0.0 if abs(delay) < 1.0 else -delay)
    if site.node_local is not None:
        yield _local_disk(answer["node_local"])
    program = LAUNCHERS.get(site.launcher)
    if program is not None and site.batch:
        yield Row("ok", "launcher in a job", f"{program} started the probe")


def _lock_row(answer: dict[str, Any], same: bool) -> Row:
    free = answer["lock_is_free"]
    if free is False:
        return Row("ok", "locks on the node", "a lock held here is refused there")
    if free is True:
        return Row(
            "warn", "locks on the node", "a lock held here is granted there as well",
            "run a study from one login node only; on Lustre, ask for a mount with flock",
        )  # fmt: skip
    return Row(
        "warn", "locks on the node", f"none can be taken: {free['problem']}",
        "on Lustre, ask for a mount with flock",
    )  # fmt: skip


def _facts(site: Site, answer: dict[str, Any]) -> Iterator[Row]:
    """The site's file against the node."""
    name, version = answer["glibc"]
    facts: dict[str, tuple[Any, Any, Callable[[Any], str]]] = {
        "arch": (site.arch, answer["arch"], str),
        "page_size": (site.page_size, answer["page_size"], lambda size: format_size(size)),
    }
    if name == "glibc":
        facts["glibc"] = (site.glibc, version, str)
    for key, (stated, found, text) in facts.items():
        if stated is None:
            yield Row("ok", key, f"{text(found)}; the site's file does not state it",
                      f"{key}: {_quoted(key, text(found))} in the site's file")  # fmt: skip
            continue
        older = key == "glibc" and (parse_glibc(found) or ()) >= (parse_glibc(stated) or ())
        if stated == found or older:
            yield Row("ok", key, text(found))
        else:
            yield Row(
                "fail", key, f"{text(found)}, the site's file says {text(stated)}",
                f"{key}: {_quoted(key, text(found))} in the site's file",
            )  # fmt: skip


def _quoted(key: str, text: str) -> str:
    return f'"{text}"' if key == "glibc" else text


def _packages(site: Site, answer: dict[str, Any], name: str) -> Iterator[Row]:
    found = Versions()
    minor = ".".join(map(str, answer["python"][:2]))
    where = f"lib/python{minor}/site-packages"
    for package, version in answer["versions"].items():
        if version.startswith("!"):
            yield Row(
                "fail", f"{package} on the node", version.removeprefix("! "),
                f"install it for {answer['executable']}",
            )  # fmt: skip
        else:
            found.note(name, f"{where}/{package}-{version}.dist-info/METADATA")
    levels: dict[str, State] = {"wrong": "fail", "warning": "warn"}
    rows = list(compare(found, versions_here(), target_of(site).python))
    # A package that cannot be imported has its row already.
    for row in rows:
        if row.found != "no numpy":
            state = levels.get(row.level, "not checked")
            yield Row(state, f"{row.kind} on the node", f"{row.found}; {row.needed}", row.remedy)
    if not rows:
        listed = ", ".join(f"{k} {v}" for k, v in answer["versions"].items() if v[:1] != "!")
        yield Row("ok", "Python on the node", f"{minor} ({answer['executable']}); {listed}")


def _local_disk(told: dict[str, Any]) -> Row:
    if "problem" in told:
        return Row(
            "fail", "node-local disk", told["problem"],
            "node_local in the site's file; some sites give it on request only (directives)",
        )  # fmt: skip
    free = told["free"]
    state: State = "fail" if free < NO_ROOM else "warn" if free < LITTLE_ROOM else "ok"
    found = f"{told['folder']}, {free / 2**30:.1f} GiB free"
    return Row(state, "node-local disk", found, "" if state == "ok" else "use it for less")
