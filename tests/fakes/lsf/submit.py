"""``bsub``: options of the command line and of ``#BSUB`` lines, and the checks on them.

Sources: the Summit user guide (options, bins, precedence: the command line wins, no
redirection) and LSF's bsub manual (``-W [hours:]minutes[/host]``, ``-n``, ``span[ptile=]``,
``-wt``/``-wa``, ``-rn``). On the plain flavour a script given by its name is a command to run,
whose ``#BSUB`` lines mean nothing: only redirection reads them, which is LSF's default.
"""

from __future__ import annotations

import math
import re
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

from tests.fakes.lsf.cluster import Cluster
from tests.fakes.lsf.state import Request

_EVERYWHERE = ("W", "P", "J", "o", "e", "q", "w", "wt", "wa")
#: Options with a value, and without one, by flavour. Others are refused.
VALUES = {
    "summit": (*_EVERYWHERE, "nnodes", "alloc_flags"),
    "plain": (*_EVERYWHERE, "n", "R", "gpu"),
}
FLAGS = ("N", "r", "rn")


class Refused(Exception):
    """The job is not submitted; the text says why (standard error, exit code 255)."""


def _refuse(why: str) -> Refused:
    return Refused(f"{why}. Job not submitted.")


def read_options(words: Sequence[str], flavour: str) -> tuple[dict[str, list[str]], list[str]]:
    """Options with all their values in order, and the words from the first other word on.

    A one-letter option may have its value attached (``-W10``).
    """
    options: dict[str, list[str]] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and len(rest[0]) > 1:
        word = rest.pop(0)
        name = word[1:]
        if name in FLAGS:
            options.setdefault(name, []).append("")
        elif name in VALUES[flavour]:
            if not rest:
                raise _refuse(f"Option {word} needs a value")
            options.setdefault(name, []).append(rest.pop(0))
        elif name[0] in VALUES[flavour] and not _long_option(name):
            options.setdefault(name[0], []).append(name[1:])
        else:
            raise _refuse(f"Illegal option: {word}")
    return options, rest


def _long_option(name: str) -> bool:
    """A known option of another flavour is not a short one with its value attached."""
    return name in {n for names in VALUES.values() for n in names if len(n) > 1}


def script_options(script: str, flavour: str) -> dict[str, list[str]]:
    """Options of the script's ``#BSUB`` lines; of those that count once, the last one counts."""
    words: list[str] = []
    for line in script.splitlines():
        if line.startswith("#BSUB"):
            try:
                words += shlex.split(line[len("#BSUB") :])
            except ValueError as error:
                raise _refuse(f"{line}: {error}") from error
    options, rest = read_options(words, flavour)
    if rest:
        raise _refuse(f"{rest[0]}: Illegal word in a #BSUB line")
    return options


def read_minutes(text: str, name: str = "RUNLIMIT") -> int:
    """``[hours:]minutes``; seconds do not exist here, so ``HH:MM:SS`` is refused."""
    match = re.fullmatch(r"(?:(\d+):)?(\d+)(?:/\S+)?", text.strip())
    minutes = int(match[1] or 0) * 60 + int(match[2]) if match else 0
    if minutes <= 0:
        raise _refuse(f"{text}: Bad {name} specification")
    return minutes


def _read_count(text: str, option: str) -> int:
    if not text.strip().isdigit() or int(text) < 1:
        raise _refuse(f"{text}: Bad argument for option {option}")
    return int(text)


def _read_warning(options: dict[str, list[str]]) -> tuple[int | None, str | None]:
    if ("wt" in options) != ("wa" in options):
        raise _refuse("Options -wt and -wa need each other")
    if "wt" not in options:
        return None, None
    name = options["wa"][-1]
    if not hasattr(signal, f"SIG{name}"):
        raise _refuse(f"{name}: Bad job warning action")
    return read_minutes(options["wt"][-1], "job warning time"), name


def _read_hosts(options: dict[str, list[str]], cluster: Cluster) -> dict[str, int | None]:
    """The sizes a request asks for, by the names of Request's fields."""
    if cluster.by_nodes:
        if "nnodes" not in options:
            raise _refuse("ERROR: Number of nodes (-nnodes) must be given")
        nodes = _read_count(options["nnodes"][-1], "-nnodes")
        if nodes > cluster.nodes:
            raise _refuse("Too many processors requested")
        return {"nodes": nodes, "slots": nodes * cluster.cpus}
    slots = _read_count(options.get("n", ["1"])[-1], "-n")
    wanted = " ".join(options.get("R", []))
    span = re.search(r"span\[\s*(ptile|hosts)\s*=\s*(\d+)\s*\]", wanted)
    if "span" in wanted and not span:
        raise _refuse(f'Error near "span" : {wanted}')
    ptile = None
    if span:
        ptile = int(span[2]) if span[1] == "ptile" else slots
        if span[1] == "hosts" and span[2] != "1":
            raise _refuse("span[hosts] must be 1")
    gpu = options.get("gpu", [""])[-1]
    number = re.search(r"num=(\d+)", gpu)
    gpus = int(number[1]) if number else int("gpu" in options)
    hosts = math.ceil(slots / (ptile or cluster.cpus))
    if hosts > cluster.nodes or (ptile or 0) > cluster.cpus or gpus > cluster.gpus:
        raise _refuse("Too many processors requested")
    return {"slots": slots, "ptile": ptile, "gpus_per_host": gpus}


def _check_queue(request: Request, cluster: Cluster, unfinished: Sequence[str]) -> None:
    """Sizes and walltime against the bins, and the number of jobs against the queue's limit."""
    queue = cluster.queue(request.queue)
    if queue is None:
        raise _refuse(f"{request.queue}: No such queue")
    size = request.nodes or 1
    fits = queue.bin_of(size)
    if queue.bins and fits is None:
        raise _refuse(f"ERROR: {size} nodes are outside the limits of queue {queue.name}")
    if fits is not None and request.minutes is not None and request.minutes > fits.minutes:
        raise _refuse(
            f"ERROR: Walltime of {request.minutes} minutes exceeds the limit of {fits.minutes} "
            f"minutes for {size} nodes in queue {queue.name}"
        )
    if queue.queued is not None and unfinished.count(queue.name) >= queue.queued:
        raise _refuse(f"ERROR: At most {queue.queued} jobs may be queued in {queue.name}")


def read_request(
    argv: Sequence[str],
    cwd: str,
    cluster: Cluster,
    stdin: str | None,
    unfinished: Sequence[str],
) -> Request | None:
    """The request of one call; None when the job must first be read from standard input.

    Args:
        stdin: what stood on standard input, once asked for.
        unfinished: the queues of the user's unfinished jobs, one entry a job.

    Raises:
        Refused: with LSF's text.
    """
    options, words = read_options(argv, cluster.flavour)
    script = command = ""
    if not words:
        if cluster.by_nodes:
            raise _refuse("ERROR: A job script must be given by its name, not redirected")
        if stdin is None:
            return None
        script = stdin
        if not script.strip():
            raise _refuse("No command is specified")
    elif cluster.by_nodes and Path(cwd, words[0]).is_file():
        script = Path(cwd, words[0]).read_text()
    else:
        # A single word may hold a whole shell command; several are one command and its arguments.
        command = words[0] if len(words) == 1 else shlex.join(words)
    if script:
        # -R adds up, as LSF merges requirements; all others are replaced from the command line.
        below = script_options(script, cluster.flavour)
        merged = below.get("R", []) + options.get("R", [])
        options = {**below, **options, **({"R": merged} if merged else {})}

    def last(name: str, default: str = "") -> str:
        return options.get(name, [default])[-1]

    if cluster.by_nodes and not last("P"):
        raise _refuse("ERROR: A project (-P) must be given")
    if cluster.by_nodes and "W" not in options:
        raise _refuse("ERROR: A walltime (-W) must be given")
    warn_minutes, warn_signal = _read_warning(options)
    sizes = _read_hosts(options, cluster)
    queue = last("q", cluster.queues[0].name)
    request = Request(
        queue=queue,
        explicit_queue="q" in options,
        minutes=read_minutes(last("W")) if "W" in options else None,
        nodes=sizes.get("nodes") or 0,
        slots=sizes.get("slots") or 1,
        ptile=sizes.get("ptile"),
        gpus_per_host=sizes.get("gpus_per_host") or 0,
        project=last("P", "default"),
        name=last("J") or (words[0] if words else ""),
        output=options["o"][-1] if "o" in options else None,
        errors=options["e"][-1] if "e" in options else None,
        after=last("w"),
        warn_minutes=warn_minutes,
        warn_signal=warn_signal,
        rerun="rn" not in options,
        report="N" not in options,
        script=script,
        arguments=tuple(words[1:]) if script else (),
        command=command,
    )
    _check_queue(request, cluster, unfinished)
    return request
