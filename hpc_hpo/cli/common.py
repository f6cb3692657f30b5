"""What the commands share: their argument, and how they put things for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from hpc_hpo.results.view import StudyView as StudyView
from hpc_hpo.results.view import find_study as find_study
from hpc_hpo.results.view import open_study as open_study
from hpc_hpo.results.view import read_study as read_study
from hpc_hpo.results.view import study_name as study_name

#: The argument of all commands that look at one study.
path_argument = click.argument(
    "path", type=click.Path(path_type=Path), default=Path("."), metavar="[PATH]"
)

#: What commands share that may put a study elsewhere.
site_option = click.option(
    "--site", "site_name", help="A site's name or file, in place of the study's."
)
directory_option = click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The study folder."
)


def duration(seconds: float) -> str:
    """A duration for people: 0.4 s, 12 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def value_text(value: Any) -> str:
    """A parameter's value or a loss for people: six digits of a float are enough."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def point_text(point: dict[str, Any]) -> str:
    """A point on one line."""
    return ", ".join(f"{name} = {value_text(value)}" for name, value in point.items())


def front_text(front: Mapping[str, Any]) -> str:
    """The front of several objectives in short; `front` as of results.fronts.front_row."""
    count, volume = len(front["trials"]), front["hypervolume"]
    text = f"{count} trial{'s' * (count != 1)} on the front"
    return text if volume is None else f"{text}, hypervolume {value_text(volume)}"


def one_line(text: str) -> str:
    """The first line of a text that others wrote, safe to be shown on a terminal: what cannot be
    printed, escape sequences included, becomes a backslash escape.
    """
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    first = lines[0] if lines else ""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in first)


def overran_text(count: int) -> str:
    """What to do about trials that did not pause at their rungs."""
    return (
        f"{count} trial{'s' * (count != 1)} ran past a rung to the end: call trial.should_stop() "
        "after each trial.report(), and return None when it is true; a command ends at its signal"
    )


def echo_rows(rows: list[tuple[str, str]]) -> None:
    """Print (label, text) lines, the texts aligned."""
    width = max((len(label) for label, _ in rows), default=0)
    for label, text in rows:
        click.echo(f"  {label:<{width}}  {text}".rstrip())


def echo_findings(heads: Sequence[str], rows: Sequence[Sequence[str]], *, plain: bool) -> None:
    """Print a table of texts; nothing when it has no rows.

    On a terminal it is fitted to its width. Elsewhere, or with `plain`, each row is one line,
    whatever its length.
    """
    if not rows:
        return
    if plain or not sys.stdout.isatty():
        table = [heads, *rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for row in table:
            cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
            click.echo("  ".join(cells).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"wrong": "red", "fail": "red", "warning": "yellow", "warn": "yellow", "ok": "green"}
    shown = Table(show_lines=False, pad_edge=False, box=None, header_style="bold")
    for head in heads:
        shown.add_column(head, overflow="fold")
    for row in rows:
        shown.add_row(Text(row[0], style=colours.get(row[0], "dim")), *map(Text, row[1:]))
    Console(highlight=False).print(shown)
