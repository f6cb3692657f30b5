"""``hpc-hpo status``: how a study stands."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from hpc_hpo.cli.common import (
    duration,
    echo_rows,
    front_text,
    open_study,
    overran_text,
    path_argument,
    point_text,
    value_text,
)
from hpc_hpo.results.limits import Limit, in_words
from hpc_hpo.results.summary import summary
from hpc_hpo.results.table import strict_json
from hpc_hpo.steerer.chain import read_chain

#: What a study's state means to its user.
MEANING = {
    "new": "never run",
    "running": "running",
    "stopped": "stopped with work left; `hpc-hpo run` goes on with it",
    "done": "done",
    "failed": "done, but no trial has a loss; `hpc-hpo show DIR failures` tells why",
}

#: Segments that failed, of which status says why.
SHOWN = 5


@click.command()
@path_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(path: Path, as_json: bool) -> None:
    """Show how a study stands.

    PATH is the study's folder or its study.yaml (default: here).
    """
    view = open_study(path)
    found = summary(view.folder, view.state, view.study, time.time())
    chain = read_chain(view.folder)
    found["chain"] = chain and {
        "jobs": chain.jobs, "max_jobs": chain.max_jobs, "closed": chain.closed or None,
    }  # fmt: skip
    if as_json:
        click.echo(strict_json(found, indent=2))
        return
    click.echo(f"{found['study']}: {_headline(found)}")
    echo_rows(list(_rows(found).items()))


def _headline(found: dict[str, Any]) -> str:
    text = MEANING[found["state"]]
    holder = found["steering"]
    if holder:
        text += f", by process {holder['pid']} on {holder['host']}"
    elif found["state"] == "new" and not Path(found["dir"]).exists():
        text += ", not prestaged"
    elif found["stop_reason"]:
        text += f" (last run: {found['stop_reason']})"
    return text


def _chain_text(chain: dict[str, Any]) -> str:
    text = f"{len(chain['jobs'])} of at most {chain['max_jobs']} submitted to steer the study"
    if chain["closed"]:
        return f"{text}; no further one: {chain['closed']}"
    return f"{text}; the newest is {chain['jobs'][-1]}" if chain["jobs"] else text


def _counts(counts: dict[str, int], words: list[str]) -> str:
    return ", ".join(f"{counts[word]} {word}" for word in words if counts[word]) or "none yet"


def segment_lines(segments: dict[str, Any]) -> dict[str, str]:
    """How the segments stand, and the first of those that failed."""
    counts = _counts(segments, ["done", "target", "running", "new", "stopped", "failed"])
    lines = {"segments": f"{segments['total']}: {counts.replace('target', 'at their target')}"}
    problems = list(segments["problems"].items())
    for name, problem in problems[:SHOWN]:
        lines[f"  {name}"] = problem
    if len(problems) > SHOWN:
        lines["  ..."] = f"{len(problems) - SHOWN} more; `hpc-hpo segment list` shows all"
    return lines


def _rows(found: dict[str, Any]) -> dict[str, str]:
    """The lines below the headline; nothing is said of what has not begun."""
    rows = {"folder": found["dir"]}
    trials, best = found["trials"], found["best"]
    rows["trials"] = _counts(
        trials, ["completed", "stopped", "failed", "running", "paused", "asked"]
    )
    if trials["budget"] is not None:
        rows["trials"] += f"; budget {trials['budget']}"
    others = [Limit(**limit) for limit in found["limits"] if limit["kind"] != "trials"]
    if others:
        rows["budget"] = in_words(others)
    if found["segments"]:
        rows.update(segment_lines(found["segments"]))
    elif found["front"] and best:
        rows["best"] = f"{front_text(found['front'])}; `hpc-hpo best` lists them"
    elif best:
        rows["best"] = f"loss {value_text(best['loss'])}, trial {best['trial']}"
        rows[""] = point_text(best["point"])
    if found["chain"]:
        rows["jobs"] = _chain_text(found["chain"])
    if found["state"] == "new":
        return rows
    blocks = found["blocks"]
    rows["blocks"] = _counts(blocks, ["running", "requested", "ended", "abandoned"])
    left = [b["seconds_left"] for b in blocks["held"] if b["seconds_left"] is not None]
    if left:
        rows["blocks"] += f"; {duration(max(left))} left"
    rows["slices"] = _counts(found["slices"], list(found["slices"]))
    if found["utilisation"] is not None:
        rows["workers"] = (
            f"busy {100 * found['utilisation']:.1f} % of "
            f"{duration(found['allocated_worker_seconds'])}, "
            f"{duration(found['lost_worker_seconds'])} lost"
        )
    runs = found["runs"]
    rows["steering"] = (
        f"{duration(found['steering_cpu_seconds'])} of CPU time, {runs} run{'s' * (runs != 1)} "
        f"in {duration(found['elapsed_seconds'])}"
    )
    if found["refused"]:
        rows["refused"] = f"{found['refused']} outcomes of slices that were superseded"
    if found["overran"]:
        rows["rungs"] = overran_text(found["overran"])
    if found["network_refused"]:
        rows["network"] = f"{found['network_refused']} slices asked for it and were refused"
    return rows
