"""What a payload is given so that it does without a network, and what it asked for in spite of it.

Switches tell libraries that there is none. Under `network: deny` the guard (guard/) refuses what
leaves the allocation, and writes it down; here that is read again at a slice's end, and becomes
part of its outcome.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from hpc_hpo.model import SliceEnd, SliceOutcome, TaskSpec

#: As in guard/sitecustomize.py, which is imported when it is needed.
VARIABLE, MARK = "HPC_HPO_NETWORK", "refused by network: deny"
GUARD = str(Path(__file__).parent / "guard")
#: By their libraries' own documentation. What the worker's environment or the study sets, stands.
SWITCHES = {
    # huggingface_hub, transformers, datasets, evaluate
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # experiment trackers
    "WANDB_MODE": "offline",
    "NEPTUNE_MODE": "offline",
    "CLEARML_OFFLINE_MODE": "1",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # installers
    "PIP_NO_INDEX": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "UV_OFFLINE": "1",
    "CONDA_OFFLINE": "true",
    "JULIA_PKG_OFFLINE": "true",
    # anybody who cares
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
#: Of a slice's attempts, so many are told of.
TOLD = 5
#: Errors that an attempt explains; an error of the payload that names neither was another one.
_BY_NETWORK = (MARK, os.strerror(101))
_MOST_HOSTS = 10_000
_PIECE = re.compile(r"(?:[^,\[]|\[[^\]]*\])+")
_RANGE = re.compile(r"\[([^\]]*)\]")


def switches(study: Path) -> dict[str, str]:
    """The variables by which libraries know that there is no network.

    Args:
        study: its folder, in which MLflow keeps its runs.
    """
    return {**SWITCHES, "MLFLOW_TRACKING_URI": (study / "mlruns").as_uri()}


def expand_hosts(text: str) -> Iterator[str]:
    """The names of a Slurm host list: ``n[1-3,07],login`` gives n1, n2, n3, n07, login.

    A piece that is no such list is given as it is.
    """
    for piece in _PIECE.findall(text):
        yield from islice(_expand(piece.strip()), _MOST_HOSTS)


def _expand(piece: str) -> Iterator[str]:
    found = _RANGE.search(piece)
    if found is None:
        yield piece
        return
    for part in found[1].split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and last.isdigit():
            numbers: Iterable[str] = (
                str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)
            )
        else:
            numbers = [part]
        for number in numbers:
            for rest in _expand(piece[found.end() :]):
                yield f"{piece[: found.start()]}{number}{rest}"


def allocation_hosts(environ: Mapping[str, str]) -> set[str]:
    """The job's hosts, as its scheduler names them; MASTER_ADDR is one of them where it is set."""
    hosts = set(expand_hosts(environ.get("SLURM_JOB_NODELIST", "")))
    hosts |= set(environ.get("LSB_HOSTS", "").split())
    # LSB_MCPU_HOSTS: host and slots in turn.
    hosts |= set(environ.get("LSB_MCPU_HOSTS", "").split()[::2])
    for variable in ("LSB_DJOB_HOSTFILE", "PBS_NODEFILE"):
        try:
            hosts |= set(Path(environ[variable]).read_text().split())
        except (KeyError, OSError):
            continue
    hosts.add(environ.get("MASTER_ADDR", ""))
    return hosts - {""}


def name_servers() -> list[str]:
    """Whom this host asks for names."""
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        return []
    return [line.split()[1] for line in lines if re.match(r"nameserver\s+\S", line)]


def guard_spec(
    task: TaskSpec, environ: Mapping[str, str], hosts: Iterable[str], log: Path
) -> dict[str, object] | None:
    """What the guard has to know (see guard.VARIABLE); None when the network is not denied.

    Args:
        environ: of the worker.
        hosts: the slice's own, beside the job's.
        log: where attempts are written down.
    """
    network = task.get("network")
    if network is None or not network["deny"]:
        return None
    inside = allocation_hosts(environ) | set(hosts) | set(network["open"])
    return {"open": sorted(inside), "log": str(log), "name_servers": name_servers()}


def guarded(
    environment: Mapping[str, str], task: TaskSpec, study: Path, spec: dict[str, object] | None
) -> dict[str, str]:
    """A payload's environment with the switches, and with the guard where there is one.

    Args:
        environment: the worker's with the study's own variables, which all have precedence.
        spec: of the guard.
    """
    network = task.get("network")
    if network is None:
        return dict(environment)
    result = {**(switches(study) if network["switches"] else {}), **environment}
    if spec is not None:
        result[VARIABLE] = json.dumps(spec)
        result["PYTHONPATH"] = os.pathsep.join(filter(None, [GUARD, result.get("PYTHONPATH")]))
    return result


def attempts(log: Path, start: int) -> list[str]:
    """What was refused since byte `start` of the log, in words; the same one once."""
    try:
        with open(log, "rb") as stream:
            stream.seek(start)
            lines = stream.read().splitlines()
    except FileNotFoundError:
        return []
    from hpc_hpo.worker.guard.sitecustomize import describe

    found: dict[str, int] = {}
    for line in lines:
        try:
            text = describe(json.loads(line))
        except (ValueError, KeyError):
            continue  # of a process that was killed as it wrote
        found[text] = found.get(text, 0) + 1
    return [text if count == 1 else f"{text} ({count} times)" for text, count in found.items()]


def add_attempts(outcome: SliceOutcome, found: list[str]) -> None:
    """Make the refused attempts of a slice part of its outcome.

    A slice that ends well in spite of them stays so: code may cope without a network. They are
    told of. An error that came of one is of kind `network`, which is not tried again; any other
    error names them, too.
    """
    if not found:
        return
    more = [f"and {len(found) - TOLD} others"] if len(found) > TOLD else []
    outcome["network"] = [*found[:TOLD], *more]
    error = outcome.get("error")
    if error is None or outcome["end"] != SliceEnd.FAILED.value or error.get("transient"):
        return
    said = error.get("message", "")
    texts = (said, error.get("traceback", ""), error.get("log_tail", ""))
    if any(mark in text for mark in _BY_NETWORK for text in texts):
        error["kind"] = "network"
        error["message"] = f"the payload asked for a network that it has not: {found[0]}; {said}"
    else:
        error["message"] = f"{said}; it had asked for the network: {found[0]}"
