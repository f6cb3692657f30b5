"""``hpc-hpo show``: one trial, block or segment, or the failures, with all that is known."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from hpc_hpo.cli.common import (
    StudyView,
    duration,
    echo_findings,
    echo_rows,
    front_text,
    one_line,
    open_study,
    point_text,
    value_text,
)
from hpc_hpo.errors import InputError
from hpc_hpo.model import ErrorInfo, SliceRecord, Trial
from hpc_hpo.results.failures import failure_groups
from hpc_hpo.results.fronts import Goal, goals_of, named
from hpc_hpo.results.segments import segment_rows
from hpc_hpo.schema import one_of

_CHUNK = 1 << 16


#: What can be shown, as it is written.
FORMS = "TRIAL, trial TRIAL, block BLOCK, segment NAME, failures, failures GROUP"
#: Trials that are listed by their numbers.
LISTED = 20


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("what", nargs=-1, required=True)
@click.option("--log", is_flag=True, help="Print what a trial's slices wrote to their logs.")
def show(path: Path, what: tuple[str, ...], log: bool) -> None:
    """Show one trial, block or segment, or the failures by their cause.

    PATH is the study's folder or its study.yaml. WHAT is a trial's number, or one of:
    trial TRIAL, block BLOCK (as in 1.0), segment NAME, failures, failures GROUP.
    """
    kind, *names = what if not _is_number(what[0]) else ("trial", *what)
    takes = {"trial": (1,), "block": (1,), "segment": (1,), "failures": (0, 1)}.get(kind)
    if takes is None or len(names) not in takes:
        raise InputError("cannot be shown", key="WHAT", found=" ".join(what), valid=FORMS)
    if log and kind != "trial":
        raise InputError("only a trial has logs", key="--log", found=" ".join(what))
    view = open_study(path)
    if kind == "trial":
        _show_trial(view, path, _number(names[0], "TRIAL"), log)
    elif kind == "block":
        _show_block(view, path, names[0])
    elif kind == "segment":
        _show_segment(view, path, names[0])
    elif names:
        _show_group(view, path, _number(names[0], "GROUP"))
    else:
        _list_failures(view)


def _is_number(text: str) -> bool:
    return text.lstrip("-").isdecimal()


def _number(text: str, key: str) -> int:
    if not text.isdecimal():
        raise InputError("not a number", key=key, found=text, valid="a whole number from 0")
    return int(text)


def _show_trial(view: StudyView, path: Path, trial: int, log: bool) -> None:
    found = _find(view, path, trial)
    if log:
        for record in found.slices:
            click.echo(f"--- slice {record.number}: {_log_name(record)}")
            _copy_log(view.folder.path, record)
        return
    count = found.failures
    attempts = f", {count} failed attempt{'s' * (count != 1)}" if count else ""
    click.echo(f"trial {found.id}: {found.state.value}{attempts}")
    echo_rows(list(_facts(found, goals_of(view.study))))
    for record in found.slices:
        click.echo(f"\nslice {record.number}: {_how(record)}")
        echo_rows(list(_slice_facts(record)))
        if record.error:
            _echo_error(record.error)


def _show_block(view: StudyView, path: Path, name: str) -> None:
    blocks = view.state.blocks
    block = blocks.get(name)
    if block is None:
        valid = one_of(name, list(blocks)) if blocks else "none: the study has had no block"
        raise InputError("there is no such block", file=str(path), found=name, valid=valid)
    click.echo(f"block {block.id}: {block.state}{f' ({block.reason})' if block.reason else ''}")
    slices = [s for t in view.state.trials.values() for s in t.slices if s.block == block.id]
    ends = Counter(s.end.value for s in slices if s.end is not None)
    rows = [("job", block.job or "not known"), ("workers", str(block.workers))]
    if block.nodes:
        rows.append(("nodes", str(block.nodes)))
    for label in ("requested", "started", "deadline", "ended"):
        moment = getattr(block, label)
        if moment is not None:
            rows.append((label, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))))
    rows.append(("slices", ", ".join(f"{n} {end}" for end, n in ends.items()) or "none ended"))
    rows += [("host", host) for host in sorted({s.host for s in slices if s.host})]
    echo_rows(rows)


def _show_segment(view: StudyView, path: Path, name: str) -> None:
    rows = {row.name: row for row in segment_rows(view.state, view.study)}
    row = rows.get(name)
    if row is None:
        names = [known for known in rows if known is not None]
        valid = one_of(name, names) if names else "none: the study has no segments"
        raise InputError("there is no such segment", file=str(path), found=name, valid=valid)
    click.echo(f"segment {name}: {row.state}")
    facts = [(key, value_text(value)) for key, value in row.values.items()]
    record = row.record
    facts.append(("trials", f"{record.asked} asked, {record.completed} completed, "
                  f"{record.failed} failed; budget {row.budget}"))  # fmt: skip
    if row.goals:
        facts.append(("best", front_text(row.plain()["front"])))
    elif row.best is not None:
        facts.append(("best", f"loss {value_text(row.best.loss)}, trial {row.best.id}"))
        facts.append(("", point_text(row.best.point)))
    if row.problem is not None:
        facts.append(("problem", row.problem))
    own = [t.id for t in view.state.trials.values() if t.segment == name and not t.superseded]
    facts.append(("numbers", _listed(own)))
    echo_rows(facts)


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:LISTED])) or "none"
    return shown + (f", ... ({len(numbers)})" if len(numbers) > LISTED else "")


def _list_failures(view: StudyView) -> None:
    groups = failure_groups(view.state)
    if not groups:
        click.echo("nothing has failed or was lost")
    rows = [
        (str(g.number), g.end, str(g.slices), str(len(g.trials)), str(len(g.given_up)),
         g.kind, one_line(g.cause))
        for g in groups
    ]  # fmt: skip
    heads = ("group", "end", "slices", "trials", "given up", "kind", "cause")
    echo_findings(heads, rows, plain=False)


def _show_group(view: StudyView, path: Path, number: int) -> None:
    groups = {group.number: group for group in failure_groups(view.state)}
    group = groups.get(number)
    if group is None:
        valid = f"1-{len(groups)}" if groups else "none: nothing has failed"
        raise InputError("there is no such group", file=str(path), found=number, valid=valid)
    click.echo(f"failures {number}: {one_line(group.cause)}")
    hosts = ", ".join(f"{host} ({count})" for host, count in group.hosts.most_common(LISTED))
    echo_rows([
        ("slices", f"{group.slices} {group.end}"),
        ("trials", _listed(group.trials)),
        ("given up", _listed(group.given_up)),
        ("hosts", hosts or "not known"),
        ("to redo", f"{duration(group.wasted_s)} of work"),
    ])  # fmt: skip
    for trial, record in group.examples:
        click.echo(f"\ntrial {trial}, slice {record.number}, host {record.host}")
        if record.error:
            _echo_error(record.error)


def _find(view: StudyView, path: Path, number: int) -> Trial:
    trials = view.state.trials
    if number in trials:
        return trials[number]
    if not trials:
        raise InputError(f"there is no trial {number}: the study has none yet", file=str(path))
    raise InputError(
        "there is no such trial", file=str(path), found=number, valid=f"{min(trials)}-{max(trials)}"
    )


def _facts(trial: Trial, goals: Sequence[Goal]) -> Iterator[tuple[str, str]]:
    for name, value in trial.point.items():
        yield name, value_text(value)
    if trial.loss is not None:
        values = [f"{name} {value!r}" for name, value in named(trial, goals).items()]
        yield ("objectives", ", ".join(values)) if values else ("loss", repr(trial.loss))
    if trial.segment is not None:
        yield "segment", trial.segment + (", begun again since" if trial.superseded else "")
    if trial.like is not None:
        yield "point of", f"trial {trial.like}, of a similar segment"
    if trial.parent is not None:
        parent = trial.parent
        yield "goes on from", f"trial {parent['trial']} at step {parent['step']}"
        yield "in place of", f"trial {parent['replaces']}"
    yield "seed", str(trial.seed)
    yield "worked", duration(trial.spent_s)
    if trial.reports:
        step = max(trial.reports)
        metrics = ", ".join(f"{k} {value_text(v)}" for k, v in trial.reports[step].items())
        yield "reports", f"{len(trial.reports)}, the last at step {step}: {metrics}"
    if trial.checkpoint is not None:
        yield "checkpoint", trial.checkpoint["name"]


def _how(record: SliceRecord) -> str:
    if record.end is None:
        return "not ended"
    return record.end.value + (f" ({record.reason})" if record.reason else "")


def _slice_facts(record: SliceRecord) -> Iterator[tuple[str, str]]:
    if record.block is not None:
        yield "where", f"block {record.block}, worker {record.worker}, host {record.host}"
    if record.started is not None and record.ended is not None:
        wasted = f", {duration(record.wasted_s)} to be done again" if record.wasted_s else ""
        yield "took", duration(record.ended - record.started) + wasted
    if record.end is not None:
        yield "from", record.restored or "the beginning"
    if record.log is not None:
        yield "log", _log_name(record)
    for text in record.network or ():
        yield "refused", text


def _echo_error(error: ErrorInfo) -> None:
    click.echo(f"  {error.get('kind', 'error')}: {error.get('message', '')}")
    for title, text in (
        ("traceback", error.get("traceback")),
        ("end of its log", error.get("log_tail")),
    ):
        if text:
            click.echo(f"  {title}:")
            for line in text.rstrip().splitlines():
                click.echo(f"    {line}")


def _log_name(record: SliceRecord) -> str:
    if record.log is None:
        return "no log"
    file, start, end = record.log
    return f"{file}, bytes {start} to {end}" if end > start else f"{file}; it wrote nothing"


def _copy_log(folder: Path, record: SliceRecord) -> None:
    """Write the slice's part of its worker's log to standard output, byte for byte."""
    if record.log is None:
        return
    file, start, end = record.log
    left: Any = end - start
    sys.stdout.flush()
    try:
        with open(folder / file, "rb") as stream:
            stream.seek(start)
            while left > 0 and (chunk := stream.read(min(left, _CHUNK))):
                click.echo(chunk, nl=False)
                left -= len(chunk)
    except OSError as error:
        click.echo(f"(cannot be read: {error})", err=True)
